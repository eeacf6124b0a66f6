//! How many units and bytes are kept for whom.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::work::unit::api::UnitLimits;
use crate::work::unit::busy::BusyReason;
use crate::work::unit::key::UnitKey;

/// How many units and bytes, payloads and output, are kept for whom.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Holdings {
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
    /// Checks whether a unit with this payload may be kept beside those that are. What the
    /// submitter itself can change is named first.
    ///
    /// # Errors
    /// The limit that it would exceed.
    pub(in crate::work::unit::service) fn check(
        &self,
        submitter: &NodeId,
        payload: u64,
        limits: &UnitLimits,
    ) -> Result<(), BusyReason> {
        let own = self.of(submitter);
        if own.units >= limits.max_units_per_submitter {
            Err(BusyReason::SubmitterUnits)
        } else if own.bytes.saturating_add(payload) > limits.max_bytes_per_submitter {
            Err(BusyReason::SubmitterBytes)
        } else if self.all.units >= limits.max_units {
            Err(BusyReason::Units)
        } else if self.all.bytes.saturating_add(payload) > limits.max_bytes {
            Err(BusyReason::Bytes)
        } else {
            Ok(())
        }
    }

    /// The number of units of one submitter, and of all.
    pub(in crate::work::unit::service) fn counts(&self, submitter: &NodeId) -> (usize, usize) {
        (self.of(submitter).units, self.all.units)
    }

    fn of(&self, submitter: &NodeId) -> Held {
        self.by_submitter.get(submitter).copied().unwrap_or_default()
    }

    /// Counts a unit with what it occupies.
    pub(in crate::work::unit::service) fn insert(&mut self, key: &UnitKey, bytes: u64) {
        self.remove(key);
        self.units.insert(key.clone(), bytes);
        for held in [&mut self.all, self.by_submitter.entry(key.submitter.clone()).or_default()] {
            held.units += 1;
            held.bytes += bytes;
        }
    }

    /// Counts what a unit occupies from now on.
    pub(in crate::work::unit::service) fn set(&mut self, key: &UnitKey, bytes: u64) {
        if self.units.contains_key(key) {
            self.insert(key, bytes);
        }
    }

    /// Counts a unit no longer.
    pub(in crate::work::unit::service) fn remove(&mut self, key: &UnitKey) {
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
        let check = |held: &Holdings, submitter, payload| held.check(submitter, payload, &limits);
        held.insert(&key("a", 1), 40);
        assert_eq!(check(&held, &a, 20), Ok(()));
        assert_eq!(check(&held, &a, 21), Err(BusyReason::SubmitterBytes));
        held.insert(&key("a", 2), 0);
        assert_eq!(check(&held, &a, 0), Err(BusyReason::SubmitterUnits));
        assert_eq!(check(&held, &b, 60), Ok(()));
        held.set(&key("a", 2), 50);
        assert_eq!(check(&held, &b, 10), Ok(()));
        assert_eq!(check(&held, &b, 11), Err(BusyReason::Bytes));
        held.insert(&key("b", 3), 0);
        assert_eq!(check(&held, &b, 0), Err(BusyReason::Units));
        assert_eq!(held.counts(&b), (1, 3));
        for n in 1..=2 {
            held.remove(&key("a", n));
        }
        held.remove(&key("b", 3));
        assert!(held.by_submitter.is_empty() && held.all == Held::default());
    }
}
