//! How peer connections are closed: unused, at a shutdown, or since the peer has restarted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::Side;

use super::Peers;
use super::slot::Kept;
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::services::ending::{Cause, EndReason};
use crate::sync::lock;
use crate::transport::code::CloseCode;

/// Sweeps that a connection survives without any use at the end that opened it. The other end waits
/// twice as long, so that the two do not close it while one of them begins to use it.
const IDLE_SWEEPS: u32 = 4;
/// A connection younger than this, when the peer's new record comes, is with the new process.
const RESTART_WINDOW: Duration = Duration::from_secs(1);
/// How long the farewells have to reach the peers: a round trip, within bounds.
const FAREWELL_AT_LEAST: Duration = Duration::from_millis(20);
const FAREWELL_AT_MOST: Duration = Duration::from_millis(500);

impl Peers {
    /// Closes the connections that have been idle for a while, and forgets the peers without any.
    /// To be called every [`SWEEP`](super::SWEEP).
    pub(crate) fn sweep(&self) {
        let mut gone = Vec::new();
        let mut slots = lock(&self.slots);
        for (node, slot) in slots.iter() {
            // Asked both, so that what was noted counts for one sweep only.
            if slot.usage.take_noted() | slot.usage.in_use() {
                slot.idle_sweeps.store(0, Ordering::Relaxed);
                continue;
            }
            let idle = slot.idle_sweeps.fetch_add(1, Ordering::Relaxed);
            let mut connections = lock(&slot.connections);
            connections.retain(|kept| {
                let opened = kept.connection.side() == Side::Client;
                if idle >= if opened { IDLE_SWEEPS } else { 2 * IDLE_SWEEPS } {
                    kept.connection.close(CloseCode::Idle, "idle");
                }
                kept.is_live()
            });
            if connections.is_empty() {
                gone.push(node.clone());
            }
        }
        for node in gone {
            slots.remove(&node);
            self.endpoint.socket().untrack(node.addr());
        }
    }

    /// Says farewell to every peer, while the links are up: the packets that say so travel over
    /// them, and are given the time for that.
    pub(crate) async fn close(&self) {
        let mut farthest = None;
        for slot in lock(&self.slots).values() {
            for Kept { connection, .. } in lock(&slot.connections).iter() {
                connection.close(CloseCode::Leaving, "leaving");
                farthest = farthest.max(Some(connection.rtt()));
            }
        }
        if let Some(rtt) = farthest {
            tokio::time::sleep(rtt.clamp(FAREWELL_AT_LEAST, FAREWELL_AT_MOST)).await;
        }
    }

    /// Closes every connection with this code, and waits for nothing.
    pub(crate) fn close_now(&self, code: CloseCode, why: &str) {
        for slot in lock(&self.slots).values() {
            for Kept { connection, .. } in lock(&slot.connections).iter() {
                connection.close(code, why);
            }
        }
    }

    /// Closes every connection with this code, those to come included, and waits for nothing.
    pub(crate) fn shut(&self, code: CloseCode, why: &str) {
        self.shut.store(true, Ordering::Relaxed);
        for slot in lock(&self.slots).values() {
            for kept in lock(&slot.connections).iter().filter(|kept| kept.is_live()) {
                kept.connection.close(code, why);
            }
        }
    }

    /// The node has another process than before: what is connected to the one before is closed,
    /// since whoever opened a stream on it would wait for its end. What is connected just now is
    /// the new process's.
    pub(crate) fn restarted(&self, node: &NodeId) {
        let Some(slot) = lock(&self.slots).get(node).cloned() else { return };
        let lately = clock::now().checked_sub(RESTART_WINDOW);
        for kept in lock(&slot.connections).iter() {
            if lately.is_some_and(|lately| kept.since < lately) {
                let restarted = Cause::other(EndReason::Restarted);
                kept.connection.close_because(
                    restarted,
                    CloseCode::Replaced,
                    "the peer has restarted",
                );
            }
        }
    }
}
