//! Updates that came faster than their origin may speak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::id::NodeId;
use crate::router::record::Record;

/// Updates that came faster than their origin may speak: of each origin the newest that each
/// neighbour sent, until the origin's time comes. Excess is delayed, never lost. None of them is
/// verified yet, so that what one neighbour sends does not push out what another has sent.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// By origin and neighbour.
    records: BTreeMap<NodeId, BTreeMap<NodeId, Record>>,
    due: BTreeSet<(Instant, NodeId)>,
}

impl Parked {
    /// Keeps the record until `at`, or until the time that another one of the origin waits for.
    pub(crate) fn park(&mut self, record: Record, from: NodeId, at: Instant) {
        let origin = record.origin.clone();
        let waiting = self.records.entry(origin.clone()).or_default();
        if waiting.is_empty() {
            self.due.insert((at, origin));
        }
        if waiting.get(&from).is_none_or(|held| held.stamp() < record.stamp()) {
            waiting.insert(from, record);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// What waits of this origin, from this neighbour.
    pub(crate) fn get(&self, origin: &NodeId, from: &NodeId) -> Option<&Record> {
        self.records.get(origin)?.get(from)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The records of an origin whose time has come, and who sent each; the newest first.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Vec<(Record, NodeId)>> {
        self.next_timeout().filter(|&at| at <= now)?;
        let (_, origin) = self.due.pop_first()?;
        let waiting = self.records.remove(&origin)?;
        let mut waiting: Vec<_> =
            waiting.into_iter().map(|(from, record)| (record, from)).collect();
        waiting.sort_by_key(|(record, _)| std::cmp::Reverse(record.stamp()));
        Some(waiting)
    }
}
