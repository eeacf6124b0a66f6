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
mod state_line;
mod submit;
mod table;
pub(super) mod unit;
mod wait;

use args::{SocketArgs, WorkArgs, WorkCommand};
use unit::UnitView;

use super::control::client::Client;
use super::control::path::the_one_there_is;
use super::env::Env;
use super::exit::{Exit, Failure};
use super::settings::CONTROL;
use super::signals::Stop;

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
        WorkCommand::Submit(args) => {
            Failure::failed(format!("interrupted; if the unit was submitted, its id is {}", args.key()))
        }
        _ => Failure::failed("interrupted; units that were submitted go on"),
    }
}

/// The node that is asked.
fn client(args: SocketArgs, env: &Env) -> Result<Client, Failure> {
    let path = match CONTROL.path(args.control, env) {
        Some(path) => path.value,
        None => the_one_there_is(env)?,
    };
    Ok(Client::new(path))
}

/// How a command that waited for a unit ends: as the unit's command did, or with the reason why
/// that has no exit status.
fn end_as(unit: &UnitView) -> Result<u8, Failure> {
    if let Some(status) = unit.exit_status() {
        return Ok(status);
    }
    let exit = match unit.state {
        unit::State::Expired => Exit::Unreachable,
        unit::State::Refused => Exit::Refused,
        _ => Exit::Failed,
    };
    let reason = unit.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Failure { exit, text: format!("unit {} on {}: {}{reason}", unit.id, unit.node, unit.verdict()) })
}

/// Writes text to standard output.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// A unit as a line of JSON.
fn json_line(unit: &UnitView) -> String {
    let json = serde_json::to_string(unit).expect("plain data is JSON");
    format!("{}\n", super::text::escape_json(&json))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::unit::State;
    use super::unit::tests::unit;
    use super::*;
    use crate::cli::args::{Args, Command};

    #[test]
    fn an_interrupted_submission_names_the_unit() {
        let command = |line: &str| match Args::try_parse_from(line.split(' ')).expect("valid").command {
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

    #[test]
    fn a_unit_without_an_exit_status_ends_with_the_reason() {
        assert_eq!(end_as(&UnitView { exit: Some(7), ..unit(State::Failed) }), Ok(7));
        let lost = end_as(&unit(State::Lost)).unwrap_err();
        assert_eq!((lost.exit, lost.text.ends_with("on edge-1: lost")), (Exit::Failed, true));
        let refused = UnitView { reason: Some("no such directive".to_owned()), ..unit(State::Refused) };
        let refused = end_as(&refused).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.text.ends_with("refused: no such directive"), "{}", refused.text);
        assert_eq!(end_as(&unit(State::Expired)).unwrap_err().exit, Exit::Unreachable);
    }
}
