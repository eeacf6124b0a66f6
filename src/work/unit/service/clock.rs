//! The clock of a node's units.

use std::time::Instant;

use crate::mesh::clock;
use crate::work::unit::machine::time::UnitTime;

/// The clock of a node's units: it never goes back, not even across a restart.
///
/// It starts at the later of the system's clock and the newest entry of any journal, and follows
/// the monotonic clock from then on.
#[derive(Debug)]
pub(super) struct UnitClock {
    base: UnitTime,
    started: Instant,
}

impl UnitClock {
    /// A clock that is not behind this entry.
    pub(super) fn new(newest_entry: UnitTime) -> Self {
        let base = newest_entry.max(UnitTime(clock::unix_ms()));
        Self { base, started: clock::now() }
    }

    pub(super) fn now(&self) -> UnitTime {
        let passed = clock::now().saturating_duration_since(self.started);
        self.base.plus(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}
