//! `receptor work list` and `receptor work status`.

use super::args::{ListArgs, QueryArgs, StatusArgs};
use super::request::UnitQuery;
use crate::cli::output::text::{Paint, escape, escape_json};
use crate::cli::process::exit::Failure;
use crate::cli::process::log::say;
use crate::cli::setup::env::Env;
use crate::cli::socket::client;
use crate::cli::work::show::output::{json_line, print};
use crate::cli::work::show::table;
use crate::mesh::clock::unix_ms;
use crate::work::unit::QuarantinedUnit;

pub(super) async fn run(args: ListArgs, env: &Env) -> Result<(), Failure> {
    let client = client(args.socket, env)?;
    if args.quarantined {
        return print_quarantined(&client.quarantined_units().await?, args.json);
    }
    let query = query(args.which, args.here);
    let mut units = client.units(query.clone()).await?;
    units.sort_by_key(|unit| (unit.created_ms, unit.id));
    if args.json {
        return print(&units.iter().map(json_line).collect::<String>());
    }
    print(&table::table(&units, &query, unix_ms(), Paint::for_stdout()))?;
    match client.quarantined_units().await?.len() {
        0 => {}
        count => say(&format!("receptor: {count} more cannot be used; see --quarantined")),
    }
    Ok(())
}

fn print_quarantined(units: &[QuarantinedUnit], json: bool) -> Result<(), Failure> {
    let line = |unit: &QuarantinedUnit| {
        if json {
            // A path that came as JSON is UTF-8.
            let text = serde_json::to_string(unit).expect("plain data is JSON");
            return format!("{}\n", escape_json(&text));
        }
        format!("{}: {}\n", escape(&unit.path.display().to_string()), escape(&unit.reason))
    };
    print(&units.iter().map(line).collect::<String>())
}

pub(super) async fn status(args: StatusArgs, env: &Env) -> Result<(), Failure> {
    let unit = client(args.socket, env)?.unit_status(&args.id).await?;
    let details = || table::details(&unit, unix_ms(), Paint::for_stdout());
    print(&if args.json { json_line(&unit) } else { details() })
}

pub(super) fn query(args: QueryArgs, here: bool) -> UnitQuery {
    UnitQuery {
        node: args.node,
        states: args.state,
        labels: args.label.into_iter().collect(),
        older_ms: args.older.map(millis),
        here,
    }
}

/// In whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
