//! The ids of recently seen advertisements.

use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};

use lru::LruCache;
use uuid::Uuid;

use crate::id::NodeId;
use crate::router::record::Stamp;

/// A bounded cache of recently read advertisements, and of the verdict on each.
///
/// It saves the decoding of duplicates and decides nothing: what to do with a copy follows from the
/// database alone.
pub(crate) struct Seen {
    // The hasher is a fixed one: ids are hashes themselves, and the outputs must not depend on
    // ambient randomness.
    ids: LruCache<Uuid, (NodeId, Stamp), BuildHasherDefault<DefaultHasher>>,
    capacity: usize,
}

impl Seen {
    pub(crate) fn new(capacity: usize) -> Self {
        // Unbounded inside, because a bounded one reserves all of its memory at once.
        Self { ids: LruCache::unbounded_with_hasher(BuildHasherDefault::new()), capacity }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn get(&mut self, id: Uuid) -> Option<(NodeId, Stamp)> {
        self.ids.get(&id).cloned()
    }

    pub(crate) fn insert(&mut self, id: Uuid, origin: NodeId, stamp: Stamp) {
        if self.capacity == 0 {
            return;
        }
        self.ids.put(id, (origin, stamp));
        if self.ids.len() > self.capacity {
            self.ids.pop_lru();
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("len", &self.ids.len())
            .field("capacity", &self.capacity)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Version;

    #[test]
    fn the_least_recently_seen_id_goes_first() {
        let mut seen = Seen::new(2);
        let stamp = Stamp { version: Version::default(), check: 0 };
        for n in [1, 2] {
            seen.insert(Uuid::from_u128(n), NodeId::try_from("a").unwrap(), stamp);
        }
        assert!(seen.get(Uuid::from_u128(1)).is_some());
        seen.insert(Uuid::from_u128(3), NodeId::try_from("a").unwrap(), stamp);
        assert!(seen.get(Uuid::from_u128(2)).is_none());
        assert_eq!(seen.ids.len(), 2);
    }
}
