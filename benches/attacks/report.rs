//! A row of the table, and the bars that it has to meet.

use std::fmt;

use crate::case::{Bars, Case};
use crate::honest::{ATTEMPTS, Pings};

const MIB: f64 = 1_048_576.0;

/// What an attack did to the honest nodes and to its victim.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) newcomers: usize,
    pub(crate) calls: usize,
    pub(crate) pings: Pings,
    /// Growth of the victim's resident memory, in bytes.
    pub(crate) growth: f64,
    /// The victim's share of a core.
    pub(crate) cpu: f64,
    /// What of it the attack caused.
    pub(crate) caused: f64,
    /// Lines in the log of the node that wrote most.
    pub(crate) lines: usize,
    /// What the case itself found wrong.
    pub(crate) wrong: Vec<String>,
}

impl Row {
    pub(crate) const HEADER: &'static str = "attack       new    calls  pings        p50 ms   p99 ms   gap ms   RSS MiB  CPU    caused  log";

    /// The bars that it misses, with the figures.
    pub(crate) fn missed(&self, case: &Case) -> Vec<String> {
        let Bars { p99, gap, cpu, growth, lines } = case.bars;
        let attempts = ATTEMPTS as usize;
        let lost = self.pings.sent - self.pings.answered;
        let above = |what: &str, value: f64, most: Option<f64>| {
            most.filter(|most| value > *most)
                .map(|most| format!("{what} {value:.2}, maximum {most}"))
        };
        let below = |what: &str, count: usize| {
            (count < attempts).then(|| format!("{count} of {attempts} {what}"))
        };
        [
            below("new connections", self.newcomers),
            below("calls", self.calls),
            above("lost pings", lost as f64, p99.map(|_| 0.0)),
            above("p99 in ms", self.pings.p99, p99),
            above("gap in ms", self.pings.gap, Some(gap)),
            above("growth in MiB", self.growth / MIB, Some(growth)),
            above("cores caused", self.caused, cpu),
            above("log lines", self.lines as f64, Some(lines)),
        ]
        .into_iter()
        .flatten()
        .chain(self.wrong.iter().cloned())
        .collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, newcomers, calls, pings, growth, cpu, caused, lines, .. } = self;
        let Pings { sent, answered, median, p99, gap } = pings;
        let of = |count: &usize| format!("{count}/{ATTEMPTS}");
        write!(f, "{name:<12} {:<6} {:<6} ", of(newcomers), of(calls))?;
        write!(f, "{:<12} {median:<8.2} {p99:<8.2} {gap:<8.0} ", format!("{answered}/{sent}"))?;
        write!(f, "{:<8.1} {cpu:<6.3} {caused:<7.3} {lines}", growth / MIB)
    }
}
