//! The driver's part in claims that await proof.

use std::collections::BTreeSet;
use std::time::Instant;

use tracing::warn;

use crate::id::{NodeAddr, NodeId};
use crate::mesh::driver::{Driver, Role};
use crate::mesh::links::id::LinkId;
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::router::{ClaimFault, Router};
use crate::transport::frame::Frame;

impl Driver {
    /// A stub asks for a route.
    pub(crate) fn query(&mut self, id: LinkId, node: NodeId, now: Instant) {
        let Role::Full(router) = &mut self.role else { return };
        let pending = router.table().is_claimed(&node) && router.verify_claims(&node, now);
        if !(pending && self.queries.add(id, &node, now)) {
            self.answer_query(id, node, now);
        }
    }

    /// Answers questions that waited for a proof. Call it when routes are in use.
    pub(crate) fn answer_queries(&mut self, now: Instant) {
        let Role::Full(router) = &self.role else { return };
        let table = router.table();
        for (id, node) in self.queries.take(|node| table.route(node).is_some(), now) {
            self.answer_query(id, node, now);
        }
    }

    fn answer_query(&self, id: LinkId, node: NodeId, now: Instant) {
        let (Some(link), Role::Full(router)) = (self.neighbours.link(id), &self.role) else {
            return;
        };
        let route = if node == self.id {
            Some((0, 0))
        } else {
            router.table().route(&node).map(|route| (route.cost, route.hops))
        };
        // One that is listed as a stub again is back, whether or not that is proven.
        let absent = route.is_none() && !router.table().is_claimed(&node);
        let left = absent.then(|| self.departures.of(&node, now)).flatten();
        let left = left.map(|left| ((left.ago_s * 1_000.0) as u64, left.ephemeral));
        link.send(&Frame::Answer(node, route, left));
    }

    /// Somebody here uses a stub.
    pub(crate) fn verify(&mut self, node: &NodeId, now: Instant) {
        if let Role::Full(router) = &mut self.role
            && router.table().is_claimed(node)
        {
            router.verify_claims(node, now);
        }
    }

    /// Packets wait for these nodes, which others list as stubs.
    pub(crate) fn wanted(&mut self, addrs: BTreeSet<NodeAddr>, now: Instant) {
        if let Role::Full(router) = &mut self.role {
            verify_all(router, addrs, now);
        }
    }

    /// A node lists a stub that is not attached to it.
    pub(crate) fn false_claim(&self, stub: NodeId, by: NodeId, fault: ClaimFault) {
        if self.logs.admit(LogKind::Claim, &by) {
            warn!(%stub, %by, why = %fault, "ignored a false claim: the stub is not attached to the node that lists it");
        }
        self.emit(Event::FalseClaim { node: stub, by, why: fault });
    }
}

fn verify_all(router: &mut Router, addrs: BTreeSet<NodeAddr>, now: Instant) {
    for addr in addrs {
        router.verify_claims_about(addr, now);
    }
}
