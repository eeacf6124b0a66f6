//! Which hosts cannot hear which.

use super::spot::Spot;
use std::collections::BTreeSet;

/// Which hosts cannot hear which.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// From the first to the second.
    pairs: BTreeSet<(Spot, Spot)>,
    isolated: BTreeSet<Spot>,
}

impl Cuts {
    pub(super) fn cut(&mut self, from: Spot, to: Spot) {
        self.pairs.insert((from, to));
    }

    pub(super) fn restore(&mut self, from: Spot, to: Spot) {
        self.pairs.remove(&(from, to));
    }

    pub(super) fn isolate(&mut self, host: Spot) {
        self.isolated.insert(host);
    }

    pub(super) fn rejoin(&mut self, host: Spot) {
        self.isolated.remove(&host);
    }

    pub(super) fn blocks(&self, from: Spot, to: Spot) -> bool {
        self.pairs.contains(&(from, to))
            || self.isolated.contains(&from)
            || self.isolated.contains(&to)
    }
}
