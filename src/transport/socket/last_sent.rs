//! The last packet to every peer, kept so that a connection learns at once of a new way to its peer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::held::refresh_attachment;
use super::originate::way;
use super::{Socket, lock};
use crate::id::NodeAddr;
use crate::switch::{ForwardingTable, Header};

/// The last packet that was sent to a peer.
///
/// When the way to a peer changes, this packet is sent again. quinn has backed off by then: after five seconds of
/// silence its next probe may be five seconds away. The peer acknowledges the copy at once, and what was lost is sent again.
#[derive(Debug, Default)]
pub(super) struct LastSent {
    packet: Mutex<Vec<u8>>,
    /// Whether something came from the peer since: then the way works, and nothing is sent again unless it changes.
    answered: AtomicBool,
    /// Whether a packet of a handshake came from the peer.
    shook_hands: AtomicBool,
}

impl LastSent {
    /// Keeps this packet instead of the one before.
    pub(super) fn keep(&self, sent: &[u8]) {
        // One connection sends to a peer, so the lock waits only for a change of the table.
        let mut packet = lock(&self.packet);
        packet.clear();
        packet.extend_from_slice(sent);
        self.answered.store(false, Ordering::Relaxed);
    }

    /// Whether the last packet would take another way by `table` than by `before`.
    fn has_moved(&self, before: &ForwardingTable, table: &ForwardingTable) -> bool {
        let packet = lock(&self.packet);
        let Ok(header) = Header::decode(&packet) else { return false };
        let next_hop =
            |table| way(table, &header, &packet[header.wire_len()..]).map(|(next_hop, _)| next_hop);
        next_hop(before) != next_hop(table)
    }

    /// Something came from the peer.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// A packet of a handshake came from the peer.
    pub(super) fn shook_hands(&self) {
        self.shook_hands.store(true, Ordering::Relaxed);
    }
}

impl Socket {
    /// Keeps the last packet to a peer from now on.
    pub(crate) fn track(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.entry(peer).or_default();
            peers
        });
    }

    /// Whether packets of a handshake came from a peer since the last call.
    pub(crate) fn take_handshake(&self, peer: NodeAddr) -> bool {
        self.peers.load().get(&peer).is_some_and(|last| last.shook_hands.swap(false, Ordering::Relaxed))
    }

    /// Forgets a peer.
    pub(crate) fn untrack(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.remove(&peer);
            peers
        });
    }

    /// The last connection with a peer has ended: nothing is sent again.
    pub(crate) fn forget_last(&self, peer: NodeAddr) {
        if let Some(last) = self.peers.load().get(&peer) {
            lock(&last.packet).clear();
        }
    }

    /// Sends the last packet of every peer's connection again: the way there may work now, though it is the same.
    pub(crate) fn nudge(&self) {
        let table = self.table.load();
        self.peers.load().values().for_each(|last| self.resend(last, &table));
    }

    /// Sends the last packet again to each peer that `table` leads to another way than `before`, or that has not answered.
    pub(super) fn resend_where_needed(&self, before: &ForwardingTable, table: &ForwardingTable) {
        for last in self.peers.load().values() {
            // What went the old way may be lost, though the peer is heard: the way back may be another one.
            if last.has_moved(before, table) || !last.answered.load(Ordering::Relaxed) {
                self.resend(last, table);
            }
        }
    }

    fn resend(&self, last: &LastSent, table: &ForwardingTable) {
        let mut packet = lock(&last.packet);
        let Ok(header) = Header::decode(&packet) else { return };
        let Some((next_hop, hop_limit)) = way(table, &header, &packet[header.wire_len()..]) else { return };
        refresh_attachment(&mut packet, table);
        packet[1] = hop_limit.saturating_add(1);
        Header::rewrite(&mut packet, next_hop.cookie);
        // A lost copy is no loss: quinn's own probe follows in its time.
        let _ = self.transmit(&packet, None, None, next_hop);
    }
}
