//! The last packet to a peer, which is sent again when the route to that peer changes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::packet::{refresh_attachment, way};
use crate::id::NodeAddr;
use crate::switch::{ForwardingTable, Header, NextHop};
use crate::sync::lock;

/// The last packet that was sent to a peer.
///
/// It is sent again when the route to the peer changes. quinn has backed off by then: after five
/// seconds of silence its next probe may be five seconds away. The peer acknowledges the copy at
/// once, and quinn retransmits what was lost.
#[derive(Debug, Default)]
pub(super) struct LastSent {
    packet: Mutex<Vec<u8>>,
    /// Whether the peer has sent anything since. If so the route works, and the packet is sent
    /// again only when the route changes.
    answered: AtomicBool,
    /// Whether a packet of a handshake came from the peer.
    shook_hands: AtomicBool,
    /// The address of the neighbour that the peer's last packet came through, as a number; 0 if
    /// none came.
    through: AtomicU64,
    /// The address of the neighbour that the last packet went to.
    via: AtomicU64,
}

impl LastSent {
    /// Keeps this packet, which went to this neighbour, instead of the one before.
    pub(super) fn keep(&self, sent: &[u8], via: NodeAddr) {
        // One connection sends to a peer, so the lock waits only for a change of the table.
        let mut packet = lock(&self.packet);
        packet.clear();
        packet.extend_from_slice(sent);
        self.via.store(u64::from_be_bytes(via.0), Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Whether the next hop of the last packet differs between `before` and `table`.
    pub(super) fn has_moved(&self, before: &ForwardingTable, table: &ForwardingTable) -> bool {
        let packet = lock(&self.packet);
        let Ok(header) = Header::decode(&packet) else { return false };
        let next_hop =
            |table| way(table, &header, &packet[header.wire_len()..]).map(|(next_hop, _)| next_hop);
        next_hop(before) != next_hop(table)
    }

    /// Records that a packet came from the peer: through this neighbour, unless it came by a direct
    /// path.
    pub(super) fn answered(&self, through: Option<NodeAddr>) {
        self.answered.store(true, Ordering::Relaxed);
        if let Some(through) = through {
            self.through.store(u64::from_be_bytes(through.0), Ordering::Relaxed);
        }
    }

    /// Records that a handshake packet came from the peer.
    pub(super) fn shook_hands(&self) {
        self.shook_hands.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has sent anything since the last packet to it.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether a handshake packet came from the peer since the last call.
    pub(super) fn take_handshake(&self) -> bool {
        self.shook_hands.swap(false, Ordering::Relaxed)
    }

    /// The neighbour that the peer's last packet came through.
    pub(super) fn came_through(&self) -> Option<NodeAddr> {
        neighbour(&self.through)
    }

    /// The neighbour that the last packet went to.
    pub(super) fn went_to(&self) -> Option<NodeAddr> {
        neighbour(&self.via)
    }

    /// Drops the packet, so that nothing is sent again.
    pub(super) fn forget(&self) {
        lock(&self.packet).clear();
    }

    /// Updates the packet's header to the route that `table` has now and passes it to `send`. Does
    /// nothing without a packet or a route.
    pub(super) fn resend(&self, table: &ForwardingTable, send: impl FnOnce(&[u8], NextHop)) {
        let mut packet = lock(&self.packet);
        let Ok(header) = Header::decode(&packet) else { return };
        let Some((next_hop, hop_limit)) = way(table, &header, &packet[header.wire_len()..]) else {
            return;
        };
        refresh_attachment(&mut packet, table);
        packet[1] = hop_limit.saturating_add(1);
        Header::rewrite(&mut packet, next_hop.cookie);
        self.via.store(u64::from_be_bytes(next_hop.neighbour.0), Ordering::Relaxed);
        send(&packet, next_hop);
    }
}

/// A neighbour's address that was stored as a number.
fn neighbour(stored: &AtomicU64) -> Option<NodeAddr> {
    let number = stored.load(Ordering::Relaxed);
    (number != 0).then(|| NodeAddr(number.to_be_bytes()))
}
