//! `receptor explain`: why a node is, or is not, reachable, and why its packets travel as they do.

use std::io::Write;

use serde::Deserialize;

use super::args::ExplainArgs;
use super::place::Place;
use crate::cli::output::text::{Cell, Colour, Paint, Table, escape, escape_json, millis, span};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;

/// Prints what the place knows of the node: for people, or as JSON with every detail.
pub(super) async fn run(args: ExplainArgs, env: &Env) -> Result<(), Failure> {
    let explained =
        Place::with(args.place, env, async |place| place.explain(&args.node).await).await?;
    let view = ExplainView::deserialize(&explained).map_err(|error| {
        Failure::failed(format!("cannot parse the node's explanation: {error}"))
    })?;
    let text = if args.json {
        escape_json(&format!("{explained:#}\n"))
    } else {
        view.render(Paint::for_stdout())
    };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))?;
    match view.path {
        None if view.route.state != "myself" => {
            Err(Failure::unreachable(format!("{} is unreachable", args.node)))
        }
        _ => Ok(()),
    }
}

/// What is displayed. The node may be of another version: missing fields are omitted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ExplainView {
    node: String,
    route: RouteView,
    left: Option<LeftView>,
    held_ms: Option<u64>,
    claims: Vec<ClaimView>,
    next_hops: Vec<String>,
    detour: Option<DetourView>,
    path: Option<PathView>,
    streams: Option<StreamsView>,
    nat: NatView,
    candidates: CandidatesView,
    attempts: Vec<AttemptView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LeftView {
    ago_s: f64,
    ephemeral: bool,
}

impl LeftView {
    fn line(&self) -> String {
        let ago = ago(self.ago_s);
        if self.ephemeral {
            format!("it was an ephemeral node, and left or was detached {ago} ago")
        } else {
            format!("it has shut down and left the mesh {ago} ago")
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RouteView {
    state: String,
    reason: String,
    way: Vec<String>,
    cost: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimView {
    by: String,
    state: serde_json::Value,
}

impl ClaimView {
    /// The name of the claim, and why it is ignored; `None` if it is not.
    fn rejection(&self) -> Option<(&'static str, &'static str)> {
        let fault = self.state.get("rejected")?;
        Some(match fault.as_str() {
            Some("no-proof") => ("false claim", "it has no proof"),
            Some("forged") => ("false claim", "the proof is forged"),
            Some("expired") => ("ignored", "the proof has expired"),
            Some("no-answer") => ("ignored", "the proof did not arrive in time"),
            Some("older") => ("ignored", "it has attached to another node since"),
            _ => ("ignored", "the certificate of the proof is not trusted here"),
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathView {
    kind: String,
    address: Option<String>,
    candidate: Option<String>,
    rtt_ms: Option<f64>,
    since_s: Option<f64>,
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DetourView {
    avoided: Vec<String>,
    via: String,
    since_s: f64,
    settled: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StreamsView {
    opened: usize,
    opening: usize,
    max: usize,
    saturated: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NatView {
    mine: Option<String>,
    theirs: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CandidatesView {
    mine: Vec<CandidateView>,
    theirs: Vec<CandidateView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CandidateView {
    address: String,
    kind: String,
    probes: u32,
    rtt_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AttemptView {
    ago_s: f64,
    took_ms: f64,
    cause: String,
    outcome: String,
    reason: String,
}

impl ExplainView {
    fn render(&self, paint: Paint) -> String {
        let Self { route, nat, .. } = self;
        let name = paint.paint(Colour::Bold, &escape(&self.node));
        let reason = match &self.left {
            Some(left) => left.line(),
            None => escape(&route.reason).into_owned(),
        };
        let mut text = format!("{name}  {reason}\n");
        if !route.way.is_empty() {
            let cost = route.cost.map_or_else(String::new, |cost| format!(", cost {cost}"));
            text += &format!("  route        {}{cost}\n", escape(&route.way.join(" > ")));
        }
        if let Some(held) = self.held_ms {
            text += &format!(
                "  held back    its link is flapping; it is advertised again in up to {}\n",
                span(held)
            );
        }
        for claim in &self.claims {
            let Some((label, why)) = claim.rejection() else { continue };
            let line = format!("{} claims it as an attached ephemeral node: {why}", claim.by);
            text += &format!("  {label:<12} {}\n", paint.paint(Colour::Yellow, &escape(&line)));
        }
        if !self.next_hops.is_empty() {
            text += &format!("  next hops    {}\n", escape(&self.next_hops.join(", ")));
        }
        if let Some(DetourView { avoided, via, since_s, settled }) = &self.detour {
            let trial = if *settled { "" } else { ", a trial" };
            let detour = format!(
                "no answer through {}: using {} instead, for {}{trial}",
                escape(&avoided.join(", ")),
                escape(via),
                ago(*since_s)
            );
            text += &format!("  avoided      {}\n", paint.paint(Colour::Yellow, &detour));
        }
        if let Some(path) = &self.path {
            text += &path.render(paint);
        }
        if let Some(StreamsView { opened, opening, max, saturated: true }) = &self.streams {
            let streams = format!("{opened} of {max} open, {opening} waiting for a place");
            text += &format!("  streams      {}\n", paint.paint(Colour::Yellow, &streams));
        }
        if let (Some(mine), theirs) = (&nat.mine, nat.theirs.as_deref().unwrap_or("unknown")) {
            text += &format!("  NAT          {} here, {} there\n", escape(mine), escape(theirs));
        }
        let tables = [
            ("Candidates of this node", candidates(&self.candidates.mine, false)),
            ("Candidates of the other node", candidates(&self.candidates.theirs, true)),
            ("Attempts at a direct path", self.attempts()),
        ];
        for (head, table) in tables.iter().filter(|(_, table)| !table.is_empty()) {
            text += &format!("\n{}\n{}", paint.paint(Colour::Bold, head), table.render(paint));
        }
        text
    }

    fn attempts(&self) -> Table<'_> {
        let mut table = Table::new(["AGO", "TOOK", "FOR", "OUTCOME", "WHY"]);
        for attempt in &self.attempts {
            let colour = if attempt.outcome == "direct" { Colour::Green } else { Colour::Yellow };
            table.row([
                Cell::plain(ago(attempt.ago_s)),
                Cell::plain(millis(attempt.took_ms)),
                Cell::plain(&attempt.cause),
                Cell::plain(&attempt.outcome).coloured(colour),
                Cell::plain(&attempt.reason),
            ]);
        }
        table
    }
}

impl PathView {
    fn render(&self, paint: Paint) -> String {
        let colour = if self.kind == "relayed" { Colour::Yellow } else { Colour::Green };
        let mut text = format!("  path         {}", paint.paint(colour, &escape(&self.kind)));
        if let Some(address) = &self.address {
            let by = if self.kind == "relayed" { "by" } else { "to" };
            text += &format!(" {by} {}", escape(address));
        }
        if let Some(candidate) = &self.candidate {
            text += &format!(" ({})", escape(candidate));
        }
        if let Some(rtt) = self.rtt_ms {
            text += &format!(", round trip {}", millis(rtt));
        }
        if let Some(since) = self.since_s {
            text += &format!(", for {}", ago(since));
        }
        text + &format!("\n  why          {}\n", escape(&self.reason))
    }
}

fn candidates(of: &[CandidateView], probed: bool) -> Table<'_> {
    let mut table = Table::new(["ADDRESS", "KIND", if probed { "PROBES" } else { "" }, ""]);
    for candidate in of {
        let answer = candidate.rtt_ms.map(|rtt| format!("answered in {}", millis(rtt)));
        table.row([
            Cell::plain(&candidate.address),
            Cell::plain(&candidate.kind),
            Cell::plain(if probed { candidate.probes.to_string() } else { String::new() }),
            Cell::plain(answer.unwrap_or_default()),
        ]);
    }
    table
}

fn ago(seconds: f64) -> String {
    span((seconds * 1_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(explained: serde_json::Value) -> String {
        ExplainView::deserialize(&explained).unwrap().render(Paint::off())
    }

    #[test]
    fn a_direct_path_is_explained_with_its_reason_and_what_was_tried() {
        let text = render(json!({
            "node": "edge-2",
            "route": { "state": "reachable", "reason": "links lead to it", "way": ["edge-1", "relay", "edge-2"], "cost": 2, "hops": 2 },
            "next_hops": ["relay"],
            "path": { "kind": "direct", "address": "192.0.2.7:4433", "candidate": "server-reflexive", "rtt_ms": 12.5, "since_s": 61.2,
                      "why": "direct", "reason": "a direct path answers probes" },
            "nat": { "mine": "endpoint-independent", "theirs": "public" },
            "candidates": { "mine": [{ "address": "10.0.0.1:1", "kind": "host", "probes": 0, "rtt_ms": null }],
                            "theirs": [{ "address": "192.0.2.7:4433", "kind": "server-reflexive", "probes": 2, "rtt_ms": 12.5 }] },
            "attempts": [{ "ago_s": 62.0, "took_ms": 80.0, "cause": "traffic", "outcome": "direct", "reason": "a probe was answered" }],
        }));
        let expected = "\
edge-2  links lead to it
  route        edge-1 > relay > edge-2, cost 2
  next hops    relay
  path         direct to 192.0.2.7:4433 (server-reflexive), round trip 12.5 ms, for 1 min 1 s
  why          a direct path answers probes
  NAT          endpoint-independent here, public there

Candidates of this node
  ADDRESS     KIND
  10.0.0.1:1  host

Candidates of the other node
  ADDRESS         KIND              PROBES
  192.0.2.7:4433  server-reflexive  2       answered in 12.5 ms

Attempts at a direct path
  AGO        TOOK     FOR      OUTCOME  WHY
  1 min 2 s  80.0 ms  traffic  direct   a probe was answered
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_peer_without_a_place_for_another_stream_is_said_to_be_saturated() {
        let render = |saturated: bool| {
            render(
                json!({ "streams": { "opened": 1_023, "opening": 4, "max": 1_023, "saturated": saturated } }),
            )
        };
        let line = "  streams      1023 of 1023 open, 4 waiting for a place\n";
        assert!(render(true).contains(line), "{}", render(true));
        assert!(!render(false).contains("streams"));
    }

    #[test]
    fn a_neighbour_that_is_avoided_is_named() {
        let text = render(json!({
            "next_hops": ["r1", "r2"],
            "detour": { "avoided": ["r1"], "via": "r2", "since_s": 75.0, "settled": true },
        }));
        let line = "  avoided      no answer through r1: using r2 instead, for 1 min 15 s\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_false_claim_is_shown_with_who_makes_it() {
        let text = render(json!({
            "node": "laptop",
            "route": { "state": "stub", "reason": "it is an ephemeral node, attached to r1" },
            "claims": [
                { "by": "r1", "state": "proven" },
                { "by": "edge", "state": { "rejected": "no-proof" } },
                { "by": "r2", "state": { "rejected": { "untrusted": "expired" } } },
            ],
        }));
        let lines = [
            "laptop  it is an ephemeral node, attached to r1",
            "  false claim  edge claims it as an attached ephemeral node: it has no proof",
            "  ignored      r2 claims it as an attached ephemeral node: the certificate of the proof is not trusted here",
        ];
        assert_eq!(text, lines.join("\n") + "\n");
    }

    #[test]
    fn a_node_that_left_is_explained_by_that() {
        let text = render(json!({
            "node": "edge",
            "route": { "state": "never-heard-of", "reason": "no record names it" },
            "left": { "node": "edge", "ago_s": 90.5, "ephemeral": false },
        }));
        assert_eq!(text, "edge  it has shut down and left the mesh 1 min 30 s ago\n");
    }

    #[test]
    fn an_explanation_of_another_version_is_shown_as_far_as_it_goes() {
        assert!(render(json!({ "node": "old", "new_field": 1 })).starts_with("old  "));
        assert!(
            render(json!({ "path": { "kind": "relayed" } })).contains("path         relayed\n")
        );
    }

    #[test]
    fn what_a_peer_says_cannot_steer_the_terminal() {
        let text = render(json!({ "nat": { "mine": "unknown", "theirs": "\u{1b}[2J" } }));
        assert!(text.contains("\\u{1b}[2J there"), "{text}");
    }
}
