//! `receptor work`: units of work, through the control socket of a node that keeps them.
//!
//! The node behind the socket stores what is submitted, so an ephemeral node that joins for one
//! command cannot take its place.

pub(super) mod args;
mod change;
pub(super) mod id;
mod list;
pub(super) mod local;
pub(super) mod payload;
mod reconnect;
pub(super) mod request;
mod results;
mod show;
mod submit;
pub(super) mod unit;
mod wait;

use args::{WorkArgs, WorkCommand};

use crate::cli::process::exit::Failure;
use crate::cli::process::signals::Stop;
use crate::cli::setup::env::Env;

/// Runs a command, and returns the exit status.
pub(super) async fn run(mut args: WorkArgs, env: &Env) -> Result<u8, Failure> {
    let mut stop = Stop::watch()?;
    let interrupted = interrupted(&mut args.command);
    let command = async {
        match args.command {
            WorkCommand::Submit(args) => submit::run(args, env).await,
            WorkCommand::List(args) => list::run(args, env).await.map(|()| 0),
            WorkCommand::Status(args) => list::status(args, env).await.map(|()| 0),
            WorkCommand::Results(args) => results::run(args, env).await.map(|()| 0),
            WorkCommand::Wait(args) => wait::run(args, env).await,
            WorkCommand::Cancel(args) => change::cancel(args, env).await.map(|()| 0),
            WorkCommand::Release(args) => change::release(args, env).await.map(|()| 0),
        }
    };
    tokio::select! {
        result = command => result,
        () = stop.wait() => Err(interrupted),
    }
}

/// How the command ends on a signal. It names the unit of a submission, which may be on disk before
/// its id is printed.
fn interrupted(command: &mut WorkCommand) -> Failure {
    match command {
        WorkCommand::Submit(args) => Failure::failed(format!(
            "interrupted; if the unit was submitted, its id is {}",
            args.key()
        )),
        _ => Failure::failed("interrupted; units that were submitted go on"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Args, Command};

    #[test]
    fn an_interrupted_submission_names_the_unit() {
        let command =
            |line: &str| match Args::try_parse_from(line.split(' ')).expect("valid").command {
                Command::Work(work) => work.command,
                other => panic!("{other:?}"),
            };
        let mut submit = command("receptor work submit edge-1 a:b");
        let failure = interrupted(&mut submit);
        let WorkCommand::Submit(args) = submit else { panic!("{submit:?}") };
        let key = args.key.expect("it was drawn");
        assert!(failure.text.ends_with(&format!("its id is {key}")), "{failure}");
        let failure = interrupted(&mut command("receptor work list"));
        assert!(failure.text.ends_with("units that were submitted go on"), "{failure}");
    }
}
