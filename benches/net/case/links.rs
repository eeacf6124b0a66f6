//! Links themselves: how fast they come up, what the first call costs, and what an idle one holds.

use super::Bench;
use crate::Result;
use crate::process::Process;
use crate::row::{Goal, Row, median};
use crate::side::{Run, Side};

/// Links that are made at the same time.
const AT_ONCE: usize = 16;

/// Links a second. Ours are ephemeral nodes, each with its own certificate: a socket, QUIC's
/// handshake, HELLOs both ways, and the neighbour's route. The baseline's are endpoints of their
/// own, too: a socket, the handshake, and one call.
pub(super) fn handshake(bench: &Bench) -> Result<Vec<Row>> {
    let mut sides = [hub(bench)?, raw_hub(bench)?];
    let mut all = [Vec::new(), Vec::new()];
    let command = format!("handshakes {{}} {} {AT_ONCE}", bench.at_most(1_000, 8));
    for nth in 0..=bench.runs {
        for (side, all) in sides.iter_mut().zip(&mut all) {
            let run = side.run(&command)?;
            side.run("release")?;
            if nth > 0 {
                all.push(run);
            }
        }
    }
    let [ours, baseline] = all;
    let value = |run: &Run| run.answer[0] / run.answer[1];
    let cpu = |runs: &[Run]| runs.iter().map(|run| run.cpu * 1e6 / run.answer[0]).collect();
    Ok(vec![Row {
        case: "handshake",
        unit: "1/s",
        goal: Goal::AtLeast(0.95),
        ours: ours.iter().map(value).collect(),
        baseline: baseline.iter().map(value).collect(),
        ours_cpu: cpu(&ours),
        baseline_cpu: cpu(&baseline),
    }])
}

/// The first call to a node behind two relays: no connection to it, only links. The baseline is two
/// handshakes, one after the other, from client to server directly.
pub(super) fn first_call(bench: &Bench) -> Result<Vec<Row>> {
    let count = bench.at_most(32, 2);
    let mut ours = behind_two_relays(bench, count * (bench.runs + 1))?;
    let mut baseline = raw_hub(bench)?;
    let mut all = [Vec::new(), Vec::new()];
    for nth in 0..=bench.runs {
        let command = format!("first {{}} {} {count}", nth * count);
        for (side, all) in [&mut ours, &mut baseline].into_iter().zip(&mut all) {
            let run = side.run(&command)?;
            if nth > 0 {
                all.push(run);
            }
        }
    }
    let [ours, baseline] = all;
    let value = |run: &Run| median(run.answer.iter().copied()) / 1e3;
    let cpu = |runs: &[Run]| runs.iter().map(|run| run.cpu * 1e6 / count as f64).collect();
    Ok(vec![Row {
        case: "first-call",
        unit: "ms p50",
        goal: Goal::AtMost(1.3),
        ours: ours.iter().map(value).collect(),
        baseline: baseline.iter().map(value).collect(),
        ours_cpu: cpu(&ours),
        baseline_cpu: cpu(&baseline),
    }])
}

/// Memory of a node for each neighbour that only stays linked; of a raw server for each connection
/// that was used once.
pub(super) fn idle(bench: &Bench) -> Result<Vec<Row>> {
    let count = bench.at_most(5_000, 20);
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    // A process that gave memory back to its allocator does not tell what a link takes: each run
    // has new ones.
    for _ in 0..bench.runs.min(2) {
        ours.push(bench.resident(hub(bench)?, count)?);
        baseline.push(bench.resident(raw_idle(bench)?, count)?);
    }
    Ok(vec![Row {
        case: "idle-link",
        unit: "KiB",
        goal: Goal::AtMost(1.25),
        ours,
        baseline,
        ours_cpu: Vec::new(),
        baseline_cpu: Vec::new(),
    }])
}

impl Bench {
    /// KiB of the server for each of so many links.
    fn resident(&self, mut side: Side, count: usize) -> Result<f64> {
        side.run(&format!("hold {{}} {}", count.div_ceil(50)))?;
        self.settle();
        let before = side.server.resident()?;
        side.run(&format!("hold {{}} {count}"))?;
        self.settle();
        Ok((side.server.resident()? - before) / 1024.0 / count as f64)
    }
}

/// A node that others link to.
fn hub(bench: &Bench) -> Result<Side> {
    let node = |id: &str| {
        let settings =
            [("id", id.to_owned()), ("peers", String::new()), ("transit", "1".to_owned())];
        Process::start("ours", &[&bench.common(None)[..], &settings].concat())
    };
    let server = node("hub")?;
    let client = node("client")?;
    Ok(Side { client, relays: Vec::new(), target: server.addr.clone(), server })
}

fn raw_hub(bench: &Bench) -> Result<Side> {
    bench.raw("echo", 0, None)
}

/// The baseline for idle links: as many streams as quinn allows by itself.
fn raw_idle(bench: &Bench) -> Result<Side> {
    let mut settings = bench.common(None);
    settings.push(("streams", "100".to_owned()));
    bench.raw_with("echo", 0, settings)
}

fn behind_two_relays(bench: &Bench, servers: usize) -> Result<Side> {
    let node = |id: &str, peers: &str, more: (&'static str, String)| {
        let mut settings = bench.common(None);
        settings.extend([("id", id.to_owned()), ("peers", peers.to_owned()), more]);
        Process::start("ours", &settings)
    };
    let transit = || ("transit", "1".to_owned());
    let far = node("relay-0", "", transit())?;
    let near = node("relay-1", &far.addr, transit())?;
    let server = node("server", &far.addr, ("count", servers.to_string()))?;
    let client = node("client", &near.addr, ("quiet", "1".to_owned()))?;
    Ok(Side { client, relays: vec![far, near], server, target: "server".to_owned() })
}
