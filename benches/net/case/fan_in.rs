//! Many nodes stream through one relay to as many others.

use super::{Bench, INTERNET};
use crate::Result;
use crate::process::Process;
use crate::row::{Goal, Row};
use crate::side::{Run, Side, in_turn};

const PAIRS: usize = 64;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let pairs = bench.at_most(PAIRS, 4);
    let (mut ours, mut baseline) = (ours(bench, pairs)?, baseline(bench, pairs)?);
    let command = format!("fan {{}} {}", bench.millis(2_000));
    let [ours, baseline] = in_turn(&mut ours, &mut baseline, &command, bench.runs)?;
    let row = |case, unit, goal, value: fn(&Run) -> f64| Row {
        case,
        unit,
        goal,
        ours: ours.iter().map(value).collect(),
        baseline: baseline.iter().map(value).collect(),
        ours_cpu: ours.iter().map(cpu).collect(),
        baseline_cpu: baseline.iter().map(cpu).collect(),
    };
    Ok(vec![
        row("fan-in", "MB/s", Goal::AtLeast(1.3), |run| bytes(run) / 1e6 / run.answer[0]),
        row("fan-in-slowest", "of mean", Goal::OursAtLeast(0.5), slowest),
    ])
}

fn ours(bench: &Bench, pairs: usize) -> Result<Side> {
    let node = |id: &str, peers: &str, more: (&'static str, String)| {
        let mut settings = bench.common(Some(INTERNET));
        settings.extend([("id", id.to_owned()), ("peers", peers.to_owned()), more]);
        Process::start("ours", &settings)
    };
    let relay = node("relay", "", ("transit", "1".to_owned()))?;
    let server = node("server", &relay.addr, ("count", pairs.to_string()))?;
    let client = node("client", &relay.addr, ("count", pairs.to_string()))?;
    Ok(Side { client, relays: vec![relay], server, target: "server".to_owned() })
}

fn baseline(bench: &Bench, pairs: usize) -> Result<Side> {
    let process = |role: &str, more: &[(&'static str, String)]| {
        Process::start(role, &[&bench.common(Some(INTERNET)), more].concat())
    };
    let count = ("count", pairs.to_string());
    let server = process("raw", &[count.clone(), ("serve", "sink".to_owned())])?;
    let relay = process("splice", &[("target", server.addr.clone())])?;
    let client = process("raw", &[count])?;
    Ok(Side { client, target: relay.addr.clone(), relays: vec![relay], server })
}

/// The answer is the seconds, and the bytes of each stream.
fn bytes(run: &Run) -> f64 {
    run.answer[1..].iter().sum()
}

fn slowest(run: &Run) -> f64 {
    let streams = &run.answer[1..];
    let least = streams.iter().copied().fold(f64::INFINITY, f64::min);
    least * streams.len() as f64 / bytes(run)
}

fn cpu(run: &Run) -> f64 {
    run.cpu * (1_u64 << 30) as f64 / bytes(run)
}
