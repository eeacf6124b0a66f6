//! The records that a node holds: one slot per origin.

pub(in crate::router) mod buckets;
pub(in crate::router) mod by_id;
pub(in crate::router) mod comparison;
pub(in crate::router) mod csr;
pub(in crate::router) mod graph;
pub(in crate::router) mod parked;
pub(in crate::router) mod seen;
pub(in crate::router) mod vertex;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::config::{Limits, Timers};
use super::database::buckets::{BucketSet, Buckets};
use super::database::graph::{Effect, Graph};
use super::neighbour::throttle::Bucket;
use super::record::advertisement::Advertisement;
use super::record::delta::{self, Delta};
use super::record::wire::{Digest, Entry, Message};
use super::record::{Record, Stamp};
use crate::id::{NodeAddr, NodeId};

/// The records that a node holds, how long each was unreachable, and the graph of their two-way
/// edges.
#[derive(Debug)]
pub(crate) struct Database {
    me: NodeId,
    addr: NodeAddr,
    /// The records themselves are its vertices.
    graph: Graph,
    /// What else there is to say of each, by its number in the graph.
    held: Vec<Option<Held>>,
    addrs: BTreeMap<NodeAddr, u32>,
    /// When the deletion timer of all records was restarted.
    deletion_clock: Instant,
    /// No record is due to be dropped before.
    sweep_at: Option<Instant>,
    digest: Option<(Digest, u64)>,
    timers: Timers,
    limits: Limits,
}

#[derive(Debug)]
struct Held {
    /// How the record differs from the one before, if that is worth sending instead.
    delta: Option<Arc<Delta>>,
    /// None: reachable.
    unreachable_since: Option<Instant>,
    /// When the bucket that paces records of this origin is full.
    pace_full_at: Instant,
}

/// Why there is no room for a new origin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Database {
    pub(crate) fn new(me: NodeId, timers: Timers, limits: Limits, now: Instant) -> Self {
        Self {
            addr: me.addr(),
            me,
            graph: Graph::default(),
            held: Vec::new(),
            addrs: BTreeMap::new(),
            deletion_clock: now,
            sweep_at: None,
            digest: None,
            timers,
            limits,
        }
    }

    pub(crate) fn get(&self, origin: &NodeId) -> Option<&Record> {
        self.graph.record(origin)
    }

    /// How the record of `origin` differs from the one that was held before.
    pub(crate) fn delta(&self, origin: &NodeId) -> Option<Arc<Delta>> {
        self.held(origin).and_then(|held| held.delta.clone())
    }

    pub(crate) fn stamp(&self, origin: &NodeId) -> Option<Stamp> {
        self.get(origin).map(Record::stamp)
    }

    /// All records, ascending by origin.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.from(Bound::Unbounded).map(|(record, _)| record)
    }

    pub(crate) fn len(&self) -> usize {
        self.addrs.len()
    }

    /// Says whether this node permits transit through an origin.
    pub(crate) fn permit(&mut self, origin: &NodeId, permitted: bool) -> Effect {
        self.graph.permit(origin, permitted)
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Of all that records are held of, and of this node.
    pub(crate) fn origin_with(&self, addr: NodeAddr) -> Option<&NodeId> {
        if addr == self.addr {
            return Some(&self.me);
        }
        self.addrs.get(&addr).map(|&number| self.graph.id(number))
    }

    pub(crate) fn unreachable_since(&self, origin: &NodeId) -> Option<Instant> {
        self.held(origin).and_then(|held| held.unreachable_since)
    }

    /// Sees to it that a record of `origin` can be stored. Says whether another one was dropped for
    /// it.
    pub(crate) fn make_room(&mut self, origin: &NodeId) -> Result<bool, Full> {
        if self.len() < self.limits.origins || self.get(origin).is_some() {
            return Ok(false);
        }
        let all = self.from(Bound::Unbounded);
        let longest =
            all.filter_map(|(record, held)| Some((held.unreachable_since?, &record.origin))).min();
        let victim = longest.map(|(_, id)| id.clone()).ok_or(Full)?;
        // An unreachable origin has no part in any path.
        self.remove(&victim);
        Ok(true)
    }

    /// Puts a record in the place of an older one.
    pub(crate) fn store(&mut self, record: Record, now: Instant) -> Effect {
        self.digest = None;
        let (own, leaving, addr) = (record.origin == self.me, record.leaving, record.addr());
        let before = self.graph.record(&record.origin);
        let delta = before.and_then(|before| delta::worth_keeping(before, &record, &self.limits));
        let new = before.is_none();
        let (number, effect) = self.graph.insert(record);
        if new {
            let unreachable_since = (!own).then_some(now);
            let held = Held { delta: None, unreachable_since, pace_full_at: now };
            self.held.resize_with(self.graph.bound(), || None);
            self.held[number as usize] = Some(held);
            self.addrs.insert(addr, number);
        }
        let held = self.held[number as usize].as_mut().expect("each vertex has one");
        held.delta = delta;
        if (held.unreachable_since.is_some() || leaving) && !own {
            held.unreachable_since = Some(now);
            let life = if leaving { self.timers.tombstone } else { self.timers.delete };
            self.sweep_at = earlier(self.sweep_at, now + life);
        }
        effect
    }

    /// When the next record of `origin` may be accepted. None: nothing is held of it.
    pub(crate) fn accepts_at(&self, origin: &NodeId, now: Instant) -> Option<Instant> {
        self.held(origin).map(|held| self.pace(held).ready_at(now))
    }

    /// A record of `origin` was accepted, which costs so many updates of its pace.
    pub(crate) fn on_accepted(&mut self, origin: &NodeId, updates: u32, now: Instant) {
        let Some(number) = self.graph.number(origin) else { return };
        let pace = self.held[number as usize].as_ref().map(|held| self.pace(held));
        if let (Some(mut pace), Some(held)) = (pace, &mut self.held[number as usize]) {
            (0..updates).for_each(|_| pace.take(now));
            held.pace_full_at = pace.full_at();
        }
    }

    fn pace(&self, held: &Held) -> Bucket {
        Bucket::new(self.limits.accept_burst, self.timers.accept_interval, held.pace_full_at)
    }

    /// Notes what the newest paths reach. Says whether that differs from before.
    pub(crate) fn mark_reachable(&mut self, reaches: impl Fn(u32) -> bool, now: Instant) -> bool {
        let mut changed = false;
        let me = self.graph.number(&self.me);
        for (number, held) in (0..).zip(&mut self.held) {
            let Some(held) = held else { continue };
            match (Some(number) == me || reaches(number), held.unreachable_since) {
                (true, Some(_)) => held.unreachable_since = None,
                (false, None) => {
                    held.unreachable_since = Some(now);
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
        let all = self.from(Bound::Unbounded);
        all.filter(|(_, held)| held.unreachable_since.is_none()).map(|(record, _)| record)
    }

    /// The digest of the reachable records.
    pub(crate) fn reachable_digest(&mut self) -> (Digest, u64) {
        let digest = self.digest.unwrap_or_else(|| digest_of(self.reachable()));
        *self.digest.insert(digest)
    }

    /// The digest of the records that are offered to neighbours.
    pub(crate) fn offered_digest(&self, now: Instant) -> (Digest, u64) {
        digest_of(self.offered(Bound::Unbounded, now))
    }

    /// The digests of what is offered, in 2^`bits` buckets. Tombstones are outside, as of every
    /// digest.
    pub(crate) fn buckets(&self, bits: u32, now: Instant) -> Buckets {
        Buckets::of(self.offered(Bound::Unbounded, now).filter(|record| !record.leaving), bits)
    }

    /// A part of the summary of what is offered in these buckets: the entries after `after`, and
    /// whether they are the last.
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

    /// What is offered of the range of a neighbour's summary, but not listed in it, or only with an
    /// older copy.
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
            .filter(|record| {
                entries.binary_search_by(|entry| entry.origin.cmp(&record.origin)).is_err()
            });
        // What is listed with an older copy is answered even where it is no longer offered.
        let older = entries
            .iter()
            .filter_map(|entry| self.get(&entry.origin).filter(|r| r.stamp() > entry.stamp));
        unlisted.chain(older).map(|record| record.origin.clone()).collect()
    }

    /// Restarts the deletion timer: after a session came up or synced, what was unreachable
    /// may be connected soon, and must not be deleted in between.
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
        let due = |(record, held): (&Record, &Held)| {
            let since = held.unreachable_since?;
            Some(if record.leaving {
                since + self.timers.tombstone
            } else {
                since.max(self.deletion_clock) + self.timers.delete
            })
        };
        let all = || self.from(Bound::Unbounded);
        let dead = all().filter(|entry| due(*entry).is_some_and(|at| at <= now));
        let dead: Vec<NodeId> = dead.map(|(record, _)| record.origin.clone()).collect();
        self.sweep_at = all().filter_map(due).filter(|&at| at > now).min();
        for origin in &dead {
            self.remove(origin);
        }
        dead
    }

    /// What neighbours may be sent: what is reachable, or was until recently. A far component's
    /// records come from its own side; corpses do not spread.
    fn offered(&self, start: Bound<&NodeId>, now: Instant) -> impl Iterator<Item = &Record> {
        let offered = move |held: &Held| {
            held.unreachable_since
                .is_none_or(|at| now.saturating_duration_since(at) < self.timers.withhold)
        };
        self.from(start).filter(move |(_, held)| offered(held)).map(|(record, _)| record)
    }

    pub(crate) fn remove(&mut self, origin: &NodeId) {
        if let Some((number, record)) = self.graph.remove(origin) {
            self.addrs.remove(&record.addr());
            self.held[number as usize] = None;
            self.digest = None;
        }
    }

    /// What is held from `start` on, ascending by origin.
    fn from(&self, start: Bound<&NodeId>) -> impl Iterator<Item = (&Record, &Held)> {
        self.graph.numbers_from(start).map(|number| {
            let held = self.held[number as usize].as_ref().expect("each vertex has one");
            (&self.graph.vertex(number).record, held)
        })
    }

    fn held(&self, origin: &NodeId) -> Option<&Held> {
        self.held[self.graph.number(origin)? as usize].as_ref()
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
