//! Bytes that connections may hold for their peers, divided among them.
//!
//! Every connection has its first window. What it gets beyond that comes from one budget:
//!
//! ```text
//!   grow ─▶ at most `per_peer` for all connections of a certificate
//!         ─▶ at most half of what is left of `all`
//! ```
//!
//! The budget is halved with each taker, so that a node with many greedy peers has something left
//! for the next. A connection keeps what it got until it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::id::NodeId;
use crate::mesh::report::status::WindowStatus;
use crate::sync::lock;

/// Growth below this many bytes is not worth the effort.
const MIN_GROWTH: u64 = 64 * 1024;

/// How large windows may become, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WindowLimits {
    /// What every connection has.
    pub(crate) first: u64,
    /// All connections of one peer, their first windows included.
    pub(crate) per_peer: u64,
    /// All connections together, beyond their first windows.
    pub(crate) all: u64,
}

/// The windows of a node's connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct WindowBudget(Arc<Mutex<Budget>>);

#[derive(Debug)]
struct Budget {
    limits: WindowLimits,
    /// Bytes beyond the first windows.
    given: u64,
    /// Bytes of all windows by peer, without the suffix of its id.
    peers: BTreeMap<NodeId, u64>,
    /// How often a window could not grow as far as it needed.
    limited: u64,
}

/// The window of one connection. Dropped, it is free for others.
#[derive(Debug)]
pub(crate) struct Window {
    budget: WindowBudget,
    peer: NodeId,
    bytes: u64,
}

impl WindowBudget {
    pub(crate) fn new(limits: WindowLimits) -> Self {
        Self(Arc::new(Mutex::new(Budget { limits, given: 0, peers: BTreeMap::new(), limited: 0 })))
    }

    /// The first window of a connection that has come up.
    pub(crate) fn enter(&self, peer: &NodeId) -> Window {
        let peer = peer.base();
        let mut budget = self.lock();
        let bytes = budget.limits.first;
        *budget.peers.entry(peer.clone()).or_default() += bytes;
        Window { budget: self.clone(), peer, bytes }
    }

    /// What status shows.
    pub(crate) fn status(&self) -> WindowStatus {
        let budget = self.lock();
        WindowStatus { bytes: budget.peers.values().sum(), limited: budget.limited }
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        lock(&self.0)
    }
}

impl Budget {
    /// The part of `wanted` that a peer's window may grow by.
    fn take(&mut self, peer: &NodeId, wanted: u64) -> u64 {
        let Some(own) = self.peers.get_mut(peer) else { return 0 };
        let left = self.limits.all.saturating_sub(self.given);
        let more = wanted.min(self.limits.per_peer.saturating_sub(*own)).min(left / 2);
        if more < wanted {
            self.limited += 1;
        }
        if more < MIN_GROWTH {
            return 0;
        }
        *own += more;
        self.given += more;
        more
    }

    /// A connection with a window of this size has ended.
    fn leave(&mut self, peer: &NodeId, window: u64) {
        self.given = self.given.saturating_sub(window.saturating_sub(self.limits.first));
        let Some(own) = self.peers.get_mut(peer) else { return };
        *own = own.saturating_sub(window);
        if *own == 0 {
            self.peers.remove(peer);
        }
    }
}

impl Window {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows towards `wanted` bytes; whether it has that many now.
    pub(crate) fn grow(&mut self, wanted: u64) -> bool {
        let more = wanted.saturating_sub(self.bytes);
        if more > 0 {
            self.bytes += self.budget.lock().take(&self.peer, more);
        }
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
    const FIRST: u64 = MIB;

    fn budget() -> WindowBudget {
        WindowBudget::new(WindowLimits { first: FIRST, per_peer: 48 * MIB, all: 256 * MIB })
    }

    fn window(budget: &WindowBudget, peer: &str) -> Window {
        budget.enter(&peer.parse().unwrap())
    }

    #[test]
    fn a_peer_gets_its_limit_however_many_connections_and_suffixes_it_has() {
        let budget = budget();
        let mut first = window(&budget, "me~1");
        assert!(first.grow(20 * MIB) && !first.grow(1_000 * MIB));
        let mut second = window(&budget, "me~2");
        assert!(!second.grow(1_000 * MIB));
        assert_eq!((first.bytes + second.bytes, second.bytes), (48 * MIB + FIRST, FIRST));
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
            assert!(total <= 256 * MIB + 64 * FIRST, "{total}");
        }
        assert!(windows[..4].iter().all(|window| window.bytes >= 40 * MIB));
        assert!(windows[8].bytes > FIRST);
        drop(windows);
        assert_eq!(budget.status().bytes, 0);
        assert_eq!(budget.lock().given, 0);
    }

    #[test]
    fn a_window_that_does_not_need_more_is_not_limited() {
        let budget = budget();
        let mut one = window(&budget, "one");
        assert!(one.grow(FIRST) && one.grow(0) && one.grow(2 * MIB));
        assert_eq!(budget.status(), WindowStatus { bytes: 2 * MIB, limited: 0 });
    }
}
