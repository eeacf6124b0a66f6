//! What a relay does under load: whether it still answers, and what peers and flows cost it.

use super::{Bench, INTERNET, ready};
use crate::Result;
use crate::process::Process;
use crate::row::{Goal, Row};
use crate::side::{Run, Side, in_turn};

/// Peers that a relay forwards for besides the two that stream.
const PEERS: usize = 1_000;
/// Nodes on each side of a relay, each of which has a connection to all of the other side.
const NODES: usize = 32;
/// What the streams carry that load the relay.
const LOAD: u64 = 3 << 30;

/// Calls to the relay itself from a neighbour, one after the other, while eight streams go through
/// it as fast as they can. The baseline is the same relay with nothing to do.
pub(super) fn busy_ping(bench: &Bench) -> Result<Vec<Row>> {
    let mut side = bench.ours(1, Some(INTERNET))?;
    let relay = &side.relays[0];
    let mut settings = bench.common(Some(INTERNET));
    settings.extend([("id", "prober".to_owned()), ("peers", relay.addr.clone())]);
    let mut prober = Process::start("ours", &settings)?;
    prober.ask("ready relay-0")?;
    let calls = format!("calls relay-0 1 {}", bench.millis(1_500));
    let load = format!("stream {{}} {} 8", bench.bytes(LOAD));
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for nth in 0..=bench.runs {
        let quiet = prober.ask(&calls)?;
        let loaded = std::thread::scope(|scope| {
            let streaming = scope.spawn(|| side.run(&load).map(drop));
            let loaded = prober.ask(&calls);
            streaming.join().map_err(|_| "the load panicked")??;
            loaded
        })?;
        if nth > 0 {
            busy.push(p99(&loaded));
            idle.push(p99(&quiet));
        }
    }
    Ok(vec![Row {
        case: "relay-busy-ping",
        unit: "ms p99",
        goal: Goal::OursAtMost(50.0),
        ours: busy,
        baseline: idle,
        ours_cpu: Vec::new(),
        baseline_cpu: Vec::new(),
    }])
}

/// The answer is the count, the seconds, and percentiles from 0 to 100, in microseconds.
fn p99(answer: &[f64]) -> f64 {
    answer[2 + 99] / 1e3
}

/// A stream through a relay that has a thousand idle neighbours. The baseline is the same without
/// them.
pub(super) fn thousand_peers(bench: &Bench) -> Result<Vec<Row>> {
    let mut crowded = bench.ours(1, Some(INTERNET))?;
    let mut alone = bench.ours(1, Some(INTERNET))?;
    let mut settings = bench.common(None);
    settings.extend([("id", "crowd".to_owned()), ("peers", String::new())]);
    let mut crowd = Process::start("ours", &settings)?;
    crowd.ask(&format!("hold {} {}", crowded.relays[0].addr, bench.at_most(PEERS, 8)))?;
    bench.settle();
    let bytes = bench.bytes(1 << 30);
    let command = format!("stream {{}} {bytes} 1");
    let [ours, baseline] = in_turn(&mut crowded, &mut alone, &command, bench.runs)?;
    let rate = |run: &Run| bytes as f64 / 1e6 / run.answer[0];
    let cpu = |run: &Run| run.cpu * (1_u64 << 30) as f64 / bytes as f64;
    Ok(vec![Row {
        case: "relay-1000-peers",
        unit: "MB/s",
        goal: Goal::AtLeast(0.97),
        ours: ours.iter().map(rate).collect(),
        baseline: baseline.iter().map(rate).collect(),
        ours_cpu: ours.iter().map(cpu).collect(),
        baseline_cpu: baseline.iter().map(cpu).collect(),
    }])
}

/// Memory of a relay for each connection that goes through it, all links being there before; of a
/// splicing relay for each that it splices.
pub(super) fn flows(bench: &Bench) -> Result<Vec<Row>> {
    let nodes = bench.at_most(NODES, 2);
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs.min(2) {
        let relay = node(bench, "relay", "", ("transit", "1".to_owned()))?;
        let server = node(bench, "server", &relay.addr, ("count", nodes.to_string()))?;
        let client = node(bench, "client", &relay.addr, ("count", nodes.to_string()))?;
        let side = Side { client, relays: vec![relay], server, target: "server".to_owned() };
        ours.push(bench.per_flow(side, &format!("flows {{}} {nodes}"), nodes * nodes)?);
        let side = ready(bench.raw("echo", 1, Some(INTERNET))?)?;
        baseline.push(bench.per_flow(
            side,
            &format!("hold {{}} {}", nodes * nodes),
            nodes * nodes,
        )?);
    }
    Ok(vec![Row {
        case: "relay-flows",
        unit: "KiB",
        goal: Goal::AtMost(0.1),
        ours,
        baseline,
        ours_cpu: Vec::new(),
        baseline_cpu: Vec::new(),
    }])
}

fn node(bench: &Bench, id: &str, peers: &str, more: (&'static str, String)) -> Result<Process> {
    let mut settings = bench.common(Some(INTERNET));
    settings.extend([("id", id.to_owned()), ("peers", peers.to_owned()), more]);
    Process::start("ours", &settings)
}

impl Bench {
    /// KiB of the relay for each of the flows that the command makes.
    fn per_flow(&self, mut side: Side, command: &str, flows: usize) -> Result<f64> {
        self.settle();
        let before = side.relays[0].resident()?;
        side.run(command)?;
        Ok((side.relays[0].resident()? - before) / 1024.0 / flows as f64)
    }
}
