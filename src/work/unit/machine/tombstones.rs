//! Keys of units that must no longer be accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::time::UnitTime;
use crate::id::NodeId;
use crate::work::unit::key::UnitKey;

/// Why a key is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Death {
    /// The unit was removed, by its submitter or because its time was over.
    Removed,
    /// It was cancelled before it was offered.
    NeverAccepted,
}

/// The keys of units that must no longer be accepted, each until no offer of it can be under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    dead: BTreeMap<NodeId, BTreeMap<Uuid, (UnitTime, Death)>>,
    len: usize,
}

impl Tombstones {
    /// Marks a key as dead, until the later of this time and that of an earlier mark.
    pub(crate) fn insert(&mut self, key: UnitKey, until: UnitTime, death: Death) {
        let of_submitter = self.dead.entry(key.submitter).or_default();
        let before = of_submitter.len();
        let mark = of_submitter.entry(key.id).or_insert((until, death));
        mark.0 = mark.0.max(until);
        self.len += of_submitter.len() - before;
    }

    pub(crate) fn get(&self, key: &UnitKey) -> Option<Death> {
        self.dead.get(&key.submitter)?.get(&key.id).map(|(_, death)| *death)
    }

    /// The number of dead keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of dead keys of one submitter.
    pub(crate) fn count(&self, submitter: &NodeId) -> usize {
        self.dead.get(submitter).map_or(0, BTreeMap::len)
    }

    /// All of them, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnitKey, UnitTime, Death)> {
        self.dead.iter().flat_map(|(submitter, ids)| {
            let key = |id: &Uuid| UnitKey { submitter: submitter.clone(), id: *id };
            ids.iter().map(move |(id, (until, death))| (key(id), *until, *death))
        })
    }

    /// Forgets those whose time has passed.
    pub(crate) fn expire(&mut self, now: UnitTime) {
        self.dead.retain(|_, ids| {
            ids.retain(|_, (until, _)| *until > now);
            !ids.is_empty()
        });
        self.len = self.dead.values().map(BTreeMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(submitter: &str, n: u128) -> UnitKey {
        UnitKey::new(&submitter.parse().unwrap(), Uuid::from_u128(n))
    }

    #[test]
    fn keys_are_counted_for_each_submitter_until_they_expire() {
        let mut dead = Tombstones::default();
        dead.insert(key("a", 1), UnitTime(10), Death::Removed);
        dead.insert(key("a", 2), UnitTime(20), Death::NeverAccepted);
        dead.insert(key("b", 1), UnitTime(10), Death::Removed);
        // The later time of two marks counts, and the first reason.
        dead.insert(key("a", 1), UnitTime(15), Death::NeverAccepted);
        let counts = |dead: &Tombstones| {
            (dead.len(), dead.count(&"a".parse().unwrap()), dead.count(&"b".parse().unwrap()))
        };
        assert_eq!(counts(&dead), (3, 2, 1));
        dead.expire(UnitTime(10));
        assert_eq!(counts(&dead), (2, 2, 0));
        assert_eq!((dead.get(&key("a", 1)), dead.get(&key("b", 1))), (Some(Death::Removed), None));
        dead.expire(UnitTime(20));
        assert_eq!((counts(&dead), dead.iter().count()), ((0, 0, 0), 0));
        assert!(dead.dead.is_empty());
    }
}
