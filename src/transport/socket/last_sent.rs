//! The last packets to a peer, which are sent again when the route to that peer changes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::packet::{refresh_attachment, way};
use crate::id::NodeAddr;
use crate::switch::{ForwardingTable, Header, NextHop};
use crate::sync::lock;

/// First hops other than the one in use that get a copy of the last packet.
const MAX_COPIES: usize = 4;

/// Packets that are kept for each peer: one of each of the last batches. Several, because the peer
/// acknowledges only copies of packets that it did not get before, and the network may lose a copy.
const KEPT: usize = 4;

/// The last packets that were sent to a peer.
///
/// They are sent again when the route to the peer changes. quinn has backed off by then: after five
/// seconds of silence its next probe may be five seconds away. The peer acknowledges the copies at
/// once, and quinn retransmits what was lost.
#[derive(Debug, Default)]
pub(super) struct LastSent {
    /// Oldest first.
    packets: Mutex<VecDeque<Vec<u8>>>,
    /// Whether the peer has sent anything since. If so the route works, and the packets are sent
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
    /// Keeps this packet, which went to this neighbour, instead of the oldest one.
    pub(super) fn keep(&self, sent: &[u8], via: NodeAddr) {
        // One connection sends to a peer, so the lock waits only for a change of the table.
        let mut packets = lock(&self.packets);
        let mut packet =
            if packets.len() < KEPT { Vec::new() } else { packets.pop_front().unwrap_or_default() };
        packet.clear();
        packet.extend_from_slice(sent);
        packets.push_back(packet);
        self.via.store(u64::from_be_bytes(via.0), Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Whether the next hop of the last packet differs between `before` and `table`.
    pub(super) fn has_moved(&self, before: &ForwardingTable, table: &ForwardingTable) -> bool {
        let packets = lock(&self.packets);
        let Some(packet) = packets.back() else { return false };
        let Ok(header) = Header::decode(packet) else { return false };
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

    /// Drops the packets, so that nothing is sent again.
    pub(super) fn forget(&self) {
        lock(&self.packets).clear();
    }

    /// Passes copies of the packets to `send`: for up to [`MAX_COPIES`] first hops other than the
    /// one in use. Later packets go where they went before.
    pub(super) fn copy(&self, table: &ForwardingTable, mut send: impl FnMut(&[u8], NextHop)) {
        let used = self.went_to();
        for mut packet in lock(&self.packets).clone() {
            let Ok(header) = Header::decode(&packet) else { continue };
            let others = table.other_first_hops(&header, used.unwrap_or(header.source));
            for (next_hop, hop_limit) in others.take(MAX_COPIES) {
                packet[1] = hop_limit.saturating_add(1);
                Header::rewrite(&mut packet, next_hop.cookie);
                send(&packet, next_hop);
            }
        }
    }

    /// Updates the headers of the packets to the route that `table` has now and passes them to
    /// `send`. Leaves out those without a route.
    pub(super) fn resend(&self, table: &ForwardingTable, mut send: impl FnMut(&[u8], NextHop)) {
        for packet in lock(&self.packets).iter_mut() {
            let Ok(header) = Header::decode(packet) else { continue };
            let Some((next_hop, hop_limit)) = way(table, &header, &packet[header.wire_len()..])
            else {
                continue;
            };
            refresh_attachment(packet, table);
            packet[1] = hop_limit.saturating_add(1);
            Header::rewrite(packet, next_hop.cookie);
            self.via.store(u64::from_be_bytes(next_hop.neighbour.0), Ordering::Relaxed);
            send(packet, next_hop);
        }
    }
}

/// A neighbour's address that was stored as a number.
fn neighbour(stored: &AtomicU64) -> Option<NodeAddr> {
    let number = stored.load(Ordering::Relaxed);
    (number != 0).then(|| NodeAddr(number.to_be_bytes()))
}
