//! Which hosts cannot hear which.

use crate::testing::spot::Spot;
use std::collections::BTreeSet;

/// Which hosts cannot hear which.
#[derive(Debug, Default)]
pub(in crate::testing) struct Cuts {
    /// From the first to the second.
    pairs: BTreeSet<(Spot, Spot)>,
    isolated: BTreeSet<Spot>,
}

impl Cuts {
    pub(in crate::testing) fn cut(&mut self, from: Spot, to: Spot) {
        self.pairs.insert((from, to));
    }

    pub(in crate::testing) fn restore(&mut self, from: Spot, to: Spot) {
        self.pairs.remove(&(from, to));
    }

    pub(in crate::testing) fn isolate(&mut self, host: Spot) {
        self.isolated.insert(host);
    }

    pub(in crate::testing) fn rejoin(&mut self, host: Spot) {
        self.isolated.remove(&host);
    }

    pub(in crate::testing) fn blocks(&self, from: Spot, to: Spot) -> bool {
        self.pairs.contains(&(from, to))
            || self.isolated.contains(&from)
            || self.isolated.contains(&to)
    }
}
