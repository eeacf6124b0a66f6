//! One peer's place: its connections, and who uses them.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connecting::Connecting;
use super::silence::Silence;
use super::unanswered::Unanswered;
use crate::id::NodeAddr;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::ending::{Cause, EndReason};
use crate::mesh::services::patience::{Absence, Patiences};
use crate::mesh::services::usage::Usage;
use crate::sync::lock;
use crate::transport::code::CloseCode;
use crate::transport::congestion::Steering;

/// One peer's place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) connecting: Connecting<Arc<Connection>>,
    /// Oldest first; the oldest live one is used.
    pub(super) connections: Mutex<Vec<Kept>>,
    pub(super) usage: Arc<Usage>,
    pub(super) idle_sweeps: AtomicU32,
}

#[derive(Debug)]
pub(super) struct Kept {
    // Shared, since to clone a connection takes its lock.
    pub(super) connection: Arc<Connection>,
    pub(super) since: Instant,
    pub(super) silence: Silence,
    pub(super) unanswered: Unanswered,
    pub(super) steering: Option<Arc<Steering>>,
    /// The neighbour that packets went to at the last sample.
    pub(super) went_to: Option<NodeAddr>,
}

impl Kept {
    /// Sends a datagram of the mesh itself, even if the congestion window is full of lost packets.
    pub(super) fn signal(&self, message: &'static [u8]) {
        if let Some(steering) = &self.steering {
            steering.grant();
        }
        // Without room for it, others are on their way.
        let _ = self.connection.send_datagram(Bytes::from_static(message));
    }

    /// Restarts congestion control where packets take another first hop than before.
    pub(super) fn follow_path(&mut self, hop: Option<NodeAddr>) {
        if hop.is_none() {
            return;
        }
        let before = std::mem::replace(&mut self.went_to, hop);
        if let Some(steering) = &self.steering
            && before.is_some()
            && before != hop
        {
            steering.restart();
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

impl Slot {
    /// With the peer timeout of streams that have none of their own.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            connecting: Connecting::default(),
            connections: Mutex::default(),
            usage: Arc::new(Usage::of_peer(patience)),
            idle_sweeps: AtomicU32::default(),
        }
    }

    /// Whether the peer is in use, and a stream gives it up in less than `ahead` if there is no
    /// route to it. Forgets the timeouts of streams that have ended.
    pub(super) fn is_silent(&self, last_heard: Duration, ahead: Duration) -> bool {
        // Also asked while the peer is not in use: otherwise the timeouts of short streams pile up.
        let shortest = self.usage.patiences().map_or(Duration::MAX, Patiences::shortest);
        self.usage.in_use() && last_heard >= shortest.saturating_sub(ahead)
    }

    /// Closes the connections that nothing has arrived on for `limit`.
    pub(super) fn close_stale(&self, limit: Duration, now: Instant) {
        for kept in lock(&self.connections).iter().filter(|kept| kept.is_live()) {
            if kept.silence.unheard(now) >= limit {
                kept.connection.close(CloseCode::Unreachable, "nothing arrived in time");
            }
        }
    }

    /// Ends the streams that give up a peer that has been absent for this long, and the connections
    /// whose absence is longer than the most patient stream waits; returns why, if there were any.
    pub(super) fn give_up(
        &self,
        peer: Absence,
        mut of: impl FnMut(&mut Silence) -> Absence,
    ) -> Option<&'static str> {
        let longest = self.usage.patiences()?.give_up(peer);
        let mut closed = None;
        for kept in lock(&self.connections).iter_mut().filter(|kept| kept.is_live()) {
            let Some(why) = of(&mut kept.silence).exceeds(longest) else { continue };
            let (code, text) = match why {
                EndReason::NoRoute => (CloseCode::NoRoute, "no route"),
                _ => (CloseCode::Unreachable, "nothing arrived in time"),
            };
            kept.connection.close_because(Cause::network(why), code, text);
            closed = Some(text);
        }
        closed
    }

    pub(super) fn live(&self) -> Option<Arc<Connection>> {
        lock(&self.connections)
            .iter()
            .find(|kept| kept.is_live())
            .map(|kept| kept.connection.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeouts_are_kept_of_streams_that_have_ended() {
        let slot = Slot::new(Duration::from_secs(5));
        for millis in 1_000..2_000 {
            drop(slot.usage.patience(Some(Duration::from_millis(millis))));
        }
        assert!(!slot.is_silent(Duration::ZERO, Duration::from_secs(1)));
        assert_eq!(slot.usage.patiences().map(Patiences::len), Some(0));
    }
}
