//! Gives up peers that have become unreachable.
//!
//! A peer connection outlives a relay's death and restart, so its own idle timeout is long. But
//! where the mesh has no route to the node and no packet of it has arrived for the patience, nobody
//! has a reason to wait for that timeout:
//!
//! ```text
//!   packets received ─▶ Silence ─ unheard for the patience ─┐
//!                                                           ├─▶ give up
//!   routes, direct paths ─────── none for ROUTE_GRACE ──────┘
//! ```
//!
//! Silence counts from the last packet, not from the loss of the route: a mesh takes up to 5 s to
//! notice a silent death, and callers should not wait that time twice.

use std::time::{Duration, Instant};

use crate::mesh::services::patience::Absence;

/// How long the route has to be missing. A link that is replaced, or a record that overtakes
/// another, may hide it for a moment.
const ROUTE_GRACE: Duration = Duration::from_millis(150);

/// Samples are normally closer than this. Where they are not, this node stood still, and what has
/// arrived in between counts as recent.
const MAX_GAP: Duration = Duration::from_secs(1);

/// When packets of a connection last arrived, to the precision of the samples of their count.
#[derive(Debug)]
pub(super) struct Silence {
    received: u64,
    sampled: Instant,
    /// The sample before the last packet.
    heard: Instant,
    /// Since when there has been no route.
    routeless: Option<Instant>,
}

impl Silence {
    /// Of a connection that has just come up.
    pub(super) fn new(now: Instant) -> Self {
        Self { received: 0, sampled: now, heard: now, routeless: None }
    }

    /// Takes the count of packets received so far; returns for how long none has arrived.
    pub(super) fn sample(&mut self, received: u64, now: Instant) -> Duration {
        let before = std::mem::replace(&mut self.sampled, now);
        if received != self.received {
            self.received = received;
            self.heard = now.checked_sub(MAX_GAP).map_or(before, |recent| before.max(recent));
        }
        self.unheard(now)
    }

    /// For how long no packet has arrived.
    pub(super) fn unheard(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Takes whether there is a route; returns for how long the peer has been absent.
    pub(super) fn absence(&mut self, routed: bool, now: Instant) -> Absence {
        Absence { unheard: self.unheard(now), unreachable: self.unreachable(routed, now) }
    }

    /// For how long the peer has been unreachable: unheard, and without a route.
    fn unreachable(&mut self, routed: bool, now: Instant) -> Option<Duration> {
        if routed {
            self.routeless = None;
            return None;
        }
        let routeless = *self.routeless.get_or_insert(now);
        let settled = now.saturating_duration_since(routeless) >= ROUTE_GRACE;
        settled.then(|| self.unheard(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_counts_from_the_last_packet() {
        let start = crate::mesh::clock::now();
        let mut silence = Silence::new(start);
        assert_eq!(silence.sample(0, start + SECOND), SECOND);
        // It came after the sample before.
        assert_eq!(silence.sample(7, start + 2 * SECOND), SECOND);
        assert_eq!(silence.sample(7, start + 5 * SECOND), 4 * SECOND);
    }

    #[test]
    fn packets_that_waited_while_this_node_stood_still_are_recent() {
        let start = crate::mesh::clock::now();
        let mut silence = Silence::new(start);
        assert_eq!(silence.sample(3, start + 60 * SECOND), MAX_GAP);
        assert_eq!(silence.sample(3, start + 61 * SECOND), MAX_GAP + SECOND);
    }

    #[test]
    fn a_route_that_is_missing_for_a_moment_does_not_count() {
        let start = crate::mesh::clock::now();
        let mut silence = Silence::new(start);
        assert_eq!(silence.unreachable(false, start + 6 * SECOND), None);
        assert_eq!(silence.unreachable(true, start + 7 * SECOND), None);
        assert_eq!(silence.unreachable(false, start + 8 * SECOND), None);
        assert_eq!(
            silence.unreachable(false, start + 8 * SECOND + ROUTE_GRACE),
            Some(8 * SECOND + ROUTE_GRACE)
        );
    }
}
