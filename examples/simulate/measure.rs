//! What is counted while something happens.

use std::collections::HashMap;
use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Version;
use receptor_quic::router::{Counters, Message, Record};

/// What all nodes did together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) payloads: u64,
    pub(crate) ids: u64,
    pub(crate) pulls: u64,
    pub(crate) echoes: u64,
    /// Bytes of payloads, ids, pulls and refusals: what an update costs.
    pub(crate) flood_bytes: u64,
    /// Bytes of digests, summaries and the rest: what comparing databases costs.
    pub(crate) compare_bytes: u64,
    pub(crate) originations: u64,
    pub(crate) path_runs: u64,
}

/// Counts what is sent, and follows updates on their way while it is on.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) totals: Totals,
    counters: Vec<Counters>,
    since: Option<Instant>,
    follows: bool,
    waves: HashMap<(usize, Version), Wave>,
    /// When each node last learned something.
    pub(crate) arrivals: Vec<Option<Instant>>,
    rounds: u32,
    longest: Duration,
}

/// One update on its way: how many links it is from its origin, where it is.
struct Wave {
    started: Option<Instant>,
    depth: HashMap<usize, u32>,
}

/// What one event, or some under churn, gave.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) totals: Totals,
    /// The most links that an update crossed until it was accepted.
    pub(crate) rounds: u32,
    /// From the event until the last node learned of it.
    pub(crate) settled_after: Duration,
    /// The longest that one update was on its way.
    pub(crate) longest_wave: Duration,
    /// How a request of convergence ended.
    pub(crate) answer: Option<Answer>,
    /// When each node last learned something, after the event.
    pub(crate) arrivals: Vec<Option<Duration>>,
}

/// How a request of convergence ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) after: Duration,
    /// Waves that were made for it.
    pub(crate) waves: u64,
    pub(crate) converged: bool,
}

impl Meter {
    /// Whether it wants to be told of each update that is accepted.
    pub(crate) fn follows(&self) -> bool {
        self.since.is_some() && self.follows
    }

    /// Starts to count, and to follow each update if `follows`.
    pub(crate) fn start(&mut self, nodes: usize, follows: bool, now: Instant) {
        (self.since, self.follows) = (Some(now), follows);
        self.waves.clear();
        self.arrivals = vec![None; nodes];
        (self.rounds, self.longest) = (0, Duration::ZERO);
    }

    /// What was measured since the start, when the totals were `before`.
    pub(crate) fn stop(&mut self, before: Totals) -> Option<Measured> {
        let since = self.since.take()?;
        let arrivals: Vec<_> = self.arrivals.iter().map(|at| at.map(|at| at - since)).collect();
        Some(Measured {
            totals: self.totals - before,
            rounds: self.rounds,
            settled_after: arrivals.iter().flatten().max().copied().unwrap_or_default(),
            longest_wave: self.longest,
            answer: None,
            arrivals,
        })
    }

    pub(crate) fn on_sent(&mut self, message: &Message, bytes: usize) {
        let totals = &mut self.totals;
        if matches!(message, Message::Rekeyed { .. }) {
            // Once an hour, whatever happens: no part of what an event costs.
            return;
        }
        totals.messages += 1;
        let flood = match message {
            Message::Update(_) | Message::Delta(_) => count(&mut totals.payloads, 1),
            Message::Have(entries) | Message::Offer(entries) => {
                count(&mut totals.ids, entries.len())
            }
            Message::Want(origins) => count(&mut totals.pulls, origins.len()),
            Message::Echo(_) => count(&mut totals.echoes, 1),
            Message::Nack(_) => true,
            _ => false,
        };
        *if flood { &mut totals.flood_bytes } else { &mut totals.compare_bytes } += bytes as u64;
    }

    /// Looks at what the router of a node has done; all its counters start at zero when it
    /// restarts.
    pub(crate) fn on_counters(
        &mut self,
        number: usize,
        version: Version,
        now_at: Counters,
        now: Instant,
    ) {
        if self.counters.len() <= number {
            self.counters.resize(number + 1, Counters::default());
        }
        let before = std::mem::replace(&mut self.counters[number], now_at);
        let grown = |old: u64, new: u64| if new >= old { new - old } else { new };
        let spoke = grown(before.originations, now_at.originations);
        self.totals.originations += spoke;
        self.totals.path_runs += grown(before.path_runs, now_at.path_runs);
        if spoke > 0 && self.follows() {
            self.waves
                .insert((number, version), Wave { started: Some(now), depth: HashMap::new() });
            self.learned(number, now);
        }
    }

    /// A node took an update from another.
    pub(crate) fn on_accepted(
        &mut self,
        node: usize,
        from: usize,
        update: (usize, Version),
        now: Instant,
    ) {
        // Updates from before the event are at their first node here.
        let wave = self
            .waves
            .entry(update)
            .or_insert_with(|| Wave { started: None, depth: HashMap::new() });
        let depth = wave.depth.get(&from).map_or(1, |depth| depth + 1);
        wave.depth.entry(node).or_insert(depth);
        self.rounds = self.rounds.max(depth);
        if let Some(started) = wave.started {
            self.longest = self.longest.max(now - started);
        }
        self.learned(node, now);
    }

    fn learned(&mut self, node: usize, now: Instant) {
        if self.arrivals.len() <= node {
            self.arrivals.resize(node + 1, None);
        }
        self.arrivals[node] = Some(now);
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.each(more, |a, b| a + b);
    }
}

impl Sub for Totals {
    type Output = Self;

    fn sub(mut self, before: Self) -> Self {
        self.each(before, |a, b| a - b);
        self
    }
}

impl Totals {
    fn each(&mut self, other: Self, join: impl Fn(u64, u64) -> u64) {
        for (mine, other) in [
            (&mut self.messages, other.messages),
            (&mut self.payloads, other.payloads),
            (&mut self.ids, other.ids),
            (&mut self.pulls, other.pulls),
            (&mut self.echoes, other.echoes),
            (&mut self.flood_bytes, other.flood_bytes),
            (&mut self.compare_bytes, other.compare_bytes),
            (&mut self.originations, other.originations),
            (&mut self.path_runs, other.path_runs),
        ] {
            *mine = join(*mine, other);
        }
    }
}

/// Whose record a message carries, and which.
pub(crate) fn carried(message: &Message) -> Option<(NodeId, Version)> {
    match message {
        Message::Update(advertisement) => {
            let record = Record::decode(advertisement).ok()?;
            Some((record.origin.clone(), record.version))
        }
        Message::Delta(delta) => Some((delta.origin.clone(), delta.version)),
        _ => None,
    }
}

fn count(counter: &mut u64, by: usize) -> bool {
    *counter += by as u64;
    true
}
