//! The `receptor` binary: `arguments → checked settings → run → exit status`.
//!
//! ```text
//!  args ─▶ settings ─▶ config ─▶ node ── serves ──▶ control socket ◀─┐
//!   │   (flag, env, file)          │                                 │
//!   │                              ▼                                 │
//!   │                        local (a Node in this process)          │
//!   │                              ▲                                 │
//!   └─▶ status, ping, trace, send ─┴── place: local or remote ───────┘
//! ```
//!
//! `node` runs a node and serves its control socket. `status`, `ping`, `trace` and `send` run on a
//! place: a running node behind its socket, or an ephemeral one that joins for this one thing.
//! Everything that touches a node for them is in `local`, which the socket's server uses as well,
//! so that both ways do the same.

mod args;
mod cert;
mod control;
mod demo;
mod doctor;
mod explain;
mod generate;
mod join;
mod local;
mod node;
mod output;
mod ping;
mod place;
mod policy;
mod process;
mod reload;
mod send;
mod setup;
mod socket;
mod status;
mod trace;
mod work;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
pub use args::Args;
use args::Command;

/// Feeds arbitrary bytes to the decoders of the control socket.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_control(bytes: &[u8]) {
    control::fuzz(bytes);
}

/// Feeds arbitrary bytes to the parser of configuration files.
#[cfg(feature = "testing")]
pub(crate) fn fuzz_config(bytes: &[u8]) {
    setup::file::fuzz(bytes);
}

/// Runs the command to its end and returns the exit status. `receptor --help` has the table.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let status = match dispatch(args.command, &Env::of_process()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(),
    };
    process::log::flush();
    status
}

/// Runs a command, and returns the exit status.
fn dispatch(command: Command, env: &Env) -> Result<u8, Failure> {
    let done = match command {
        Command::Cert { command } => cert::run(command),
        Command::Node(args) => {
            let config = setup::config::NodeConfig::resolve((*args).clone(), env)?;
            process::log::init(config.log_format);
            let again = || setup::config::NodeConfig::resolve((*args).clone(), env);
            block_on(node::run(config, again), WIND_UP)
        }
        Command::Status(args) => client(status::run(args, env)),
        Command::Ping(args) => client(ping::run(args, env)),
        Command::Reload(args) => client(reload::run(args, env)),
        Command::Trace(args) => client(trace::run(args, env)),
        Command::Explain(args) => client(explain::run(args, env)),
        Command::Send(args) => client(send::run(args, env)),
        Command::Work(args) => return client(work::run(args, env)),
        Command::Doctor(args) => client(doctor::run(*args, env)),
        Command::Config { command } => setup::config::command::run(command, env),
        Command::Policy { command } => client(policy::run(command, env)),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { dir } => generate::man(&dir),
        Command::Demo => {
            process::log::init_quiet();
            block_on(demo::run(), WIND_UP)
        }
    };
    done.map(|()| 0)
}

/// Runs a command that is one thing on a node that is there already.
fn client<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    process::log::init_quiet();
    // A pending read of standard input must not delay the exit.
    block_on(command, Duration::ZERO)
}

/// Maximum time for tasks to be dropped at exit; an immediate stop kills commands then.
const WIND_UP: Duration = Duration::from_secs(1);

fn block_on<T>(
    future: impl Future<Output = Result<T, Failure>>,
    wind_up: Duration,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(wind_up);
    result
}
