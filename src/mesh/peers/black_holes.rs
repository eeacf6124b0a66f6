//! Sends packets around neighbours that do not forward them: what the driver does about silent
//! peers.

use std::collections::BTreeSet;
use std::time::Instant;

use tracing::{debug, warn};

use super::detours::{Replacement, Settled, Unanswered};
use crate::id::{NodeAddr, NodeId};
use crate::mesh::driver::{Driver, Role};
use crate::mesh::input::PeerAnswers;
use crate::mesh::report::events::Event;

impl Driver {
    /// A peer connection, or the handshake of one, gets no answers, or gets them again.
    pub(crate) fn peer_answers(&mut self, peer: &NodeId, answers: PeerAnswers, now: Instant) {
        let moved = match answers {
            PeerAnswers::Silent { through } => {
                let through = through.and_then(|addr| self.linked(addr));
                self.detours.silent(peer, through, now);
                false
            }
            PeerAnswers::Resumed { through } => {
                let through = through.and_then(|addr| self.linked(addr));
                self.detours.answered(peer, through.as_ref(), now)
            }
        };
        if moved {
            self.publish_detours();
        }
        self.find_detours(now);
    }

    /// Chooses other first hops for silent peers, as far as the pace of searches allows.
    pub(crate) fn find_detours(&mut self, now: Instant) {
        let mut moved = false;
        while let Some(Unanswered { peer, through, mut avoided }) = self.detours.take_silent(now) {
            // Direct paths are watched by the puncher, and links by QUIC's own idle timeout.
            if self.paths.path(&peer).is_some() || self.neighbours.active().contains_key(&peer) {
                continue;
            }
            let Some(failed) = self.first_hop(peer.addr()) else { continue };
            avoided.insert(failed.clone());
            // The neighbour that the peer's packets come through is known to work in one direction;
            // of the others the graph only says that they should.
            let heard = through.filter(|through| *through != failed && self.is_linked(through));
            let next = heard.clone().filter(|heard| !avoided.contains(heard));
            let next = next
                .or_else(|| self.other_first_hop(&peer, &avoided, now))
                .or_else(|| heard.clone());
            let next = next.map(|via| Replacement {
                followed: heard.as_ref() == Some(&via),
                via,
                toward: self.other_attachment(&peer, &avoided),
            });
            debug!(%peer, %failed, next = next.as_ref().map_or("none", |next| next.via.as_str()), "no answer");
            moved |= self.detours.replace(&peer, failed, next, now);
        }
        if moved {
            self.publish_detours();
        }
    }

    fn publish_detours(&mut self) {
        self.publish_forwarding(self.routes.last());
        self.changed = true;
    }

    /// Reports detours that have proven themselves, and forgets those that are no longer used.
    pub(crate) fn tick_detours(&mut self, now: Instant) {
        let (socket, neighbours) = (self.endpoint.socket(), &self.neighbours);
        let heard = |peer: &NodeId| {
            let through = socket.heard_through(peer.addr())?;
            neighbours.active().keys().find(|id| id.addr() == through).cloned()
        };
        if self.detours.acquit(heard) {
            self.publish_detours();
        }
        for Settled { peer, avoided, via } in self.detours.settle(now) {
            let names = avoided.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
            warn!(%peer, avoided = %names, %via, "no answer through a neighbour that claims a route: avoided for this peer");
            self.emit(Event::NextHopAvoided { peer, avoided, via });
        }
        let peers = &self.peers;
        if self.detours.sweep(|peer| peers.is_connected(peer), now) {
            self.changed = true;
        }
        self.find_detours(now);
    }

    /// The best first hop that is not avoided.
    fn other_first_hop(
        &mut self,
        peer: &NodeId,
        avoided: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Option<NodeId> {
        match &self.role {
            Role::Full(router) => {
                self.detours.pace(router.detour_pause(peer, avoided.len()), now);
                router.detours(peer, avoided).into_iter().find(|id| self.is_linked(id))
            }
            Role::Stub(_) => {
                self.neighbours.active().keys().find(|id| !avoided.contains(*id)).cloned()
            }
        }
    }

    /// A node that the peer is attached to as a stub, and that is not avoided.
    fn other_attachment(&self, peer: &NodeId, avoided: &BTreeSet<NodeId>) -> Option<NodeId> {
        // Only stubs have attachments, and finding them takes a search of the whole database.
        let Role::Full(router) = &self.role else { return None };
        if !self.is_stub(peer) {
            return None;
        }
        router.attachments(peer).into_iter().find(|node| !avoided.contains(node))
    }

    /// The neighbour that this node's packets for a peer go to now.
    fn first_hop(&self, peer: NodeAddr) -> Option<NodeId> {
        let socket = self.endpoint.socket();
        let sent = socket.sends_through(peer).and_then(|hop| self.linked(hop));
        sent.or_else(|| self.linked(socket.first_hop(peer)?))
    }

    /// The neighbour with this address.
    fn linked(&self, addr: NodeAddr) -> Option<NodeId> {
        self.neighbours.active().keys().find(|id| id.addr() == addr).cloned()
    }

    fn is_linked(&self, neighbour: &NodeId) -> bool {
        self.neighbours.active().contains_key(neighbour)
    }
}
