//! Which hosts cannot hear which.

use std::{collections::BTreeSet, net::IpAddr};

/// Which hosts cannot hear which. Addresses are canonical.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// From the first to the second.
    pairs: BTreeSet<(IpAddr, IpAddr)>,
    isolated: BTreeSet<IpAddr>,
}

impl Cuts {
    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.pairs.insert((from, to));
    }

    pub(super) fn restore(&mut self, from: IpAddr, to: IpAddr) {
        self.pairs.remove(&(from, to));
    }

    pub(super) fn isolate(&mut self, host: IpAddr) {
        self.isolated.insert(host);
    }

    pub(super) fn rejoin(&mut self, host: IpAddr) {
        self.isolated.remove(&host);
    }

    pub(super) fn blocks(&self, from: IpAddr, to: IpAddr) -> bool {
        self.pairs.contains(&(from, to)) || self.isolated.contains(&from) || self.isolated.contains(&to)
    }
}
