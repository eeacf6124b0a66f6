//! Small calls: a stream each, 64 bytes there and back, one after the other or many in flight.
//!
//! The crate's natural small call is a stream to a service: `open`, write, finish, read. The rows
//! with `work` in their names are calls of a directive instead, which carry an id, a code and a
//! deadline besides; the baseline has nothing like it, and makes the same calls as before.

use super::{Bench, Distribution, INTERNET};
use crate::Result;
use crate::row::{Goal, Row, median};
use crate::side::{Run, Side, in_turn};

pub(super) fn link(bench: &Bench) -> Result<Vec<Row>> {
    let mut sides = [bench.ours(0, None)?, bench.raw("echo", 0, None)?];
    let mut calls = |command, at_once| Calls::measure(bench, &mut sides, command, at_once);
    let seq = calls("calls", 1)?;
    seq.record(bench, ["ours, link", "quinn, link"]);
    Ok(vec![
        seq.median("call-seq", Goal::AtMost(1.15)),
        calls("calls", 64)?.rate("call-64", Goal::AtLeast(0.85)),
        calls("calls", 1_000)?.rate("call-1000", Goal::AtLeast(0.85)),
        // One more than an application may have open: each call waits for a place, and raw quinn's
        // does not. `call-1000` has the goal.
        calls("calls", 1_024)?.rate("call-1024", Goal::None),
        calls("work", 1)?.median("call-seq-work", Goal::None),
        calls("work", 64)?.rate("call-64-work", Goal::None),
    ])
}

pub(super) fn relay(bench: &Bench) -> Result<Vec<Row>> {
    let mut sides = [bench.ours(1, Some(INTERNET))?, bench.raw("echo", 1, Some(INTERNET))?];
    let mut calls = |at_once| Calls::measure(bench, &mut sides, "calls", at_once);
    let seq = calls(1)?;
    seq.record(bench, ["ours, relay", "quinn, splice"]);
    Ok(vec![
        seq.median("relay-call-seq", Goal::AtMost(0.95)),
        calls(64)?.rate("relay-call-64", Goal::AtLeast(1.35)),
    ])
}

struct Calls {
    ours: Vec<Run>,
    baseline: Vec<Run>,
}

impl Calls {
    fn measure(
        bench: &Bench,
        [ours, baseline]: &mut [Side; 2],
        command: &str,
        at_once: u32,
    ) -> Result<Self> {
        let command = format!("{command} {{}} {at_once} {}", bench.millis(800));
        let [ours, baseline] = in_turn(ours, baseline, &command, bench.runs)?;
        Ok(Self { ours, baseline })
    }

    /// The answer is the count, the seconds, and percentiles from 0 to 100.
    fn rate(&self, case: &'static str, goal: Goal) -> Row {
        self.row(case, "1/s", goal, |run| run.answer[0] / run.answer[1])
    }

    fn median(&self, case: &'static str, goal: Goal) -> Row {
        self.row(case, "µs p50", goal, |run| run.answer[2 + 50])
    }

    /// Keeps the percentiles for the plot: of each the median of the runs.
    fn record(&self, bench: &Bench, names: [&str; 2]) {
        for (name, runs) in names.into_iter().zip([&self.ours, &self.baseline]) {
            let percentile = |nth: usize| median(runs.iter().map(|run| run.answer[2 + nth]));
            let percentiles = (0..=100).map(percentile).collect();
            bench
                .distributions
                .borrow_mut()
                .push(Distribution { name: name.to_owned(), percentiles });
        }
    }

    fn row(
        &self,
        case: &'static str,
        unit: &'static str,
        goal: Goal,
        value: impl Fn(&Run) -> f64,
    ) -> Row {
        let cpu = |runs: &[Run]| runs.iter().map(|run| run.cpu * 1e6 / run.answer[0]).collect();
        Row {
            case,
            unit,
            goal,
            ours: self.ours.iter().map(&value).collect(),
            baseline: self.baseline.iter().map(&value).collect(),
            ours_cpu: cpu(&self.ours),
            baseline_cpu: cpu(&self.baseline),
        }
    }
}
