//! The records that a node holds: one slot per origin.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::advertisement::Advertisement;
use super::buckets::{BucketSet, Buckets};
use super::by_id::ById;
use super::config::{Limits, Timers};
use super::delta::{self, Delta};
use super::graph::{Effect, Graph};
use super::record::{Record, Stamp};
use super::throttle::Bucket;
use super::wire::{Digest, Entry, Message};
use crate::id::{NodeAddr, NodeId};

/// The records that a node holds, how long each was unreachable, and the graph of their two-way edges.
#[derive(Debug)]
pub(crate) struct Database {
    me: NodeId,
    records: ById<Stored>,
    addrs: BTreeMap<NodeAddr, NodeId>,
    graph: Graph,
    /// When the clock of deletion started anew for all.
    deletion_clock: Instant,
    /// No record is due to be dropped before.
    sweep_at: Option<Instant>,
    digest: Option<(Digest, u64)>,
    timers: Timers,
    limits: Limits,
}

#[derive(Debug)]
struct Stored {
    record: Record,
    /// How the record differs from the one before, if that is worth sending instead.
    delta: Option<Arc<Delta>>,
    /// None: reachable.
    unreachable_since: Option<Instant>,
    pace: Bucket,
}

/// Why there is no room for a new origin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Database {
    pub(crate) fn new(me: NodeId, timers: Timers, limits: Limits, now: Instant) -> Self {
        Self {
            me,
            records: ById::default(),
            addrs: BTreeMap::new(),
            graph: Graph::default(),
            deletion_clock: now,
            sweep_at: None,
            digest: None,
            timers,
            limits,
        }
    }

    pub(crate) fn get(&self, origin: &NodeId) -> Option<&Record> {
        self.records.get(origin).map(|stored| &stored.record)
    }

    /// How the record of `origin` differs from the one that was held before.
    pub(crate) fn delta(&self, origin: &NodeId) -> Option<Arc<Delta>> {
        self.records.get(origin).and_then(|stored| stored.delta.clone())
    }

    pub(crate) fn stamp(&self, origin: &NodeId) -> Option<Stamp> {
        self.get(origin).map(Record::stamp)
    }

    /// All records, ascending by origin.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|stored| &stored.record)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn origin_with(&self, addr: NodeAddr) -> Option<&NodeId> {
        self.addrs.get(&addr)
    }

    pub(crate) fn unreachable_since(&self, origin: &NodeId) -> Option<Instant> {
        self.records.get(origin).and_then(|stored| stored.unreachable_since)
    }

    /// Sees to it that a record of `origin` can be stored. Says whether another one was dropped for it.
    pub(crate) fn make_room(&mut self, origin: &NodeId) -> Result<bool, Full> {
        if self.records.contains_key(origin) || self.records.len() < self.limits.origins {
            return Ok(false);
        }
        let longest =
            self.records.iter().filter_map(|(id, stored)| Some((stored.unreachable_since?, id))).min();
        let victim = longest.map(|(_, id)| id.clone()).ok_or(Full)?;
        // An unreachable origin has no part in any path.
        self.remove(&victim);
        Ok(true)
    }

    /// Puts a record in the place of an older one.
    pub(crate) fn store(&mut self, record: Record, now: Instant) -> Effect {
        let origin = record.origin.clone();
        self.digest = None;
        if !self.records.contains_key(&origin) {
            let unreachable_since = (origin != self.me).then_some(now);
            let pace = Bucket::new(self.limits.accept_burst, self.timers.accept_interval, now);
            let stored = Stored { record: record.clone(), delta: None, unreachable_since, pace };
            self.records.insert(origin.clone(), stored);
            self.addrs.insert(record.addr(), origin.clone());
        }
        let stored = self.records.get_mut(&origin).expect("it was inserted if it was not there");
        stored.delta = delta::worth_keeping(&stored.record, &record, &self.limits);
        stored.record = record.clone();
        if (stored.unreachable_since.is_some() || record.leaving) && origin != self.me {
            stored.unreachable_since = Some(now);
            let life = if record.leaving { self.timers.tombstone } else { self.timers.delete };
            self.sweep_at = earlier(self.sweep_at, now + life);
        }
        self.graph.insert(record)
    }

    /// The limiter of how often records of `origin` are accepted.
    pub(crate) fn pace_mut(&mut self, origin: &NodeId) -> Option<&mut Bucket> {
        self.records.get_mut(origin).map(|stored| &mut stored.pace)
    }

    /// Notes what the newest paths reach. Says whether that differs from before.
    pub(crate) fn mark_reachable(&mut self, reaches: impl Fn(u32) -> bool, now: Instant) -> bool {
        let mut changed = false;
        for (origin, stored) in self.records.iter_mut() {
            let reachable = *origin == self.me || self.graph.number(origin).is_some_and(&reaches);
            match (reachable, stored.unreachable_since) {
                (true, Some(_)) => stored.unreachable_since = None,
                (false, None) => {
                    stored.unreachable_since = Some(now);
                    self.sweep_at =
                        earlier(self.sweep_at, now + self.timers.delete.min(self.timers.tombstone));
                }
                _ => continue,
            }
            changed = true;
        }
        if changed {
            self.digest = None;
        }
        changed
    }

    /// The reachable records, ascending by origin.
    pub(crate) fn reachable(&self) -> impl Iterator<Item = &Record> {
        let reachable = self.records.values().filter(|stored| stored.unreachable_since.is_none());
        reachable.map(|stored| &stored.record)
    }

    /// The digest of the reachable records.
    pub(crate) fn reachable_digest(&mut self) -> (Digest, u64) {
        *self.digest.get_or_insert_with(|| {
            let reachable = self.records.values().filter(|stored| stored.unreachable_since.is_none());
            digest_of(reachable.map(|stored| &stored.record))
        })
    }

    /// The digest of the records that are offered to neighbours.
    pub(crate) fn offered_digest(&self, now: Instant) -> (Digest, u64) {
        digest_of(self.offered(Bound::Unbounded, now))
    }

    /// The digests of what is offered, in 2^`bits` buckets. Tombstones are outside, as of every digest.
    pub(crate) fn buckets(&self, bits: u32, now: Instant) -> Buckets {
        Buckets::of(self.offered(Bound::Unbounded, now).filter(|record| !record.leaving), bits)
    }

    /// A part of the summary of what is offered in these buckets: the entries after `after`, and whether they are the last.
    pub(crate) fn summary(
        &self,
        after: Option<&NodeId>,
        only: Option<&BucketSet>,
        now: Instant,
    ) -> (Vec<Entry>, bool) {
        let mut offered = self
            .offered(after.map_or(Bound::Unbounded, Bound::Excluded), now)
            .filter(|record| only.is_none_or(|only| only.contains(record.addr())));
        let entries: Vec<Entry> = offered
            .by_ref()
            .take(Message::MAX_ENTRIES)
            .map(|record| Entry { origin: record.origin.clone(), stamp: record.stamp() })
            .collect();
        (entries, offered.next().is_none())
    }

    /// What is offered of the range of a neighbour's summary, but not listed in it, or only with an older copy.
    pub(crate) fn lacking(
        &self,
        after: Option<&NodeId>,
        entries: &[Entry],
        last: bool,
        only: Option<&BucketSet>,
        now: Instant,
    ) -> Vec<NodeId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = if last { None } else { entries.last().map(|entry| &entry.origin) };
        let unlisted = self
            .offered(start, now)
            .take_while(|record| end.is_none_or(|end| record.origin <= *end))
            .filter(|record| only.is_none_or(|only| only.contains(record.addr())))
            .filter(|record| entries.binary_search_by(|entry| entry.origin.cmp(&record.origin)).is_err());
        // What is listed with an older copy is answered even where it is no longer offered.
        let older =
            entries.iter().filter_map(|entry| self.get(&entry.origin).filter(|r| r.stamp() > entry.stamp));
        unlisted.chain(older).map(|record| record.origin.clone()).collect()
    }

    /// Starts the clock of deletion anew: after a session came up or synced, what was unreachable may be connected soon,
    /// and must not be deleted in between.
    pub(crate) fn restart_deletion_clock(&mut self, now: Instant) {
        self.deletion_clock = now;
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Drops what was unreachable for too long. Says which records went.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<NodeId> {
        if self.sweep_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let due = |stored: &Stored| {
            let since = stored.unreachable_since?;
            Some(if stored.record.leaving {
                since + self.timers.tombstone
            } else {
                since.max(self.deletion_clock) + self.timers.delete
            })
        };
        let dead: Vec<NodeId> = self
            .records
            .iter()
            .filter(|(_, stored)| due(stored).is_some_and(|at| at <= now))
            .map(|(origin, _)| origin.clone())
            .collect();
        self.sweep_at = self.records.values().filter_map(due).filter(|&at| at > now).min();
        for origin in &dead {
            self.remove(origin);
        }
        dead
    }

    /// What neighbours may be told of: what is reachable, or was until lately. A far component's records come from its
    /// own side; corpses do not spread.
    fn offered(&self, start: Bound<&NodeId>, now: Instant) -> impl Iterator<Item = &Record> {
        let offered = move |stored: &&Stored| {
            stored.unreachable_since.is_none_or(|at| now.saturating_duration_since(at) < self.timers.withhold)
        };
        self.records.values_from(start).filter(offered).map(|stored| &stored.record)
    }

    pub(crate) fn remove(&mut self, origin: &NodeId) {
        if let Some(stored) = self.records.remove(origin) {
            self.addrs.remove(&stored.record.addr());
            self.graph.remove(origin);
            self.digest = None;
        }
    }
}

/// Tombstones are outside of every digest: they go at different times at different nodes.
fn digest_of<'a>(records: impl Iterator<Item = &'a Record>) -> (Digest, u64) {
    records
        .filter(|record| !record.leaving)
        .map(Record::advertisement)
        .fold((Digest::default(), 0), |(digest, count), advertisement: &Advertisement| {
            (digest.with(advertisement), count + 1)
        })
}

pub(crate) fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}
