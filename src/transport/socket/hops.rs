//! Which neighbours the packets of peers come through, and which ones the packets for them go to.

use super::Socket;
use crate::id::NodeAddr;

impl Socket {
    /// The neighbour that a peer's last packet came through.
    pub(crate) fn heard_through(&self, peer: NodeAddr) -> Option<NodeAddr> {
        self.peers.load().get(&peer)?.came_through()
    }

    /// The neighbour that the last packet for a peer went to, or the next one will go to.
    pub(crate) fn sends_through(&self, peer: NodeAddr) -> Option<NodeAddr> {
        let sent = self.peers.load().get(&peer).and_then(|last| last.went_to());
        sent.or_else(|| self.first_hop(peer))
    }

    /// The neighbour that the last packet of a peer's handshake came through, if it is recent.
    pub(crate) fn handshake_through(&self, peer: NodeAddr) -> Option<NodeAddr> {
        self.replies.through(peer)
    }

    /// The neighbour that a handshake with a peer goes to first.
    pub(crate) fn first_hop(&self, peer: NodeAddr) -> Option<NodeAddr> {
        self.table.load().originate_handshake(peer).map(|(hop, _)| hop.neighbour)
    }
}
