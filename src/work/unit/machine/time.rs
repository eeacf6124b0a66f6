//! The clock by which units are timed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time at one node, in milliseconds since the Unix epoch, from a clock that never goes
/// back.
///
/// Used by that node alone: what travels is the time that remains. A store continues the clock
/// across restarts: it starts at the later of the system clock and the last journal entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UnitTime(pub(crate) u64);

impl UnitTime {
    /// The time in so many milliseconds.
    #[must_use]
    pub(crate) const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long it is until another time. Zero if that has passed.
    #[must_use]
    pub(crate) const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}
