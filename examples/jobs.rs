//! A job that outlives the node that runs it: `cargo run --example jobs`.
//!
//! A controller submits a job to a worker that is not there yet. The worker comes, starts it, and
//! is restarted in the middle of it; the job goes on, and all of its output arrives.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;

use receptor_quic::work::unit::{ResultsOptions, UnitLimits, UnitWatch, UnitsConfig};
use receptor_quic::{Authority, Command, Identity, Node, NodeId, work};

/// Not an async function: a process that is to supervise a job must not have a runtime.
fn main() -> Result<(), Box<dyn Error>> {
    work::supervise();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let ca = Authority::new("jobs", 1)?;
    let (controller, worker): (NodeId, NodeId) = ("controller".parse()?, "worker".parse()?);
    let dir = std::env::temp_dir().join(format!("receptor-jobs-{}", std::process::id()));
    let controller = Node::builder(controller.clone(), ca.issue(&controller, 1)?)
        .listen("127.0.0.1:0")
        .data_dir(dir.join("controller"))
        .units(units())
        .start()
        .await?;

    let unit =
        controller.submit(worker.clone(), "count:lines", "").label("for", "the example").await?;
    println!("submitted: {}", unit.status().summary());
    let states = tokio::spawn(print_states(unit.watch()));

    let identity = ca.issue(&worker, 1)?;
    let running = start(&worker, &identity, &controller, &dir).await?;
    let mut output = unit.results(ResultsOptions::default());
    let mut text = Vec::new();
    let first = output.next().await?.expect("it writes five lines");
    text.extend_from_slice(&first);
    println!("the worker is restarted");
    running.shutdown().await;
    let running = start(&worker, &identity, &controller, &dir).await?;
    while let Some(piece) = output.next().await? {
        text.extend_from_slice(&piece);
    }
    states.await?;
    print!("{}", String::from_utf8(text)?);
    println!("ended: {}", unit.wait().await?);

    unit.release(false).await?;
    unit.removed().await?;
    running.shutdown().await;
    controller.shutdown().await;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

/// Prints each state that a unit reaches, and why it waits, until it has ended.
async fn print_states(mut watch: UnitWatch) {
    let mut last = "queued".to_owned();
    while let Some(status) = watch.next().await {
        let state = match status.busy {
            Some(reason) => format!("{}: {reason}", status.summary()),
            None => status.summary().to_owned(),
        };
        if state != last {
            println!("state: {state}");
            last = state;
        }
    }
}

/// A worker accepts no unit by default if less than 5 % of its disk is free. The example needs a few
/// kilobytes.
fn units() -> UnitsConfig {
    let mut limits = UnitLimits::default();
    limits.reserve_percent = 0;
    UnitsConfig::new().limits(limits)
}

/// A worker with one command.
async fn start(
    id: &NodeId,
    identity: &Identity,
    controller: &Node,
    dir: &Path,
) -> Result<Node, Box<dyn Error>> {
    let count =
        Command::new("sh").args(["-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done"]);
    let worker = Node::builder(id.clone(), identity.clone())
        .peer(controller.local_addrs()[0])
        .data_dir(dir.join("worker"))
        .units(units())
        .command("count:lines", count)?
        .start()
        .await?;
    Ok(worker)
}
