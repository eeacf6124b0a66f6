//! `receptor work wait`: until a unit has ended.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::args::WaitArgs;
use super::id::IdPrefix;
use super::reconnect::persist;
use super::unit::UnitView;
use crate::cli::control::client::Client;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::cli::socket::client;
use crate::cli::work::show::output::{end_as, json_line, print};
use crate::cli::work::show::state_line::StateLine;

pub(super) async fn run(args: WaitArgs, env: &Env) -> Result<u8, Failure> {
    let client = client(args.socket, env)?;
    // Fails at once if there is no node or no such unit.
    let id = IdPrefix::from(client.unit_status(&args.id).await?.id);
    let line = StateLine::new(args.quiet);
    let unit = within(args.timeout, until_final(&client, &id, &line), &id).await?;
    drop(line);
    if args.json {
        print(&json_line(&unit))?;
    }
    end_as(&unit)
}

/// Waits until a unit has ended.
pub(super) async fn until_final(
    client: &Client,
    id: &IdPrefix,
    line: &StateLine,
) -> Result<UnitView, Failure> {
    persist(async || client.watch_unit(id, |unit| line.update(unit)).await).await
}

async fn within<T>(
    limit: Option<Duration>,
    waiting: impl Future<Output = Result<T, Failure>>,
    id: &IdPrefix,
) -> Result<T, Failure> {
    let Some(limit) = limit else { return waiting.await };
    timeout(limit, waiting).await.unwrap_or_else(|_| {
        Err(Failure::unreachable(format!("unit {id} has not ended within {limit:?}")))
    })
}
