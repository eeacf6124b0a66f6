//! Sends packets around neighbours that do not forward them: what the driver does about silent
//! peers.

use std::time::Instant;

use tracing::{debug, warn};

use super::detours::Settled;
use super::driver::{Driver, Role};
use super::events::Event;
use super::input::PeerAnswers;
use crate::id::{NodeAddr, NodeId};

impl Driver {
    /// A peer connection, or the handshake of one, gets no answers, or gets them again.
    pub(super) fn peer_answers(&mut self, peer: &NodeId, answers: PeerAnswers, now: Instant) {
        match answers {
            PeerAnswers::Silent => self.detours.silent(peer, now),
            PeerAnswers::Resumed => self.detours.answered(peer, now),
        }
        self.find_detours(now);
    }

    /// Chooses other first hops for silent peers, as far as the pace of searches allows.
    pub(super) fn find_detours(&mut self, now: Instant) {
        let mut moved = false;
        while let Some((peer, mut avoided)) = self.detours.take_silent(now) {
            // Direct paths are watched by the puncher, and links by QUIC's own idle timeout.
            if self.paths.path(&peer).is_some() || self.neighbours.active().contains_key(&peer) {
                continue;
            }
            let Some(failed) = self.first_hop(peer.addr()) else { continue };
            avoided.insert(failed.clone());
            let next = match &self.role {
                Role::Full(router) => {
                    let next = router.detours(&peer, &avoided).into_iter().find(|id| self.is_linked(id));
                    self.detours.pace(router.detour_pause(avoided.len()), now);
                    next
                }
                Role::Stub(_) => self.neighbours.active().keys().find(|id| !avoided.contains(*id)).cloned(),
            };
            debug!(%peer, %failed, next = next.as_ref().map_or("none", NodeId::as_str), "no answer");
            moved |= self.detours.replace(&peer, failed, next, now);
        }
        if moved {
            self.publish_forwarding(self.routes.last());
            self.changed = true;
        }
    }

    /// Reports detours that have proven themselves, and forgets those that are no longer used.
    pub(super) fn tick_detours(&mut self, now: Instant) {
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

    /// The neighbour that this node's packets for a peer go to now.
    fn first_hop(&self, peer: NodeAddr) -> Option<NodeId> {
        let forwarding = self.view.borrow().forwarding.clone()?;
        let (hop, _) = forwarding.originate_handshake(peer)?;
        let mut linked = self.neighbours.active().keys();
        linked.find(|id| id.addr() == hop.neighbour).cloned()
    }

    fn is_linked(&self, neighbour: &NodeId) -> bool {
        self.neighbours.active().contains_key(neighbour)
    }
}
