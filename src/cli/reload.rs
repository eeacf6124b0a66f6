//! Reloads: the certificates and the configuration are read again, and what can change while the
//! node runs takes effect. All of it, or nothing if anything is wrong.

pub(super) mod reloader;
pub(super) mod report;
#[cfg_attr(not(target_os = "linux"), path = "reload/watch_unreported.rs")]
mod watch;

use std::io::Write as _;

use super::socket::{self, SocketArgs};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;

/// `receptor reload`: has a node reload, and prints what came of it.
pub(super) async fn run(args: SocketArgs, env: &Env) -> Result<(), Failure> {
    let reloaded = socket::client(args, env)?.reload().await?;
    let mut text = String::from("certificates reloaded\n");
    if !reloaded.applied.is_empty() {
        text += &format!("in effect: {}\n", reloaded.applied.join(", "));
    }
    if !reloaded.needs_restart.is_empty() {
        text += &format!("changed, needs a restart: {}\n", reloaded.needs_restart.join(", "));
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
}
