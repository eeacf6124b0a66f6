//! The command line of `receptor work`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;
use uuid::Uuid;

use super::id::IdPrefix;
use super::unit::State;
use crate::cli::setup::settings::duration;
use crate::cli::socket::SocketArgs;
use crate::id::NodeId;
use crate::work::Directive;

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(in crate::cli) struct WorkArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: WorkCommand,
}

const EXAMPLES: &str = "\
A unit outlives every process involved. It is stored by the node behind the control
socket, which needs a data directory and --units; it reaches the other node when
that node is reachable, starts there at most once, and can be read, waited for and
cancelled until it is released. docs/work.md describes what is guaranteed.

Examples:
  receptor work submit edge-1 db:dump --follow --rm > dump
  receptor work submit edge-1 image:build @context.tar --start-by 1h --label job=17
  receptor work list --state running
  receptor work results 0193a5b2 --from 4096 --follow
  receptor work wait 0193a5b2 && receptor work release 0193a5b2";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WorkCommand {
    /// Submit a unit of work to a node, reachable or not, and print its id
    #[command(after_long_help = SUBMIT_EXAMPLES)]
    Submit(SubmitArgs),
    /// List units that were submitted by this node, or run on it
    List(ListArgs),
    /// Show the status of a unit
    Status(StatusArgs),
    /// Write the output of a unit to standard output
    Results(ResultsArgs),
    /// Wait until a unit has ended, and exit with the exit status of its command
    Wait(WaitArgs),
    /// Cancel a unit; one that was not started yet will never start
    Cancel(CancelArgs),
    /// Release units: forget them, and delete their output, here and where they ran
    Release(ReleaseArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SubmitArgs {
    /// Node that executes the unit
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// What to do
    #[arg(value_name = "NS:ACTION")]
    pub(super) directive: Directive,
    /// Payload: a text; `-` for standard input; `@FILE` for a file [default: nothing]
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    pub(super) payload: Option<OsString>,
    /// Id of the unit; submitting the same unit again with the same id has no further effect
    /// [default: a new UUID]
    #[arg(long, value_name = "UUID")]
    pub(super) key: Option<Uuid>,
    /// Expire unless started within this time: 90, 15m, 12h, up to 30d [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    pub(super) start_by: Option<Duration>,
    /// End the command after this time [default: the node's limit]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    pub(super) run_for: Option<Duration>,
    /// Keep status and output this long after the end, up to 30d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = life)]
    pub(super) keep: Option<Duration>,
    /// Label, for people and queries; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub(super) label: Vec<(String, String)>,
    /// Permit a second start if the end of the first one is unknown
    #[arg(long)]
    pub(super) idempotent: bool,
    /// Write the output as it comes, and exit with the exit status of the command
    #[arg(long, short = 'f')]
    pub(super) follow: bool,
    /// Release the unit after its output was written
    #[arg(long, requires = "follow")]
    pub(super) rm: bool,
    /// Print the status as JSON instead of the id
    #[arg(long, conflicts_with = "follow")]
    pub(super) json: bool,
    /// Show no progress on standard error, and with --follow not the id either
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
    /// With --follow: write output to a terminal as it is, control sequences included
    #[arg(long, requires = "follow")]
    pub(super) raw: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

impl SubmitArgs {
    /// The id of the unit. It is drawn once if none was given.
    pub(super) fn key(&mut self) -> Uuid {
        *self.key.get_or_insert_with(Uuid::now_v7)
    }
}

const SUBMIT_EXAMPLES: &str = "\
The command returns once the unit is stored on disk by the node behind the control
socket. With --follow it stays until the unit has ended: the standard output of the
job goes to standard output, its standard error to standard error, and Ctrl-C leaves
the unit running.

Examples:
  id=$(receptor work submit edge-1 db:dump)
  receptor work submit edge-1 image:build - --label job=17 < context.tar
  ansible-runner transmit project -p play.yml |
    receptor work submit edge-1 runner:worker - --follow --rm |
    ansible-runner process artifacts";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(super) which: QueryArgs,
    /// List units that run on this node for others
    #[arg(long)]
    pub(super) here: bool,
    /// List instead what the node found in its units' directory and cannot use, with the reason
    #[arg(long, conflicts_with_all = ["here", "node", "state", "label", "older"])]
    pub(super) quarantined: bool,
    /// Print JSON, one object a unit
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

/// Which units.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct QueryArgs {
    /// Only units of this node
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<NodeId>,
    /// Only units in this state: queued, running, succeeded, failed, cancelled, expired, refused,
    /// lost …; repeatable
    #[arg(long, value_name = "STATE")]
    pub(super) state: Vec<State>,
    /// Only units with this label; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub(super) label: Vec<(String, String)>,
    /// Only units submitted at least this long ago: 90, 15m, 12h, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) older: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatusArgs {
    /// Id of the unit, or the beginning of it
    #[arg(value_name = "ID")]
    pub(super) id: IdPrefix,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ResultsArgs {
    /// Id of the unit, or the beginning of it
    #[arg(value_name = "ID")]
    pub(super) id: IdPrefix,
    /// Begin at this byte
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub(super) from: u64,
    /// Standard error of the command, not its standard output
    #[arg(long)]
    pub(super) stderr: bool,
    /// Go on until the unit has ended
    #[arg(long, short = 'f')]
    pub(super) follow: bool,
    /// Write output to a terminal as it is, control sequences included
    #[arg(long)]
    pub(super) raw: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct WaitArgs {
    /// Id of the unit, or the beginning of it
    #[arg(value_name = "ID")]
    pub(super) id: IdPrefix,
    /// Give up after this time, with exit status 3 [default: no limit]
    #[arg(long, short = 't', value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Print the final status as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Show no progress on standard error
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CancelArgs {
    /// Id of the unit, or the beginning of it
    #[arg(value_name = "ID")]
    pub(super) id: IdPrefix,
    /// Time between SIGTERM and SIGKILL for a command that runs
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(super) grace: Duration,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReleaseArgs {
    /// Id of the unit, or the beginning of it
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "node", "state", "label", "older"])]
    pub(super) id: Option<IdPrefix>,
    /// Release all units that were submitted by this node, as far as --node, --state, --label and
    /// --older say so
    #[arg(long)]
    pub(super) all: bool,
    /// Also units that have not ended: they are cancelled and killed
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) which: QueryArgs,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

/// How long a unit may wait, run or be kept.
fn life(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(30 * 86_400);
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        life if life > MAX => Err("must be at most 30d".to_owned()),
        life => Ok(life),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Args, Command};

    fn parse(line: &str) -> Result<WorkCommand, String> {
        let args = Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match args.command {
            Command::Work(work) => Ok(work.command),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_submission_has_times_labels_and_a_key() {
        let line = "receptor work submit edge-1 a:b - --key 0193a5b2-7c4d-7000-8000-000000000001 \
                    --start-by 1h --run-for 90 --keep 2d --label a=b=c --label d= --idempotent --follow --rm";
        let WorkCommand::Submit(args) = parse(line).unwrap() else { panic!() };
        assert_eq!(args.payload.as_deref(), Some("-".as_ref()));
        assert_eq!(args.start_by, Some(Duration::from_secs(3_600)));
        assert_eq!(args.run_for, Some(Duration::from_secs(90)));
        assert_eq!(
            args.label,
            [("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())]
        );
        assert!(args.key.is_some() && args.idempotent && args.follow && args.rm);
    }

    #[test]
    fn values_out_of_bounds_are_rejected_with_the_bound() {
        for (line, why) in [
            ("submit a b:c --start-by 31d", "at most 30d"),
            ("submit a b:c --keep 0", "longer than 0"),
            ("submit a b:c --label x", "NAME=VALUE"),
            ("submit a b:c --rm", "--follow"),
            ("list --state done", "succeeded"),
            ("status xyz", "hexadecimal"),
        ] {
            let error = parse(&format!("receptor work {line}")).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn one_unit_or_all_that_match_are_released() {
        assert!(parse("receptor work release 0193").is_ok());
        assert!(parse("receptor work release --all --state failed --older 1h --force").is_ok());
        for bad in ["release", "release 0193 --all", "release 0193 --state failed"] {
            assert!(parse(&format!("receptor work {bad}")).is_err(), "{bad}");
        }
    }
}
