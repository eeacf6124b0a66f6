//! How good the way from one host to another is: access links and what lies between them.

use super::lane::{Fate, Lane};
use crate::rng::SplitMix64;
use crate::testing::quality::LinkQuality;
use crate::testing::spot::{Realm, Spot};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Qualities, and what is on the wires.
#[derive(Debug, Default)]
pub(in crate::testing) struct Wires {
    /// Of links that have none of their own; a realm that is not named has the default one.
    defaults: BTreeMap<Realm, LinkQuality>,
    /// By direction: from the first host to the second.
    qualities: BTreeMap<(Spot, Spot), LinkQuality>,
    lanes: BTreeMap<(Spot, Spot), Lane>,
    access: BTreeMap<Spot, AccessLink>,
}

/// What one host has between itself and everything else, shared by all that it sends and receives.
#[derive(Debug, Default)]
struct AccessLink {
    up: (LinkQuality, Lane),
    down: (LinkQuality, Lane),
}

impl Wires {
    /// When a datagram arrives that is sent now, if it does.
    pub(in crate::testing) fn carry(
        &mut self,
        (from, to): (Spot, Spot),
        len: usize,
        rng: &mut SplitMix64,
        now: Instant,
    ) -> Fate {
        let mut at = now;
        let up = self.access.get_mut(&from).map(|access| &mut access.up);
        if let Some((quality, lane)) = up {
            match lane.send(len, quality, rng, at) {
                Fate::Arrives(due) => at = due,
                lost => return lost,
            }
        }
        let usual = self.defaults.get(&from.realm).copied().unwrap_or_default();
        let quality = self.qualities.get(&(from, to)).unwrap_or(&usual);
        match self.lanes.entry((from, to)).or_default().send(len, quality, rng, at) {
            Fate::Arrives(due) => at = due,
            lost => return lost,
        }
        match self.access.get_mut(&to).map(|access| &mut access.down) {
            Some((quality, lane)) => lane.send(len, quality, rng, at),
            None => Fate::Arrives(at),
        }
    }

    pub(in crate::testing) fn set_default(&mut self, realm: Realm, quality: LinkQuality) {
        self.defaults.insert(realm, quality);
    }

    pub(in crate::testing) fn set_quality(&mut self, from: Spot, to: Spot, quality: LinkQuality) {
        self.qualities.insert((from, to), quality);
    }

    pub(in crate::testing) fn set_access(
        &mut self,
        host: Spot,
        up: LinkQuality,
        down: LinkQuality,
    ) {
        let access = self.access.entry(host).or_default();
        (access.up.0, access.down.0) = (up, down);
    }

    /// A host keeps its access link under another address.
    pub(in crate::testing) fn move_access(&mut self, from: Spot, to: Spot) {
        if let Some(access) = self.access.remove(&from) {
            self.access.insert(to, access);
        }
    }

    /// Keeps the table of lanes no larger than the square of the hosts there are.
    pub(in crate::testing) fn forget_lanes(&mut self, host: Spot) {
        self.lanes.retain(|(from, to), _| *from != host && *to != host);
    }
}
