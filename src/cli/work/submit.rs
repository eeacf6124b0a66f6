//! `receptor work submit`.

use std::io::{self, IsTerminal as _};

use uuid::Uuid;

use super::args::SubmitArgs;
use super::id::IdPrefix;
use super::list::millis;
use super::reconnect::persist;
use super::request::{ResultsRequest, SubmitRequest};
use super::results::write_output;
use super::unit::UnitView;
use super::wait::until_final;
use crate::cli::control::client::Client;
use crate::cli::output::flow::WriteTo;
use crate::cli::output::progress::Progress;
use crate::cli::process::exit::{Exit, Failure, complain};
use crate::cli::process::log::say;
use crate::cli::send::Payload;
use crate::cli::setup::env::Env;
use crate::cli::socket::client;
use crate::cli::work::show::output::{end_as, json_line, print};
use crate::cli::work::show::state_line::StateLine;

pub(super) async fn run(mut args: SubmitArgs, env: &Env) -> Result<u8, Failure> {
    let client = client(args.socket.clone(), env)?;
    let (payload, size) = Payload::parse(args.payload.clone()).open().await?;
    let progress = Progress::new(size, args.quiet);
    let key = args.key();
    let submit = client.submit(request(&args, key), progress.sending(payload));
    let submitted = tokio::select! {
        submitted = submit => submitted,
        never = progress.show() => never,
    };
    drop(progress);
    let unit = submitted?;
    if args.follow {
        return follow(&client, &unit, &args).await;
    }
    print(&if args.json { json_line(&unit) } else { format!("{}\n", unit.id) })?;
    Ok(0)
}

fn request(args: &SubmitArgs, key: Uuid) -> SubmitRequest {
    SubmitRequest {
        node: args.node.clone(),
        directive: args.directive.clone(),
        key,
        start_by_ms: args.start_by.map(millis),
        run_for_ms: args.run_for.map(millis),
        keep_for_ms: args.keep.map(millis),
        labels: args.label.iter().cloned().collect(),
        idempotent: args.idempotent,
    }
}

/// A busy node starts nothing, but the unit that it does not report on was started before.
fn goes_on(failure: Failure, unit: &UnitView) -> Failure {
    if failure.exit != Exit::Busy {
        return failure;
    }
    Failure::failed(format!("{}; unit {} was submitted and goes on", failure.text, unit.id))
}

/// Writes both outputs as they come, and ends as the unit does.
async fn follow(client: &Client, unit: &UnitView, args: &SubmitArgs) -> Result<u8, Failure> {
    if !args.quiet {
        say(&format!("receptor: unit {}", unit.id));
    }
    let id = IdPrefix::from(unit.id);
    let line = StateLine::new(args.quiet);
    let results = |stderr| ResultsRequest { id: id.clone(), from: 0, stderr, follow: true };
    let stdout = line.beside(WriteTo::stdout(args.raw), io::stdout().is_terminal());
    let stderr = line.beside(WriteTo::stderr(args.raw), io::stderr().is_terminal());
    let stdout = write_output(client, results(false), stdout);
    let stderr = write_output(client, results(true), stderr);
    let followed = tokio::try_join!(stdout, stderr, until_final(client, &id, &line));
    let (_, _, unit) = followed.map_err(|failure| goes_on(failure, unit))?;
    drop(line);
    if args.rm {
        let released = persist(async || client.release_unit(&id, false).await).await;
        if let Err(failure) = released {
            // The status of the job matters more.
            complain(&format!("cannot release unit {}: {failure}", unit.id));
        }
    }
    end_as(&unit)
}

#[cfg(test)]
mod tests {
    use super::super::unit::State;
    use super::super::unit::tests::unit;
    use super::*;

    #[test]
    fn a_unit_that_was_submitted_does_not_end_as_busy() {
        let failure = goes_on(Failure::busy("the node is busy"), &unit(State::Queued));
        assert_eq!(failure.exit, Exit::Failed);
        let text =
            "the node is busy; unit 0193a5b2-7c4d-7000-8000-000000000001 was submitted and goes on";
        assert_eq!(failure.text, text);
        let lost = Failure::unreachable("lost");
        assert_eq!(goes_on(lost.clone(), &unit(State::Queued)), lost);
    }
}
