//! The result, for people and for programs.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::args::{Args, flood_name};
use crate::measure::{Answer, Totals};
use crate::scenario::{Kind, Outcome};
use crate::world::World;

pub(crate) struct Report<'a> {
    args: &'a Args,
    outcome: &'a Outcome,
    world: &'a World,
    nodes: usize,
    links: usize,
    /// Of all events.
    totals: Totals,
    rounds: u32,
    time: Duration,
    wall: Duration,
}

impl<'a> Report<'a> {
    pub(crate) fn new(args: &'a Args, outcome: &'a Outcome, world: &'a World) -> Self {
        let mut totals = Totals::default();
        outcome.events.iter().for_each(|event| totals += event.totals);
        let times = outcome.events.iter().map(|event| {
            if let Some(answer) = event.answer {
                return answer.after;
            }
            // Under churn something is always on its way: then the longest single wave tells more.
            if args.churn > 0.0 { event.longest_wave } else { event.settled_after }
        });
        Self {
            args,
            outcome,
            world,
            nodes: world.living().count(),
            links: world.links().count(),
            totals,
            rounds: outcome.events.iter().map(|event| event.rounds).max().unwrap_or(0),
            time: times.max().unwrap_or_default(),
            wall: world.journal.wall(),
        }
    }

    /// One object on one line.
    pub(crate) fn json(&self) -> String {
        let (findings, text) = (&self.outcome.findings, |text: &str| format!("\"{text}\""));
        let fields: [(&str, String); 20] = [
            ("nodes", self.nodes.to_string()),
            ("links", self.links.to_string()),
            ("topology", text(self.args.topology.name())),
            ("seed", self.args.seed.to_string()),
            ("flood", text(flood_name(self.args.flood))),
            ("event", text(self.args.event.name())),
            ("events", self.outcome.events.len().to_string()),
            ("converged", findings.is_fine().to_string()),
            ("divergent_nodes", findings.divergent_nodes().to_string()),
            ("payloads_per_update", rounded(self.per_update(self.totals.payloads))),
            ("ids_per_update", rounded(self.per_update(self.totals.ids))),
            ("pulls_per_update", rounded(self.per_update(self.totals.pulls))),
            ("bytes_per_node_per_update", rounded(self.per_node(self.totals.flood_bytes))),
            ("rounds", self.rounds.to_string()),
            ("time_ms", rounded(millis(self.time))),
            ("wall_ms", rounded(millis(self.wall))),
            ("spf_runs", self.totals.path_runs.to_string()),
            ("echo_messages", self.totals.echoes.to_string()),
            ("reachable_pairs", findings.reachable.to_string()),
            ("expected_pairs", findings.expected.to_string()),
        ];
        let fields: Vec<String> =
            fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.head(&mut out)
            .and_then(|()| self.figures(&mut out))
            .expect("a string takes everything");
        out
    }

    /// What failed, how to see it again, and what happened last.
    pub(crate) fn failure(&self) -> String {
        let findings = &self.outcome.findings;
        let mut out = format!("FAILED, seed {}:\n", self.args.seed);
        findings.complaints().for_each(|complaint| line(&mut out, format_args!("  {complaint}")));
        if findings.more() > 0 {
            line(&mut out, format_args!("  and {} more", findings.more()));
        }
        line(&mut out, "what happened last, in virtual time:");
        self.world.journal.trace().for_each(|what| line(&mut out, format_args!("  {what}")));
        out
    }

    fn head(&self, out: &mut String) -> std::fmt::Result {
        let (args, cold) = (self.args, &self.outcome.cold_start);
        let (least, most) = (millis(args.latency.0), millis(args.latency.1));
        writeln!(
            out,
            "{} mesh of {} nodes and {} links, {} flooding, {least} to {most} ms a message, seed {}",
            args.topology.name(),
            args.nodes,
            self.links,
            flood_name(args.flood),
            args.seed
        )?;
        writeln!(
            out,
            "cold start: {} records made and {} messages sent, {} of them payloads ({:.2} n²), {:.1} s of work",
            cold.totals.originations,
            cold.totals.messages,
            cold.totals.payloads,
            cold.totals.payloads as f64 / (args.nodes * args.nodes) as f64,
            self.outcome.cold_wall.as_secs_f64()
        )?;
        writeln!(
            out,
            "\n{} x {}: {}",
            self.outcome.events.len(),
            args.event.name(),
            args.event.story()
        )?;
        if args.churn > 0.0 {
            writeln!(out, "meanwhile {} links a second go down, and return after 2 s", args.churn)?;
        }
        Ok(())
    }

    fn figures(&self, out: &mut String) -> std::fmt::Result {
        let (totals, findings) = (&self.totals, &self.outcome.findings);
        let flooded = (2 * self.links + 1).saturating_sub(self.nodes);
        let mut row = |name: &str, value: String, note: String| {
            writeln!(out, "  {name:28}{value:>12}  {note}")
        };
        row(
            "updates",
            totals.originations.to_string(),
            "records made in answer to the events".into(),
        )?;
        row(
            "payloads per update",
            rounded(self.per_update(totals.payloads)),
            format!("a tree: {} (n-1); plain flooding: {flooded} (2E-n+1)", self.nodes - 1),
        )?;
        row(
            "ids per update",
            rounded(self.per_update(totals.ids)),
            "\"I hold this version\"".into(),
        )?;
        row(
            "pulls per update",
            rounded(self.per_update(totals.pulls)),
            "payloads asked for after an id".into(),
        )?;
        row(
            "bytes per node per update",
            rounded(self.per_node(totals.flood_bytes)),
            format!("and {} to compare databases", rounded(self.per_node(totals.compare_bytes))),
        )?;
        row("rounds", self.rounds.to_string(), "the most links that an update crossed".into())?;
        let of = if self.args.event == Kind::Converge {
            "the slowest request, until all had answered"
        } else if self.args.churn > 0.0 {
            "the slowest update"
        } else {
            "the slowest event, until all knew"
        };
        row("time", format!("{} ms", rounded(millis(self.time))), format!("virtual: {of}"))?;
        row("path computations", totals.path_runs.to_string(), "of all nodes together".into())?;
        row(
            "echo messages",
            totals.echoes.to_string(),
            "answers from below; n-1 for a wave".into(),
        )?;
        let answers: Vec<Answer> =
            self.outcome.events.iter().filter_map(|event| event.answer).collect();
        if !answers.is_empty() {
            let well = answers.iter().filter(|answer| answer.converged).count();
            let first =
                answers.iter().filter(|answer| answer.converged && answer.waves == 1).count();
            row(
                "converged",
                well.to_string(),
                format!("of {} requests; {first} with the first wave", answers.len()),
            )?;
        }
        let pairs = format!("of {} pairs that the links connect", findings.expected);
        row("routes", findings.reachable.to_string(), pairs)?;
        row(
            "wall time",
            format!("{:.1} s", self.wall.as_secs_f64()),
            "of this machine, all in all".into(),
        )?;
        if findings.is_fine() {
            writeln!(
                out,
                "\nAt rest, all checks hold: every record says its origin's true links; all nodes hold the same records\n\
                 and digests; every table has the cheapest way to every node, without loops; nothing is left to do."
            )?;
        }
        Ok(())
    }

    fn per_update(&self, count: u64) -> f64 {
        count as f64 / self.totals.originations.max(1) as f64
    }

    fn per_node(&self, bytes: u64) -> f64 {
        self.per_update(bytes) / self.nodes.max(1) as f64
    }
}

fn line(out: &mut String, line: impl Display) {
    writeln!(out, "{line}").expect("a string takes everything");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// With three digits after the point, of which zeros are left out.
fn rounded(number: f64) -> String {
    ((number * 1e3).round() / 1e3).to_string()
}
