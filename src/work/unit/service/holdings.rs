//! How many units and bytes are kept for whom.

use std::collections::BTreeMap;

use super::super::api::UnitLimits;
use super::super::key::UnitKey;
use crate::id::NodeId;

/// How many units and bytes, payloads and output, are kept for whom.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    units: BTreeMap<UnitKey, u64>,
    by_submitter: BTreeMap<NodeId, Held>,
    all: Held,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    units: usize,
    bytes: u64,
}

impl Holdings {
    /// Whether a unit with this payload may be kept beside those that are.
    pub(super) fn admits(&self, submitter: &NodeId, payload: u64, limits: &UnitLimits) -> bool {
        let own = self.by_submitter.get(submitter).copied().unwrap_or_default();
        self.all.units < limits.max_units
            && own.units < limits.max_units_per_submitter
            && self.all.bytes.saturating_add(payload) <= limits.max_bytes
            && own.bytes.saturating_add(payload) <= limits.max_bytes_per_submitter
    }

    /// Counts a unit with what it occupies.
    pub(super) fn insert(&mut self, key: &UnitKey, bytes: u64) {
        self.remove(key);
        self.units.insert(key.clone(), bytes);
        for held in [&mut self.all, self.by_submitter.entry(key.submitter.clone()).or_default()] {
            held.units += 1;
            held.bytes += bytes;
        }
    }

    /// Counts what a unit occupies from now on.
    pub(super) fn set(&mut self, key: &UnitKey, bytes: u64) {
        if self.units.contains_key(key) {
            self.insert(key, bytes);
        }
    }

    /// Counts a unit no longer.
    pub(super) fn remove(&mut self, key: &UnitKey) {
        let Some(bytes) = self.units.remove(key) else { return };
        self.all.units -= 1;
        self.all.bytes -= bytes;
        let Some(held) = self.by_submitter.get_mut(&key.submitter) else { return };
        held.units -= 1;
        held.bytes -= bytes;
        if held.units == 0 {
            self.by_submitter.remove(&key.submitter);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(submitter: &str, n: u128) -> UnitKey {
        UnitKey::new(&submitter.parse().unwrap(), Uuid::from_u128(n))
    }

    #[test]
    fn each_limit_holds_for_one_submitter_and_for_all() {
        let limits = UnitLimits {
            max_units: 3,
            max_units_per_submitter: 2,
            max_bytes: 100,
            max_bytes_per_submitter: 60,
            ..UnitLimits::default()
        };
        let mut held = Holdings::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        held.insert(&key("a", 1), 40);
        assert!(held.admits(&a, 20, &limits) && !held.admits(&a, 21, &limits));
        held.insert(&key("a", 2), 0);
        assert!(!held.admits(&a, 0, &limits) && held.admits(&b, 60, &limits));
        held.set(&key("a", 2), 50);
        assert!(!held.admits(&b, 11, &limits) && held.admits(&b, 10, &limits));
        held.insert(&key("b", 3), 0);
        assert!(!held.admits(&b, 0, &limits));
        for n in 1..=2 {
            held.remove(&key("a", n));
        }
        held.remove(&key("b", 3));
        assert!(held.by_submitter.is_empty() && held.all == Held::default());
    }
}
