//! `receptor work results`: the output of a unit.

use super::args::ResultsArgs;
use super::id::IdPrefix;
use super::reconnect::persist;
use super::request::ResultsRequest;
use super::unit::UnitView;
use crate::cli::control::client::Client;
use crate::cli::output::flow::{Sink, WriteTo};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::cli::socket::client;

pub(super) async fn run(args: ResultsArgs, env: &Env) -> Result<(), Failure> {
    let client = client(args.socket, env)?;
    // Fails at once if there is no node or no such unit.
    let id = IdPrefix::from(client.unit_status(&args.id).await?.id);
    let request = ResultsRequest { id, from: args.from, stderr: args.stderr, follow: args.follow };
    write_output(&client, request, WriteTo::stdout(args.raw)).await.map(drop)
}

/// Writes output of a unit, and returns the unit's status at the end of it. If the output is
/// followed, a restart of the node only interrupts it.
pub(super) async fn write_output(
    client: &Client,
    mut request: ResultsRequest,
    mut output: impl Sink,
) -> Result<UnitView, Failure> {
    let unit = if request.follow {
        persist(async || client.results(&mut request, &mut output).await).await?
    } else {
        client.results(&mut request, &mut output).await?
    };
    output.end().await?;
    Ok(unit)
}
