//! Updates that came faster than their origin may speak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::record::Record;
use crate::id::NodeId;

/// Updates that came faster than their origin may speak: of each origin the newest, until its time comes. Excess is
/// delayed, never lost.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    records: BTreeMap<NodeId, Waiting>,
    due: BTreeSet<(Instant, NodeId)>,
}

#[derive(Debug)]
struct Waiting {
    record: Record,
    from: NodeId,
}

impl Parked {
    /// Keeps the record until `at`, or until the time that an older one of the origin waits for.
    pub(crate) fn park(&mut self, record: Record, from: NodeId, at: Instant) {
        match self.records.get_mut(&record.origin) {
            Some(waiting) if waiting.record.stamp() >= record.stamp() => {}
            Some(waiting) => *waiting = Waiting { record, from },
            None => {
                self.due.insert((at, record.origin.clone()));
                self.records.insert(record.origin.clone(), Waiting { record, from });
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A record whose time has come, and who sent it.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(Record, NodeId)> {
        self.next_timeout().filter(|&at| at <= now)?;
        let (_, origin) = self.due.pop_first()?;
        self.records.remove(&origin).map(|waiting| (waiting.record, waiting.from))
    }
}
