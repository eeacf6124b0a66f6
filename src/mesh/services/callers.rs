//! How many streams each caller has in the queue of a service.
//!
//! Ephemerals that share a certificate are one caller: ids count without their suffix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::id::NodeId;
use crate::sync::lock;

/// Callers in the table beyond which those without streams are looked for.
const SWEEP_AT: usize = 64;

/// The callers of one service.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    counts: BTreeMap<NodeId, CallerCount>,
    /// The size of the table after the last sweep.
    kept: usize,
}

/// The count of one caller; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerCount(Arc<AtomicUsize>);

/// One stream in a count. Dropped, it is out of it.
#[derive(Debug)]
pub(crate) struct Counted(CallerCount);

impl Callers {
    /// The count of the caller with this id.
    pub(crate) fn of(&self, caller: &NodeId) -> CallerCount {
        let mut table = lock(&self.0);
        if table.counts.len() >= SWEEP_AT.max(2 * table.kept) {
            table.counts.retain(|_, count| Arc::strong_count(&count.0) > 1);
            table.kept = table.counts.len();
        }
        table.counts.entry(caller.base()).or_default().clone()
    }
}

impl CallerCount {
    /// Streams that are counted now.
    pub(crate) fn waiting(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts another one.
    pub(crate) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn ephemerals_with_one_certificate_share_a_count() {
        let callers = Callers::default();
        let first = callers.of(&id("me~1")).count();
        let _second = callers.of(&id("me~2")).count();
        assert_eq!((callers.of(&id("me")).waiting(), callers.of(&id("you")).waiting()), (2, 0));
        drop(first);
        assert_eq!(callers.of(&id("me~1")).waiting(), 1);
    }

    #[test]
    fn callers_without_streams_are_forgotten() {
        let callers = Callers::default();
        let kept = callers.of(&id("kept")).count();
        for n in 0..10_000 {
            callers.of(&id(&format!("n{n}")));
        }
        assert!(callers.0.lock().unwrap().counts.len() <= SWEEP_AT + 1);
        assert_eq!(callers.of(&id("kept")).waiting(), 1);
        drop(kept);
    }
}
