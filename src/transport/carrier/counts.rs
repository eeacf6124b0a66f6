//! What became of a node's carriers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The carriers of a node: TCP connections that carry its UDP payloads. The counts only grow,
/// except for the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CarrierStatus {
    /// Carriers that are open.
    pub open: usize,
    /// TCP connections from outside on which the TLS handshake failed, or took too long.
    pub tls_failed: u64,
    /// Those that wanted another protocol, and got an HTTP response with the status 404.
    pub not_found: u64,
    /// Those that were closed because no link came about on them in time.
    pub without_link: u64,
    /// Carriers that were closed for a frame that is empty or longer than any packet.
    pub bad_frames: u64,
    /// Carriers that were closed because they received nothing for 90 s.
    pub idle: u64,
    /// Packets that were dropped because the queue of a carrier was full.
    pub queue_full: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct CarrierCounters {
    pub(crate) tls_failed: AtomicU64,
    pub(crate) not_found: AtomicU64,
    pub(crate) without_link: AtomicU64,
    pub(crate) bad_frames: AtomicU64,
    pub(crate) idle: AtomicU64,
    pub(crate) queue_full: AtomicU64,
}

impl CarrierCounters {
    pub(super) fn status(&self, open: usize) -> CarrierStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CarrierStatus {
            open,
            tls_failed: read(&self.tls_failed),
            not_found: read(&self.not_found),
            without_link: read(&self.without_link),
            bad_frames: read(&self.bad_frames),
            idle: read(&self.idle),
            queue_full: read(&self.queue_full),
        }
    }
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
