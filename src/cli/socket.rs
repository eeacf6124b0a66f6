//! The control socket that a command uses.

use std::path::PathBuf;

use super::control::client::Client;
use super::control::path::the_one_there_is;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::cli::setup::settings::CONTROL;

/// The node that is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SocketArgs {
    /// Control socket of a node on this machine [env: RECEPTOR_CONTROL] [default: the one in the
    /// default directory]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
}

/// Connects to the node that the arguments name, or to the only one on this host.
pub(super) fn client(args: SocketArgs, env: &Env) -> Result<Client, Failure> {
    let path = match CONTROL.path(args.control, env) {
        Some(path) => path.value,
        None => the_one_there_is(env)?,
    };
    Ok(Client::new(path))
}
