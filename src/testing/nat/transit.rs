//! Datagrams in flight to a NAT, which decides about them on arrival, not when they are sent.

use crate::testing::delivery::inbox::Parcel;
use crate::testing::spot::Spot;
use std::{collections::BTreeMap, task::Waker};
use tokio::time::Instant;

/// Maximum bytes in flight to the NATs of one network.
const MAX_BYTES: usize = 64 << 20;

/// A NAT or a firewall, whatever its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::testing) struct GatewayId(pub(in crate::testing) usize);

/// Datagrams between their sender, or one NAT, and the next NAT.
#[derive(Debug, Default)]
pub(in crate::testing) struct Transit {
    /// By arrival, and among simultaneous ones by order of sending.
    legs: BTreeMap<(Instant, u64), Leg>,
    bytes: usize,
    waker: Option<Waker>,
}

/// One datagram.
#[derive(Debug)]
pub(in crate::testing) struct Leg {
    pub(in crate::testing) from: Spot,
    pub(in crate::testing) to: Spot,
    pub(in crate::testing) gateway: GatewayId,
    pub(in crate::testing) side: Side,
    pub(in crate::testing) parcel: Parcel,
}

/// From where a NAT gets a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Side {
    Inner,
    Outer,
}

impl Transit {
    /// Puts a datagram on its way. False if too much is on its way already.
    pub(in crate::testing) fn push(&mut self, due: Instant, sequence: u64, leg: Leg) -> bool {
        let len = leg.parcel.contents.len();
        if self.bytes + len > MAX_BYTES {
            return false;
        }
        self.bytes += len;
        self.legs.insert((due, sequence), leg);
        true
    }

    /// The next datagram that has arrived by now, and when it did.
    pub(in crate::testing) fn pop(&mut self, now: Instant) -> Option<(Instant, Leg)> {
        let first = self.legs.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, _), leg) = first.remove_entry();
        self.bytes -= leg.parcel.contents.len();
        Some((due, leg))
    }

    pub(in crate::testing) fn next_due(&self) -> Option<Instant> {
        self.legs.first_key_value().map(|((due, _), _)| *due)
    }

    pub(in crate::testing) fn len(&self) -> usize {
        self.legs.len()
    }

    /// Takes what is between two such hosts off the wire, and says how many that were.
    pub(in crate::testing) fn intercept(&mut self, between: impl Fn(Spot, Spot) -> bool) -> u64 {
        let before = self.legs.len();
        let bytes = &mut self.bytes;
        self.legs.retain(|_, leg| {
            let stays = !between(leg.from, leg.to);
            if !stays {
                *bytes -= leg.parcel.contents.len();
            }
            stays
        });
        (before - self.legs.len()) as u64
    }

    /// Remembers whom to wake. The waker it replaces is for the caller to drop, outside of any
    /// lock.
    pub(in crate::testing) fn register(&mut self, waker: &Waker) -> Option<Waker> {
        self.waker.replace(waker.clone())
    }

    /// Whom to wake, if anyone waits. For the caller to wake outside of any lock.
    pub(in crate::testing) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl Drop for Transit {
    /// Wakes the waiting task when the network is dropped.
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
