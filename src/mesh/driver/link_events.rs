//! What the driver does about links: new ones, their frames, and their ends.

use std::time::Instant;

use tracing::{debug, warn};

use super::Driver;
use crate::mesh::driver::stubs::stub::Role;
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::links::id::{LinkId, Phase};
use crate::mesh::links::link::{Link, Surroundings};
use crate::mesh::report::convergence::Convergence;
use crate::mesh::report::log::{LogKind, LogLimits};
use crate::mesh::services::ending::{Cause, EndReason, EndedBy};
use crate::router;
use crate::transport::code::CloseCode;
use crate::transport::frame::Frame;
use crate::transport::handshake::Established;

impl Driver {
    /// Closes the link with this connection, if it is still there.
    pub(super) fn unlink(&self, connection: usize) {
        let links = self.neighbours.links().values();
        let closed = links.filter(|link| link.connection.stable_id() == connection);
        closed.for_each(|link| {
            link.close(CloseCode::NotConfigured, "the peer was removed from the configuration");
        });
    }

    pub(super) fn arrived(&mut self, established: Established, now: Instant) {
        if self.leaving {
            established.connection.close(CloseCode::Leaving.to_quic(), b"leaving");
            return;
        }
        if self.yielded.is_some() {
            established
                .connection
                .close(CloseCode::DuplicateId.to_quic(), b"this node has yielded its id");
            return;
        }
        let stub = matches!(self.role, Role::Stub(_));
        if stub && (!established.dialled || established.hello.stub) {
            established
                .connection
                .close(CloseCode::NotListening.to_quic(), b"an ephemeral node takes no links");
            return;
        }
        // The handshake was judged by the trust of its time, and that may have changed since.
        let Ok(vetted) = self.vetting.admit(&established.connection, &established.hello.id) else {
            return;
        };
        let id = self.neighbours.next_id();
        let node = Surroundings {
            inputs: &self.inputs,
            services: &self.services,
            checks: &self.checks,
            endings: &self.endings,
            carriers: self.endpoint.socket().carriers(),
        };
        let mut link = Link::spawn(id, established, vetted, &node, now);
        (link.cost, link.measured) = self.costs.of(&link.peer, link.connection.rtt(), now);
        debug!(peer = %link.peer, address = %link.address(), dialled = link.dialled, "linked");
        let changes = self.neighbours.arrive(link, now);
        self.changed = true;
        self.apply(changes, now);
    }

    pub(super) fn frame(&mut self, id: LinkId, frame: Frame, now: Instant) {
        let Some(link) = self.neighbours.link(id) else { return };
        match frame {
            Frame::Ping(nonce) => link.send(&Frame::Pong(nonce)),
            Frame::Pong(nonce) => {
                self.link_answered(id, nonce);
                self.doubts.answered(id, nonce, now);
                let changes = self.neighbours.answered(id, nonce, now);
                self.apply(changes, now);
            }
            Frame::Select(number) => {
                let changes = self.neighbours.selected(id, number, now);
                self.apply(changes, now);
            }
            Frame::Query(node) => self.query(id, node, now),
            Frame::Answer(node, route, left) => {
                if let Role::Stub(stub) = &mut self.role {
                    self.departures.reported(&node, left, now);
                    stub.answer(&node, route);
                }
            }
            Frame::Attached(nodes) => {
                if let Role::Stub(stub) = &mut self.role {
                    debug!(peer = %link.peer, nodes, "attached");
                    (stub.attached, stub.nodes) = (true, nodes);
                    self.changed = true;
                    self.ask_neighbour_to_converge(now);
                }
            }
            Frame::Converge(millis) => self.converge_for_stub(id, millis, now),
            Frame::Converged(true, count, _) => {
                self.on_neighbours_verdict(Convergence::Converged { count }, now);
            }
            Frame::Converged(false, count, expected) => {
                self.on_neighbours_verdict(Convergence::Partial { count, expected }, now);
            }
            Frame::Observed(at) if self.neighbours.phase(id) == Some(Phase::Active) => {
                let (peer, carried) = (link.peer.clone(), link.carrier() != Carrier::Udp);
                self.neighbours.observed(id, at);
                self.paths.observed(&peer, Some(at).filter(|_| !carried), now);
            }
            Frame::Observed(at) => self.neighbours.observed(id, at),
            Frame::Twin(instance, address) => {
                let seen_at = link.observed;
                self.on_twin_refused(instance, &address, seen_at);
            }
            Frame::Hello(_) => link.close(CloseCode::BadFrame, "HELLO comes first, and once"),
            // The link's reader has dealt with them.
            Frame::Route(_) | Frame::Authenticator(_) | Frame::Attach(_) => {}
        }
    }

    pub(super) fn route_frame(&mut self, id: LinkId, message: router::Message, now: Instant) {
        let Some(link) = self.neighbours.if_active(id) else { return };
        // Between the choice of another link and its arrival at the other end, this one's session
        // is over. So it is once this node has closed the link, or the process at its other end is
        // known to be gone, whatever of it was read before. Where the neighbour has closed it, its
        // last frames still count.
        let closed = link
            .connection
            .ended()
            .is_some_and(|cause| cause.by == EndedBy::This || cause.why == EndReason::Restarted);
        if closed {
            return;
        }
        let Role::Full(router) = &mut self.role else { return };
        if let Err(error) = router.handle_message(&link.peer, message, now) {
            violated(&self.logs, link, &error);
        }
    }

    pub(super) fn written(&mut self, id: LinkId, now: Instant) {
        if let (Role::Full(router), Some(link)) = (&mut self.role, self.neighbours.if_active(id)) {
            router.handle_writable(&link.peer, now);
        }
    }

    /// The neighbour has finished its control stream, and every frame before that was handled: it
    /// leaves.
    pub(super) fn finished(&self, id: LinkId) {
        if let Some(link) = self.neighbours.link(id) {
            let left = Cause::other(EndReason::ShutDown);
            link.close_because(left, CloseCode::Leaving, "the neighbour has left");
        }
    }

    pub(super) fn link_closed(&mut self, id: LinkId, why: &Cause, now: Instant) {
        let active = self.neighbours.if_active(id).map(|link| (link.peer.clone(), link.stub));
        if let (true, Some((peer, _)), Role::Full(router)) =
            (why.is_announced(), &active, &mut self.role)
        {
            // The close may overtake the record that says so.
            router.handle_leaving(peer, now);
        }
        let refusal = self.neighbours.link(id).and_then(|link| link.vetted.refusal().cloned());
        let ended = self
            .neighbours
            .link(id)
            .and_then(|link| Some((link.connection.close_reason()?, link.observed)));
        if let Some((error, seen_at)) = ended {
            self.on_refused_as_twin(&error, seen_at);
        }
        let changes = self.neighbours.closed(id, now);
        self.doubts.ended(id);
        self.forget_link_check(id);
        self.changed = true;
        self.forget_stub_waiter(id, now);
        if let Some((peer, stub)) = active.clone().filter(|_| why.is_leave()) {
            // Its record says so as well, unless it is a stub, or the last frames were lost.
            self.departures.left(peer, stub, now);
        }
        // The search for new paths can take its time, or be put off: until then alternates serve,
        // from now on. Nothing travels by way of a stub. In a storm the table is replaced as often
        // as at any other time, since making it takes time in proportion to all links.
        let forwards = active.as_ref().is_some_and(|(_, stub)| !stub);
        if forwards && now >= self.withdrawn + self.publish_pause() {
            self.withdrawn = now;
            self.publish_forwarding(self.routes.last());
        }
        if let Some((peer, stub)) = active {
            self.report_down((&peer, stub), why, refusal);
        }
        self.apply(changes, now);
    }
}

pub(super) fn violated(logs: &LogLimits, link: &Link, error: &router::PeerError) {
    if logs.admit(LogKind::Closed, &link.peer) {
        warn!(peer = %link.peer, %error, "closing a link: the peer broke the routing protocol");
    }
    link.close(CloseCode::RoutingViolation, &error.to_string());
}
