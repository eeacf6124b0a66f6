//! How many bytes a connection may have received that nobody has read yet.
//!
//! quinn gives each stream a window of [`STREAM_WINDOW`], which cannot be changed once the
//! connection exists, and each connection a window for all of its streams together, which can only
//! grow: credit that was announced cannot be taken back (RFC 9000 §4.1). So a connection begins
//! with room for one stream that is not read, and a quarter more for others:
//!
//! ```text
//!   streams that stay for SETTLE ─▶ more than there is room for ─▶ grow: one stream window each
//!                                                                  │
//!                                   at most `per_peer` a caller ───┤
//!                                   half of what is left of `all` ─┘
//! ```
//!
//! As long as it can grow, no number of slow readers delays another stream. At its limit, the
//! window is what the streams have together, and each one's part shrinks with their number: quinn's
//! senders take turns. Others' connections have windows of their own.
//!
//! The budget is halved with each taker, so that a node with many greedy peers has something left
//! for the next. What a connection has got it keeps, since the credit is out, until it ends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::Notify;

use super::connection::Connection;
use super::status::ReceiveWindowStatus;
use super::usage::Usage;
use crate::id::NodeId;
use crate::transport::settings::{FIRST_WINDOW, ReceiveLimits, STREAM_WINDOW};

/// How long streams have to stay before the window grows for them: most calls are over by then.
const SETTLE: Duration = Duration::from_millis(50);
/// Interval of attempts while the limits do not let the window grow.
const RETRY: Duration = Duration::from_secs(1);
/// Growth below this many bytes is not worth a frame.
const LEAST_GROWTH: u64 = 64 * 1024;

/// The receive windows of a node's connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveBudget(Arc<Mutex<Budget>>);

/// What the connections have got.
#[derive(Debug)]
struct Budget {
    limits: ReceiveLimits,
    /// Bytes of the windows beyond the first ones.
    given: u64,
    /// The windows of all connections by peer, without the suffix of its id.
    peers: BTreeMap<NodeId, u64>,
    /// How often the limits were met.
    limited: u64,
}

/// The receive window of one connection, which ends with this.
#[derive(Debug)]
struct Window {
    budget: ReceiveBudget,
    peer: NodeId,
    bytes: u64,
}

/// Wakes the task that grows a window.
#[derive(Debug, Default)]
pub(crate) struct WindowNeed {
    /// Streams that the window has room for if none is read.
    fits: AtomicUsize,
    more: Notify,
}

impl WindowNeed {
    /// Notes that one end of the connection has this many streams open.
    pub(crate) fn note(&self, streams: usize) {
        // The other end may have some as well, so the exact look comes later.
        if streams >= self.fits.load(Ordering::Relaxed) {
            self.more.notify_one();
        }
    }
}

impl Budget {
    /// A connection has come up.
    fn enter(&mut self, peer: NodeId) {
        *self.peers.entry(peer).or_default() += FIRST_WINDOW;
    }

    /// The part of `wanted` that a peer's window may grow by.
    fn take(&mut self, peer: &NodeId, wanted: u64) -> u64 {
        let Some(own) = self.peers.get_mut(peer) else { return 0 };
        let left = self.limits.all.saturating_sub(self.given);
        let more = wanted.min(self.limits.per_peer.saturating_sub(*own)).min(left / 2);
        if more < wanted {
            self.limited += 1;
        }
        if more < LEAST_GROWTH {
            return 0;
        }
        *own += more;
        self.given += more;
        more
    }

    /// A connection with a window of this size has ended.
    fn leave(&mut self, peer: &NodeId, window: u64) {
        self.given = self.given.saturating_sub(window.saturating_sub(FIRST_WINDOW));
        let Some(own) = self.peers.get_mut(peer) else { return };
        *own = own.saturating_sub(window);
        if *own == 0 {
            self.peers.remove(peer);
        }
    }
}

impl ReceiveBudget {
    pub(crate) fn new(limits: ReceiveLimits) -> Self {
        Self(Arc::new(Mutex::new(Budget { limits, given: 0, peers: BTreeMap::new(), limited: 0 })))
    }

    /// Grows the window of a connection with its need, as long as this is polled; then the window
    /// is free for others.
    pub(super) async fn follow(&self, connection: &Connection, peer: &NodeId, usage: &Usage) -> Infallible {
        let mut window = Window::new(self.clone(), peer.base());
        let need = connection.need();
        loop {
            need.more.notified().await;
            let mut pause = SETTLE;
            loop {
                tokio::time::sleep(pause).await;
                let wanted = needed(usage.streams());
                if wanted <= window.bytes {
                    break;
                }
                pause = if window.grow(wanted) { SETTLE } else { RETRY };
                connection.set_receive_window(VarInt::from_u64(window.bytes).unwrap_or(VarInt::MAX));
                let fits = window.bytes.saturating_sub(needed(0)) / STREAM_WINDOW;
                need.fits.store(usize::try_from(fits).unwrap_or(usize::MAX), Ordering::Relaxed);
            }
        }
    }

    /// What status shows.
    pub(super) fn status(&self) -> ReceiveWindowStatus {
        let budget = self.lock();
        ReceiveWindowStatus { bytes: budget.peers.values().sum(), limited: budget.limited }
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        // Every change behind the lock is whole, so a panic elsewhere has not spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window in which this many streams that are not read leave something for others.
fn needed(streams: usize) -> u64 {
    (streams as u64).saturating_mul(STREAM_WINDOW).saturating_add(FIRST_WINDOW - STREAM_WINDOW)
}

impl Window {
    fn new(budget: ReceiveBudget, peer: NodeId) -> Self {
        budget.lock().enter(peer.clone());
        Self { budget, peer, bytes: FIRST_WINDOW }
    }

    /// Grows towards `wanted` bytes; whether it has got there.
    fn grow(&mut self, wanted: u64) -> bool {
        self.bytes += self.budget.lock().take(&self.peer, wanted.saturating_sub(self.bytes));
        self.bytes >= wanted
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.lock().leave(&self.peer, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget() -> ReceiveBudget {
        ReceiveBudget::new(ReceiveLimits { per_peer: 48 * MIB, all: 256 * MIB })
    }

    fn window(budget: &ReceiveBudget, peer: &str) -> Window {
        Window::new(budget.clone(), peer.parse::<NodeId>().unwrap().base())
    }

    #[test]
    fn a_peer_gets_its_limit_however_many_connections_and_suffixes_it_has() {
        let budget = budget();
        let mut first = window(&budget, "me~1");
        assert!(first.grow(20 * MIB) && !first.grow(1_000 * MIB));
        let mut second = window(&budget, "me~2");
        assert!(!second.grow(1_000 * MIB));
        assert_eq!((first.bytes + second.bytes, second.bytes), (48 * MIB + FIRST_WINDOW, FIRST_WINDOW));
        drop(first);
        assert!(second.grow(48 * MIB));
    }

    #[test]
    fn greedy_peers_leave_something_for_the_next_and_all_together_are_bounded() {
        let budget = budget();
        let mut windows: Vec<Window> = Vec::new();
        for n in 0..64 {
            let mut greedy = window(&budget, &format!("n{n}"));
            greedy.grow(1_000 * MIB);
            windows.push(greedy);
            let total = budget.status().bytes;
            assert!(total <= 256 * MIB + 64 * FIRST_WINDOW, "{total}");
        }
        assert!(windows[..4].iter().all(|window| window.bytes >= 40 * MIB));
        assert!(windows[8].bytes > FIRST_WINDOW);
        drop(windows);
        assert_eq!(budget.status().bytes, 0);
        assert_eq!(budget.lock().given, 0);
    }
}
