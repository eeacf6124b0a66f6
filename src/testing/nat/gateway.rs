//! A NAT or a firewall as the network has it: what it translates, and between which networks it
//! stands.

use super::behaviour::{Blocked, Mapping, NatBehaviour};
use super::transit::Side;
use super::translation::TranslationTable;
use crate::rng::SplitMix64;
use crate::testing::delivery::inbox::Parcel;
use crate::testing::spot::Realm;
use std::net::IpAddr;
use tokio::time::Instant;

/// A NAT or a firewall.
#[derive(Debug)]
pub(in crate::testing) struct Gateway {
    pub(in crate::testing) behaviour: NatBehaviour,
    pub(in crate::testing) blocked: Option<Blocked>,
    /// Its address outside. A firewall has none, and those inside keep theirs.
    pub(in crate::testing) address: IpAddr,
    pub(in crate::testing) outer: Realm,
    pub(in crate::testing) inner: Realm,
    pub(in crate::testing) table: TranslationTable,
    /// How many addresses were given out inside.
    pub(in crate::testing) hosts: u16,
    pub(in crate::testing) nats: u16,
}

/// Why a NAT keeps a datagram for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Kept {
    /// It has another address by now.
    Unreachable,
    /// No mapping, not from whom the filter lets in, blocked, or back where it came from without
    /// hairpinning.
    Filtered,
}

impl Gateway {
    /// Translates a datagram that has come from one side, and says into which network it goes on.
    pub(in crate::testing) fn translate(
        &mut self,
        side: Side,
        parcel: &mut Parcel,
        rng: &mut SplitMix64,
        now: Instant,
    ) -> Result<Realm, Kept> {
        match side {
            Side::Inner => {
                let back = self.is_mine(parcel.destination.ip());
                if back && !self.behaviour.hairpin {
                    return Err(Kept::Filtered);
                }
                self.outbound(parcel, rng, now)?;
                if !back {
                    return Ok(self.outer);
                }
            }
            Side::Outer if !self.translates() || self.is_mine(parcel.destination.ip()) => {}
            Side::Outer => return Err(Kept::Unreachable),
        }
        self.inbound(parcel, now)?;
        Ok(self.inner)
    }

    pub(in crate::testing) fn translates(&self) -> bool {
        self.behaviour.mapping != Mapping::Untranslated
    }

    fn is_mine(&self, ip: IpAddr) -> bool {
        self.translates() && ip == self.address
    }

    fn outbound(
        &mut self,
        parcel: &mut Parcel,
        rng: &mut SplitMix64,
        now: Instant,
    ) -> Result<(), Kept> {
        if self.blocked.is_some_and(Blocked::outbound) {
            return Err(Kept::Filtered);
        }
        let pair = (parcel.source, parcel.destination);
        let source = self.table.outbound(&self.behaviour, self.address, pair, rng, now);
        parcel.source = source.ok_or(Kept::Filtered)?;
        Ok(())
    }

    fn inbound(&mut self, parcel: &mut Parcel, now: Instant) -> Result<(), Kept> {
        if self.blocked.is_some_and(Blocked::inbound) {
            return Err(Kept::Filtered);
        }
        let pair = (parcel.source, parcel.destination);
        parcel.destination =
            self.table.inbound(&self.behaviour, pair, now).map_err(|_| Kept::Filtered)?;
        Ok(())
    }
}
