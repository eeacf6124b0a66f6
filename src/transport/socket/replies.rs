//! The neighbours that handshakes arrive through, so that replies take the same path.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use lru::LruCache;

use crate::id::NodeAddr;
use crate::sync::lock;

/// Peers whose handshakes are remembered; the oldest makes room.
const MAX_PEERS: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// How long replies to a handshake return through its ingress neighbour, in ticks of half a second.
/// Each flight of the handshake renews this.
const KEPT_TICKS: u32 = 10;

/// Through which neighbour each peer's last handshake packet came in.
///
/// A handshake that gets no answer through one neighbour is tried through another one. It should
/// not depend on a second choice at the other end, which knows nothing of the failure.
pub(super) struct Replies {
    peers: Mutex<LruCache<NodeAddr, Came>>,
    now: AtomicU32,
}

#[derive(Clone, Copy)]
struct Came {
    through: NodeAddr,
    at: u32,
}

impl Default for Replies {
    fn default() -> Self {
        Self { peers: Mutex::new(LruCache::new(MAX_PEERS)), now: AtomicU32::new(0) }
    }
}

impl Replies {
    /// A handshake packet of `peer` came in through a neighbour.
    pub(super) fn note(&self, peer: NodeAddr, through: NodeAddr) {
        let at = self.now.load(Ordering::Relaxed);
        lock(&self.peers).put(peer, Came { through, at });
    }

    /// The neighbour that the peer's handshake came in through, if it is recent.
    pub(super) fn through(&self, peer: NodeAddr) -> Option<NodeAddr> {
        let came = lock(&self.peers).peek(&peer).copied()?;
        let age = self.now.load(Ordering::Relaxed).wrapping_sub(came.at);
        (age < KEPT_TICKS).then_some(came.through)
    }

    /// Half a second has passed.
    pub(super) fn tick(&self) {
        self.now.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_way_of_a_handshake_is_known_for_a_while() {
        let replies = Replies::default();
        let [peer, left, right] = [1, 2, 3].map(|n| NodeAddr([n; 8]));
        assert_eq!(replies.through(peer), None);
        replies.note(peer, left);
        replies.note(peer, right);
        assert_eq!(replies.through(peer), Some(right));
        (0..KEPT_TICKS).for_each(|_| replies.tick());
        assert_eq!(replies.through(peer), None);
    }
}
