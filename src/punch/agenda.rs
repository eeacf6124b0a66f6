//! Which peer is due when, and whose round an id is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::id::NodeId;

/// What one peer waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dues {
    /// Anything but a probe.
    pub(crate) timer: Option<Instant>,
    /// A probe of a path.
    pub(crate) watch: Option<Instant>,
    /// A probe of a candidate.
    pub(crate) check: Option<Instant>,
    /// The rounds whose probes are accepted.
    pub(crate) rounds: Vec<u64>,
}

/// What all peers wait for, in order of time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    dues: BTreeMap<NodeId, Dues>,
    timers: BTreeSet<(Instant, NodeId)>,
    watches: BTreeSet<(Instant, NodeId)>,
    checks: BTreeSet<(Instant, NodeId)>,
    rounds: BTreeMap<u64, NodeId>,
}

impl Agenda {
    /// Puts what the peer waits for in place of what it waited for before. Says whether its rounds
    /// have changed.
    pub(crate) fn set(&mut self, peer: &NodeId, new: Dues) -> bool {
        let old = self.dues.remove(peer).unwrap_or_default();
        for (set, old, new) in [
            (&mut self.timers, old.timer, new.timer),
            (&mut self.watches, old.watch, new.watch),
            (&mut self.checks, old.check, new.check),
        ] {
            if old != new {
                old.map(|at| set.remove(&(at, peer.clone())));
                new.map(|at| set.insert((at, peer.clone())));
            }
        }
        let changed = old.rounds != new.rounds;
        if changed {
            // An id belongs to its first user.
            self.rounds.retain(|_, owner| owner != peer);
            for round in &new.rounds {
                self.rounds.entry(*round).or_insert_with(|| peer.clone());
            }
        }
        if new != Dues::default() {
            self.dues.insert(peer.clone(), new);
        }
        changed
    }

    pub(crate) fn peer_of(&self, round: u64) -> Option<&NodeId> {
        self.rounds.get(&round)
    }

    pub(crate) fn rounds(&self) -> impl Iterator<Item = u64> {
        self.rounds.keys().copied()
    }

    /// The peers whose timers are due.
    pub(crate) fn timers_until(&self, now: Instant) -> Vec<NodeId> {
        self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, peer)| peer.clone()).collect()
    }

    /// The peer that has waited longest to probe a path.
    pub(crate) fn next_watch(&self, now: Instant) -> Option<NodeId> {
        first_until(&self.watches, now)
    }

    /// The peer that has waited longest to probe a candidate.
    pub(crate) fn next_check(&self, now: Instant) -> Option<NodeId> {
        first_until(&self.checks, now)
    }

    pub(crate) fn first_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn first_watch(&self) -> Option<Instant> {
        self.watches.first().map(|(at, _)| *at)
    }

    pub(crate) fn first_check(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }
}

fn first_until(set: &BTreeSet<(Instant, NodeId)>, now: Instant) -> Option<NodeId> {
    set.first().filter(|(at, _)| *at <= now).map(|(_, peer)| peer.clone())
}
