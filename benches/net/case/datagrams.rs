//! Datagrams: what arrives when one sends as fast as it goes, to a neighbour and through a relay.

use std::time::Duration;

use super::{Bench, INTERNET};
use crate::Result;
use crate::row::{Goal, Row};
use crate::side::{Run, Side};

/// What the last datagrams may take to arrive.
const ARRIVAL: Duration = Duration::from_millis(50);
/// Each fills most of a packet.
const LARGE: usize = 1_000;
const SMALL: usize = 64;

pub(super) fn link(bench: &Bench) -> Result<Vec<Row>> {
    let mut sides = sides(bench, 0)?;
    Ok(vec![
        measure(bench, &mut sides, LARGE, "datagram", Goal::AtLeast(0.95))?,
        measure(bench, &mut sides, SMALL, "datagram-64B", Goal::None)?,
    ])
}

pub(super) fn relay(bench: &Bench) -> Result<Vec<Row>> {
    Ok(vec![measure(bench, &mut sides(bench, 1)?, LARGE, "datagram-relay", Goal::AtLeast(0.9))?])
}

fn sides(bench: &Bench, relays: usize) -> Result<[Side; 2]> {
    Ok([bench.ours(relays, Some(INTERNET))?, bench.raw("echo", relays, Some(INTERNET))?])
}

/// One run, and the datagrams that came.
struct Shots {
    run: Run,
    received: f64,
}

fn measure(
    bench: &Bench,
    sides: &mut [Side; 2],
    size: usize,
    case: &'static str,
    goal: Goal,
) -> Result<Row> {
    let command = format!("datagrams {{}} {size} {}", bench.millis(800));
    let mut all = [Vec::new(), Vec::new()];
    for nth in 0..=bench.runs {
        for (side, all) in sides.iter_mut().zip(&mut all) {
            let shots = shoot(side, &command)?;
            if nth > 0 {
                all.push(shots);
            }
        }
    }
    let [ours, baseline] = all;
    let rate = |shots: &Shots| shots.received / shots.run.answer[1];
    let cpu = |shots: &Shots| shots.run.cpu * 1e6 / shots.received;
    Ok(Row {
        case,
        unit: "1/s",
        goal,
        ours: ours.iter().map(rate).collect(),
        baseline: baseline.iter().map(rate).collect(),
        ours_cpu: ours.iter().map(cpu).collect(),
        baseline_cpu: baseline.iter().map(cpu).collect(),
    })
}

fn shoot(side: &mut Side, command: &str) -> Result<Shots> {
    let before = received(side)?;
    let run = side.run(command)?;
    std::thread::sleep(ARRIVAL);
    Ok(Shots { received: received(side)? - before, run })
}

fn received(side: &mut Side) -> Result<f64> {
    side.server.ask("received")?.first().copied().ok_or_else(|| "a count".into())
}
