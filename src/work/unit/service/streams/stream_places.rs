//! How many streams of submitters are served at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::id::NodeId;
use crate::mesh::services::callers::{Callers, Counted};
use crate::mesh::services::fair;

/// Places for the streams of submitters. One submitter may hold three times what is free, so that
/// others always find one.
#[derive(Debug)]
pub(in crate::work::unit::service) struct StreamPlaces {
    max: usize,
    taken: Arc<AtomicUsize>,
    callers: Callers,
}

/// A place. Dropped, it is free.
#[derive(Debug)]
pub(in crate::work::unit::service) struct StreamPlace {
    taken: Arc<AtomicUsize>,
    _own: Counted,
}

impl StreamPlaces {
    /// Places for at most `max` streams at a time.
    pub(in crate::work::unit::service) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default(), callers: Callers::default() }
    }

    /// Takes a place for one task, or returns `None` if this submitter has none left.
    pub(in crate::work::unit::service) fn enter(&self, submitter: &NodeId) -> Option<StreamPlace> {
        let own = self.callers.of(submitter);
        let taken = self.taken.load(Ordering::Relaxed);
        if taken >= self.max || !fair::admits(own.waiting(), taken, self.max) {
            return None;
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some(StreamPlace { taken: self.taken.clone(), _own: own.count() })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_submitter_leaves_places_for_the_others() {
        let places = StreamPlaces::new(16);
        let (greedy, other) = ("greedy~1".parse().unwrap(), "other".parse().unwrap());
        let mut held: Vec<_> = std::iter::from_fn(|| places.enter(&greedy)).collect();
        assert_eq!(held.len(), 12);
        assert!(places.enter(&"greedy~2".parse().unwrap()).is_none(), "one certificate, one share");
        let others: Vec<_> = std::iter::from_fn(|| places.enter(&other)).collect();
        assert_eq!(others.len(), 3);
        held.clear();
        assert!(places.enter(&greedy).is_some());
    }
}
