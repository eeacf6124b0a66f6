//! Messages of many sizes, a stream each, 64 at a time, over a link and through a relay: for the
//! plot, without goals.

use super::{Bench, INTERNET};
use crate::Result;
use crate::row::{Goal, Row};
use crate::side::{Run, Side, in_turn};

/// Bytes, and the names of the rows.
pub(crate) const SIZES: [(u64, &str, &str); 5] = [
    (64, "message-64B", "relay-message-64B"),
    (1 << 10, "message-1KiB", "relay-message-1KiB"),
    (16 << 10, "message-16KiB", "relay-message-16KiB"),
    (128 << 10, "message-128KiB", "relay-message-128KiB"),
    (1 << 20, "message-1MiB", "relay-message-1MiB"),
];
pub(super) const LINK: [&str; 5] = [SIZES[0].1, SIZES[1].1, SIZES[2].1, SIZES[3].1, SIZES[4].1];
pub(super) const RELAY: [&str; 5] = [SIZES[0].2, SIZES[1].2, SIZES[2].2, SIZES[3].2, SIZES[4].2];

pub(super) fn link(bench: &Bench) -> Result<Vec<Row>> {
    measure(bench, 0, LINK)
}

pub(super) fn relay(bench: &Bench) -> Result<Vec<Row>> {
    measure(bench, 1, RELAY)
}

fn measure(bench: &Bench, relays: usize, rows: [&'static str; 5]) -> Result<Vec<Row>> {
    let mut ours = bench.ours(relays, Some(INTERNET))?;
    let mut baseline = bench.raw("sink", relays, Some(INTERNET))?;
    let sizes = SIZES.map(|(size, ..)| size);
    rows.into_iter()
        .zip(sizes)
        .map(|(case, size)| of_size(bench, &mut ours, &mut baseline, case, size))
        .collect()
}

fn of_size(
    bench: &Bench,
    ours: &mut Side,
    baseline: &mut Side,
    case: &'static str,
    size: u64,
) -> Result<Row> {
    let command = format!("messages {{}} {size} 64 {}", bench.millis(200));
    let [ours, baseline] = in_turn(ours, baseline, &command, bench.runs)?;
    let rate = |run: &Run| run.answer[0] * size as f64 / 1e6 / run.answer[1];
    let cpu = |run: &Run| run.cpu * (1_u64 << 30) as f64 / (run.answer[0] * size as f64);
    Ok(Row {
        case,
        unit: "MB/s",
        goal: Goal::None,
        ours: ours.iter().map(rate).collect(),
        baseline: baseline.iter().map(rate).collect(),
        ours_cpu: ours.iter().map(cpu).collect(),
        baseline_cpu: baseline.iter().map(cpu).collect(),
    })
}
