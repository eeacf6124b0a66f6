//! The control socket that a command uses.

use super::args::SocketArgs;
use crate::cli::control::client::Client;
use crate::cli::control::path::the_one_there_is;
use crate::cli::env::Env;
use crate::cli::exit::Failure;
use crate::cli::settings::CONTROL;

/// Connects to the node that the arguments name, or to the only one on this host.
pub(super) fn client(args: SocketArgs, env: &Env) -> Result<Client, Failure> {
    let path = match CONTROL.path(args.control, env) {
        Some(path) => path.value,
        None => the_one_there_is(env)?,
    };
    Ok(Client::new(path))
}
