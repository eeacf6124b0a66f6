//! A table of what others hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Entries beyond which those that nobody holds are looked for.
const SWEEP_AT: usize = 64;

/// A table of what others hold. It has at most twice as many entries as were held at the last
/// sweep.
#[derive(Debug)]
pub(super) struct Swept<K, V> {
    entries: BTreeMap<K, Weak<V>>,
    /// The size after the last sweep.
    kept: usize,
}

impl<K, V> Default for Swept<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), kept: 0 }
    }
}

impl<K: Ord, V> Swept<K, V> {
    pub(super) fn insert(&mut self, key: K, value: &Arc<V>) {
        if self.entries.len() >= SWEEP_AT.max(2 * self.kept) {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.kept = self.entries.len();
        }
        self.entries.insert(key, Arc::downgrade(value));
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)?.upgrade()
    }

    /// What is held.
    pub(super) fn held(&self) -> Vec<Arc<V>> {
        self.entries.values().filter_map(Weak::upgrade).collect()
    }
}
