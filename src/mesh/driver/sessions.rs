//! What the driver does about sessions of the router, which come and go with active links.

use std::net::SocketAddr;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::Driver;
use crate::id::NodeId;
use crate::mesh::driver::stubs::stub::Role;
use crate::mesh::links::id::LinkId;
use crate::mesh::links::neighbours::Change;
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::mesh::services::ending::Cause;
use crate::router::{NeighbourKind, SessionError, SessionUp};
use crate::transport::Refusal;
use crate::transport::code::CloseCode;

impl Driver {
    /// Tells the router of sessions that came and went.
    pub(super) fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            self.changed = true;
            match change {
                Change::SessionUp(id) => self.session_up(id, now),
                Change::SessionDown(peer) => self.session_down(&peer, now),
                Change::DuplicateId { node, keeps, refused: yields } => {
                    if self.logs.admit(LogKind::Conflict, &node) {
                        warn!(%node, keeps = %keeps.place(), refused = %yields.place(), "refused a second live node with this id");
                    }
                    self.emit(Event::DuplicateId { node, keeps, yields, yielded: false });
                }
            }
        }
    }

    fn session_up(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.neighbours.link(id) else { return };
        let (peer, stub, address) = (link.peer.clone(), link.stub, link.address().to_string());
        self.paths.observed(&peer, link.observed_udp(), now);
        if let Role::Full(router) = &mut self.role {
            if self.neighbours.active().len() == 1 {
                let observed =
                    SocketAddr::new(link.observed.ip().to_canonical(), link.observed.port());
                router.set_place(&observed.to_string());
            }
            let kind = if link.stub { NeighbourKind::Stub } else { NeighbourKind::Full };
            let up = SessionUp {
                neighbour: peer.clone(),
                instance: link.instance,
                cost: link.cost,
                kind,
            };
            if let Err(error) = router.handle_session_up(up, now) {
                if self.logs.admit(LogKind::Closed, &peer) {
                    warn!(%peer, %error, "closing a link: the router rejects the session");
                }
                let (code, why) = (refused_session(&error), error.to_string());
                link.close(code, &why);
                self.neighbours.refuse(id, now);
                // It may have been about to take the place of another link.
                self.session_down(&peer, now);
                self.report_down((&peer, stub), &Cause::here(code, &why), None);
                return;
            }
            if link.stub {
                self.attaching.push(id);
            }
        }
        self.prove_attachment(&peer, now);
        self.twin.accepted();
        self.departures.came(&peer);
        let is_new = self.linked.up(&peer);
        let what = if is_new { "link up" } else { "link replaced" };
        if stub {
            debug!(%peer, %address, "{what}");
        } else if self.logs.admit(LogKind::Link, &peer) {
            info!(%peer, %address, "{what}");
        }
        if is_new {
            self.emit(Event::LinkUp { peer, address });
        }
    }

    fn session_down(&mut self, peer: &NodeId, now: Instant) {
        self.paths.observed(peer, None, now);
        match &mut self.role {
            Role::Full(router) => {
                router.handle_session_down(peer, now);
                // Stubs are not in the manifest, and may be lost by the thousand.
                if self.manifest.knows(peer) {
                    router.set_dormant(self.manifest.known(), now);
                }
            }
            Role::Stub(stub) => {
                stub.attached = !self.neighbours.active().is_empty();
                stub.attaching.detached();
                // The neighbour that would answer is gone; the callers see the closed channel.
                stub.drop_askers();
                self.prove_attachments(now);
                self.ask_neighbour_to_converge(now);
            }
        }
    }

    /// Reports the end of a neighbour's session, if its beginning was reported. A refusal of this
    /// node says more.
    pub(super) fn report_down(
        &mut self,
        (peer, stub): (&NodeId, bool),
        why: &Cause,
        refusal: Option<Refusal>,
    ) {
        if self.linked.down(peer) {
            let why = refusal.map_or_else(|| why.to_string(), |refusal| refusal.to_string());
            if stub {
                debug!(%peer, %why, "link down");
            } else if self.logs.admit(LogKind::Link, peer) {
                info!(%peer, %why, "link down");
            }
            self.emit(Event::LinkDown { peer: peer.clone(), why });
        }
    }
}

/// The code for a session that the router does not take.
fn refused_session(error: &SessionError) -> CloseCode {
    match error {
        SessionError::SelfLink => CloseCode::SelfLink,
        SessionError::AddressCollision { .. } => CloseCode::AddressCollision,
        SessionError::TooManyLinks { .. } => CloseCode::Overloaded,
        SessionError::SuffixedId(_) => CloseCode::SuffixedId,
        SessionError::Leaving => CloseCode::Leaving,
        SessionError::Yielded => CloseCode::DuplicateId,
    }
}
