//! One long stream, or eight, over links and relays.

use super::{Bench, INTERNET};
use crate::Result;
use crate::row::{Goal, Row};
use crate::side::{Run, Side, in_turn};

const GIB: u64 = 1 << 30;

pub(super) fn link(bench: &Bench) -> Result<Vec<Row>> {
    let sides = [bench.ours(0, None)?, bench.raw("sink", 0, None)?];
    Ok(vec![Streams::measure(bench, sides, 1, GIB)?.rate("link-stream", Goal::AtLeast(0.97))])
}

pub(super) fn link_default(bench: &Bench) -> Result<Vec<Row>> {
    let mut newcomer = bench.common(None);
    newcomer.push(("defaults", "1".to_owned()));
    let sides = [bench.ours(0, None)?, bench.raw_with("sink", 0, newcomer)?];
    Ok(vec![
        Streams::measure(bench, sides, 1, GIB)?.rate("link-stream-default", Goal::AtLeast(2.0)),
    ])
}

pub(super) fn link_1452(bench: &Bench) -> Result<Vec<Row>> {
    let sides = [bench.ours(0, Some(INTERNET))?, bench.raw("sink", 0, Some(INTERNET))?];
    Ok(vec![Streams::measure(bench, sides, 1, GIB)?.rate("link-stream-1452", Goal::None)])
}

pub(super) fn link_8(bench: &Bench) -> Result<Vec<Row>> {
    let sides = [bench.ours(0, None)?, bench.raw("sink", 0, None)?];
    Ok(vec![Streams::measure(bench, sides, 8, GIB)?.rate("link-streams-8", Goal::AtLeast(0.97))])
}

pub(super) fn relay(bench: &Bench) -> Result<Vec<Row>> {
    let streams = relayed(bench, 1, Some(INTERNET), GIB)?;
    Ok(vec![
        streams.relay_cpu("relay-cpu", Goal::AtMost(0.45)),
        streams.rate("relay-stream", Goal::AtLeast(1.3)),
    ])
}

pub(super) fn relay_jumbo(bench: &Bench) -> Result<Vec<Row>> {
    let streams = relayed(bench, 1, None, GIB)?;
    Ok(vec![
        streams.relay_cpu("relay-cpu-jumbo", Goal::None),
        streams.rate("relay-stream-jumbo", Goal::AtLeast(1.3)),
    ])
}

pub(super) fn relay_2(bench: &Bench) -> Result<Vec<Row>> {
    let streams = relayed(bench, 2, Some(INTERNET), GIB / 2)?;
    Ok(vec![streams.rate("relay2-stream", Goal::AtLeast(1.4))])
}

pub(super) fn relay_3(bench: &Bench) -> Result<Vec<Row>> {
    let streams = relayed(bench, 3, Some(INTERNET), GIB / 2)?;
    Ok(vec![streams.rate("relay3-stream", Goal::AtLeast(1.4))])
}

fn relayed(bench: &Bench, relays: usize, max_datagram: Option<u16>, bytes: u64) -> Result<Streams> {
    let sides = [bench.ours(relays, max_datagram)?, bench.raw("sink", relays, max_datagram)?];
    Streams::measure(bench, sides, 1, bytes)
}

struct Streams {
    bytes: f64,
    ours: Vec<Run>,
    baseline: Vec<Run>,
}

impl Streams {
    fn measure(
        bench: &Bench,
        [mut ours, mut baseline]: [Side; 2],
        streams: u64,
        bytes: u64,
    ) -> Result<Self> {
        let bytes = bench.bytes(bytes);
        let command = format!("stream {{}} {bytes} {streams}");
        let [ours, baseline] = in_turn(&mut ours, &mut baseline, &command, bench.runs)?;
        Ok(Self { bytes: bytes as f64, ours, baseline })
    }

    fn rate(&self, case: &'static str, goal: Goal) -> Row {
        self.row(case, "MB/s", goal, |run| self.bytes / 1e6 / run.answer[0])
    }

    fn relay_cpu(&self, case: &'static str, goal: Goal) -> Row {
        self.row(case, "s/GiB", goal, |run| self.per_gib(run.relay_cpu))
    }

    fn row(
        &self,
        case: &'static str,
        unit: &'static str,
        goal: Goal,
        value: impl Fn(&Run) -> f64,
    ) -> Row {
        let cpu = |runs: &[Run]| runs.iter().map(|run| self.per_gib(run.cpu)).collect();
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

    fn per_gib(&self, cpu: f64) -> f64 {
        cpu * GIB as f64 / self.bytes
    }
}
