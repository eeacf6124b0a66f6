//! Sends the last packets to a peer again when its route changes, so that the connection recovers
//! at once instead of after a probe timeout.

use std::collections::BTreeMap;

use super::Socket;
use super::last_sent::LastSent;
use crate::id::NodeAddr;
use crate::switch::ForwardingTable;

impl Socket {
    /// Starts keeping the last packets to a peer.
    pub(crate) fn track(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.entry(peer).or_default();
            peers
        });
    }

    /// Whether handshake packets came from a peer since the last call.
    pub(crate) fn take_handshake(&self, peer: NodeAddr) -> bool {
        self.peers.load().get(&peer).is_some_and(|last| last.take_handshake())
    }

    /// Stops keeping the last packets to a peer.
    pub(crate) fn untrack(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.remove(&peer);
            peers
        });
    }

    /// Forgets the last packets to a peer whose last connection has ended: nothing is sent again.
    pub(crate) fn forget_last(&self, peer: NodeAddr) {
        if let Some(last) = self.peers.load().get(&peer) {
            last.forget();
        }
    }

    /// Sends the last packets to every peer again. For changes that leave the routes the same but
    /// may have repaired them.
    pub(crate) fn nudge(&self) {
        let table = self.table.load();
        self.peers.load().values().for_each(|last| self.resend(last, &table));
    }

    /// Sends the last packets again to each peer whose next hop differs between `before` and
    /// `table`, or that has not answered.
    pub(super) fn resend_where_needed(&self, before: &ForwardingTable, table: &ForwardingTable) {
        for last in self.peers.load().values() {
            // A packet on the old route may be lost even if the peer is heard: the return path may
            // be another one.
            if last.has_moved(before, table) || !last.is_answered() {
                self.resend(last, table);
            }
        }
    }

    /// Sends the last packets to a peer again, also through the other first hops of its route: it
    /// may not be reachable through the one in use. Routes stay as they are.
    pub(crate) fn try_other_hops(&self, peer: NodeAddr) {
        let table = self.table.load();
        let Some(last) = self.peers.load().get(&peer).cloned() else { return };
        self.resend(&last, &table);
        last.copy(&table, |packet, next_hop| {
            let _ = self.transmit(packet, None, None, next_hop);
        });
    }

    /// Sends the last packets to a peer again.
    pub(crate) fn repeat(&self, peer: NodeAddr) {
        if let Some(last) = self.peers.load().get(&peer) {
            self.resend(last, &self.table.load());
        }
    }

    fn resend(&self, last: &LastSent, table: &ForwardingTable) {
        // A lost copy does no harm: quinn sends its own probe in time, and ignores duplicates.
        last.resend(table, |packet, next_hop| {
            let _ = self.transmit(packet, None, None, next_hop);
        });
    }
}
