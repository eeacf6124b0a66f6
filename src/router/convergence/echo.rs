//! Echo waves: how the origin of a record learns that every node has installed its route.
//!
//! A record with the echo flag floods like any other, and asks for an answer. The neighbour that a
//! node accepted it from is its parent in the wave. Every other neighbour is sent the record or its
//! id at once, and is waited for until it shows that it holds the record too, which means that it
//! has another parent, or answers with an ECHO, which means that it is a child. Then the node tells
//! its parent how many nodes it speaks for, and the sum of their hashes. What arrives at the origin
//! is compared with the nodes that it can reach: a link or node that was lost on the way makes the
//! sum differ, never match by mistake.
//!
//! ```text
//!             record ▶         record ▶
//!   origin ────────────── b ────────────── d        b waits for c and d: c has shown the id, d answers
//!      │     ◀ ECHO 2     │    ◀ ECHO 1             c waits for b alone, which shows the id
//!      │                  │ ids ⇅
//!      └───────────────── c                         the origin: 1 + 2 + 1 nodes, and the sum of their hashes
//!            ◀ ECHO 1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::router::convergence::answer::{Echo, Tally};
use crate::router::database::earlier;
use crate::router::record::Stamp;

/// How long a wave of another node is remembered. Origins start a new one long before.
const WAVE_LIFE: Duration = Duration::from_secs(60);

/// Records on their way to be accepted of which it is remembered who sent them.
const MAX_COMING: usize = 1_024;

/// The waves that this node has part in: one per origin at most, its own among them.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    waves: BTreeMap<NodeId, Wave>,
    /// Origins whose waves wait for no neighbour any more.
    complete: BTreeSet<NodeId>,
    /// When waves of other nodes are forgotten.
    expiries: BTreeSet<(Instant, NodeId)>,
    /// Runs of the schedule at the last evaluation of `complete`; `None`: evaluate again.
    looked_at: Option<u64>,
    /// Who has sent a record that is not accepted yet: it came too fast, or waits for a credential.
    coming: BTreeMap<NodeId, (Stamp, BTreeSet<NodeId>)>,
    /// When all of these are forgotten: what was not accepted by then is late for its wave.
    coming_until: Option<Instant>,
}

/// The part that this node has in the wave of one origin.
#[derive(Debug)]
pub(super) struct Wave {
    pub(super) stamp: Stamp,
    /// Where the record came from. `None` if this node is the origin.
    pub(super) parent: Option<NodeId>,
    waits: BTreeSet<NodeId>,
    /// What the children have answered.
    pub(super) children: Tally,
    /// The table has the route once the schedule has run so many times.
    pub(super) installed_at: u64,
    expires: Instant,
}

impl Wave {
    /// A record was stored that is in the table once the schedule has run `installed_at` times.
    pub(super) fn new(
        stamp: Stamp,
        parent: Option<NodeId>,
        waits: BTreeSet<NodeId>,
        installed_at: u64,
        now: Instant,
    ) -> Self {
        Self {
            stamp,
            parent,
            waits,
            children: Tally::default(),
            installed_at,
            expires: now + WAVE_LIFE,
        }
    }
}

impl Echoes {
    /// How many waves are under way.
    pub(crate) fn len(&self) -> usize {
        self.waves.len()
    }

    pub(super) fn wave(&self, origin: &NodeId) -> Option<&Wave> {
        self.waves.get(origin)
    }

    pub(super) fn begin(&mut self, origin: NodeId, wave: Wave) {
        self.forget(&origin);
        if wave.waits.is_empty() {
            self.complete.insert(origin.clone());
            self.looked_at = None;
        }
        if wave.parent.is_some() {
            self.expiries.insert((wave.expires, origin.clone()));
        }
        self.waves.insert(origin, wave);
    }

    pub(crate) fn forget(&mut self, origin: &NodeId) {
        if let Some(wave) = self.waves.remove(origin) {
            self.complete.remove(origin);
            self.expiries.remove(&(wave.expires, origin.clone()));
        }
    }

    /// Nodes that hold this copy or a newer one are no longer waited for.
    pub(crate) fn on_shown(&mut self, origin: &NodeId, stamp: Stamp, by: &NodeId) {
        if let Some(wave) = self.waves.get_mut(origin).filter(|wave| wave.stamp <= stamp) {
            let waited = wave.waits.remove(by);
            self.look_at(origin, waited);
        }
    }

    /// Says whether the answer was waited for.
    pub(super) fn on_echo(&mut self, from: &NodeId, echo: &Echo) -> bool {
        let wave =
            self.waves.get_mut(&echo.origin).filter(|wave| wave.stamp.version == echo.version);
        let Some(wave) = wave.filter(|wave| wave.waits.contains(from)) else { return false };
        wave.waits.remove(from);
        wave.children = wave.children.with(Tally { count: echo.count, sum: echo.sum });
        self.look_at(&echo.origin, true);
        true
    }

    /// Nothing more comes from this neighbour, and nothing reaches it.
    pub(crate) fn on_gone(&mut self, neighbour: &NodeId) {
        self.coming.values_mut().for_each(|(_, by)| {
            by.remove(neighbour);
        });
        let of = self.waves.iter_mut().filter_map(|(origin, wave)| {
            (wave.waits.remove(neighbour) || wave.parent.as_ref() == Some(neighbour))
                .then(|| origin.clone())
        });
        for origin in of.collect::<Vec<_>>() {
            if self.waves.get(&origin).is_some_and(|wave| wave.parent.as_ref() == Some(neighbour)) {
                self.forget(&origin);
            } else {
                self.look_at(&origin, true);
            }
        }
    }

    fn look_at(&mut self, origin: &NodeId, changed: bool) {
        if changed && self.waves.get(origin).is_some_and(|wave| wave.waits.is_empty()) {
            self.complete.insert(origin.clone());
            self.looked_at = None;
        }
    }

    /// The origins whose waves may be ready, if something has changed since the last look.
    pub(super) fn take_complete(&mut self, runs: u64) -> Vec<NodeId> {
        if self.looked_at.replace(runs) == Some(runs) {
            return Vec::new();
        }
        self.complete.iter().cloned().collect()
    }

    pub(crate) fn waits_for(&self, origin: &NodeId, neighbour: &NodeId) -> bool {
        self.waves.get(origin).is_some_and(|wave| wave.waits.contains(neighbour))
    }

    /// What the children have answered so far.
    pub(crate) fn answered(&self, origin: &NodeId) -> Tally {
        self.waves.get(origin).map_or_else(Tally::default, |wave| wave.children)
    }

    /// A record with the echo flag came from a neighbour. Until it is accepted, which may take a
    /// while, others may send it too; none of them comes again.
    pub(crate) fn on_coming(&mut self, origin: &NodeId, stamp: Stamp, from: &NodeId, now: Instant) {
        if self.coming.len() >= MAX_COMING && !self.coming.contains_key(origin) {
            self.coming.pop_first();
        }
        let coming = self.coming.entry(origin.clone()).or_insert_with(|| (stamp, BTreeSet::new()));
        if coming.0 < stamp {
            *coming = (stamp, BTreeSet::new());
        }
        if coming.0 == stamp {
            coming.1.insert(from.clone());
        }
        self.coming_until.get_or_insert(now + WAVE_LIFE);
    }

    /// A record of this origin is accepted. Gives who has sent this copy or a newer one.
    pub(crate) fn take_coming(&mut self, origin: &NodeId, stamp: Stamp) -> BTreeSet<NodeId> {
        let Some((held, by)) = self.coming.get(origin) else { return BTreeSet::new() };
        let by = if *held >= stamp { by.clone() } else { BTreeSet::new() };
        if *held <= stamp {
            self.coming.remove(origin);
        }
        if self.coming.is_empty() {
            self.coming_until = None;
        }
        by
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        earliest([self.expiries.first().map(|(at, _)| *at), self.coming_until])
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((_, origin)) = self.expiries.first().filter(|(at, _)| *at <= now).cloned() {
            self.forget(&origin);
        }
        if self.coming_until.is_some_and(|at| at <= now) {
            self.coming_until = None;
            self.coming.clear();
        }
    }
}

/// The earliest of several times.
fn earliest(times: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    times.into_iter().flatten().fold(None, earlier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Version;

    const STAMP: Stamp =
        Stamp { version: Version { epoch: 1, sequence: 1, instance: 1 }, check: 0 };

    fn id(name: &str) -> NodeId {
        name.parse().expect("a node id")
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn echoes() -> (Echoes, Instant) {
        (Echoes::default(), Instant::now())
    }

    #[test]
    fn all_senders_of_a_record_that_waits_are_remembered() {
        let (mut echoes, now) = echoes();
        for (origin, from) in [("a", "x"), ("b", "x"), ("a", "y")] {
            echoes.on_coming(&id(origin), STAMP, &id(from), now);
        }
        assert_eq!(echoes.take_coming(&id("a"), STAMP), BTreeSet::from(["x", "y"].map(id)));
        assert_eq!(echoes.take_coming(&id("b"), STAMP), BTreeSet::from([id("x")]));
        assert_eq!(echoes.next_expiry(), None);
    }

    #[test]
    fn records_that_wait_are_bounded_and_forgotten() {
        let (mut echoes, now) = echoes();
        for nth in 0..=MAX_COMING {
            echoes.on_coming(&id(&format!("n{nth}")), STAMP, &id("x"), now);
        }
        assert_eq!(echoes.coming.len(), MAX_COMING);
        echoes.expire(now + WAVE_LIFE / 2);
        assert_eq!(echoes.coming.len(), MAX_COMING);
        assert_eq!(echoes.next_expiry(), Some(now + WAVE_LIFE));
        echoes.expire(now + WAVE_LIFE);
        assert_eq!((echoes.coming.len(), echoes.next_expiry()), (0, None));
    }
}
