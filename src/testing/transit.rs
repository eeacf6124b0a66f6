//! What is on its way to a NAT: it decides when a datagram reaches it, not when that was sent.

use super::{gateway::GatewayId, inbox::Parcel, spot::Spot};
use std::{collections::BTreeMap, task::Waker};
use tokio::time::Instant;

/// Bytes that may be on their way to the NATs of one network.
const MAX_BYTES: usize = 64 << 20;

/// Datagrams between their sender, or one NAT, and the next NAT.
#[derive(Debug, Default)]
pub(super) struct Transit {
    /// By arrival, and among simultaneous ones by order of sending.
    legs: BTreeMap<(Instant, u64), Leg>,
    bytes: usize,
    waker: Option<Waker>,
}

/// One datagram.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) from: Spot,
    pub(super) to: Spot,
    pub(super) gateway: GatewayId,
    pub(super) side: Side,
    pub(super) parcel: Parcel,
}

/// From where a NAT gets a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inner,
    Outer,
}

impl Transit {
    /// Puts a datagram on its way. False if too much is on its way already.
    pub(super) fn push(&mut self, due: Instant, sequence: u64, leg: Leg) -> bool {
        let len = leg.parcel.contents.len();
        if self.bytes + len > MAX_BYTES {
            return false;
        }
        self.bytes += len;
        self.legs.insert((due, sequence), leg);
        true
    }

    /// The next datagram that has arrived by now, and when it did.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, Leg)> {
        let first = self.legs.first_entry().filter(|first| first.key().0 <= now)?;
        let ((due, _), leg) = first.remove_entry();
        self.bytes -= leg.parcel.contents.len();
        Some((due, leg))
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.legs.first_key_value().map(|((due, _), _)| *due)
    }

    pub(super) fn len(&self) -> usize {
        self.legs.len()
    }

    /// Takes what is between two such hosts off the wire, and says how many that were.
    pub(super) fn intercept(&mut self, between: impl Fn(Spot, Spot) -> bool) -> u64 {
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

    /// Remembers whom to wake. The waker it replaces is for the caller to drop, outside of any lock.
    pub(super) fn register(&mut self, waker: &Waker) -> Option<Waker> {
        self.waker.replace(waker.clone())
    }

    /// Whom to wake, if anyone waits. For the caller to wake outside of any lock.
    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl Drop for Transit {
    /// Whoever waits sees that the network is gone.
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
