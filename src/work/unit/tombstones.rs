//! Keys of units that must no longer be accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::UnitTime;
use super::key::UnitKey;

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
    dead: BTreeMap<UnitKey, (UnitTime, Death)>,
}

impl Tombstones {
    /// Marks a key as dead, until the later of this time and that of an earlier mark.
    pub(crate) fn insert(&mut self, key: UnitKey, until: UnitTime, death: Death) {
        let mark = self.dead.entry(key).or_insert((until, death));
        mark.0 = mark.0.max(until);
    }

    pub(crate) fn get(&self, key: &UnitKey) -> Option<Death> {
        self.dead.get(key).map(|(_, death)| *death)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.dead.len()
    }

    /// All of them, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&UnitKey, UnitTime, Death)> {
        self.dead.iter().map(|(key, (until, death))| (key, *until, *death))
    }

    /// Forgets those whose time has passed, and returns their keys.
    pub(crate) fn expire(&mut self, now: UnitTime) -> Vec<UnitKey> {
        let (gone, kept) =
            std::mem::take(&mut self.dead).into_iter().partition(|(_, (until, _))| *until <= now);
        self.dead = kept;
        let gone: BTreeMap<UnitKey, (UnitTime, Death)> = gone;
        gone.into_keys().collect()
    }
}
