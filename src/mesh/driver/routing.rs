//! What the driver does about events of the router.

use std::time::Instant;

use tracing::{debug, error, info, warn};

use super::Driver;
use super::link_events::violated;
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::driver::stubs::stub::Role;
use crate::mesh::report::convergence::Convergence;
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::router;
use crate::transport::code::CloseCode;

impl Driver {
    pub(super) fn router_event(&mut self, event: router::Event, now: Instant) {
        use router::Event as Routing;
        match event {
            Routing::TableChanged => self.changed = true,
            Routing::NodeReachable(node) => self.on_reachable(node, now),
            Routing::NodeUnreachable(node) => self.on_unreachable(node, now),
            Routing::NodeRestarted(node) => {
                self.peers.restarted(&node);
                self.paths.restarted(&node, now);
            }
            Routing::Synced(peer) => self.on_synced(peer, now),
            Routing::LinkHeld { neighbour: peer, until } => self.on_held(peer, until, now),
            Routing::LinkReleased(peer) => self.on_released(peer),
            Routing::SyncStalled(peer) => {
                if let Some(link) = self.neighbours.active_link(&peer) {
                    link.close(
                        CloseCode::RoutingViolation,
                        "the databases could not be brought together",
                    );
                }
            }
            Routing::Violation { neighbour, error } => {
                if let Some(link) = self.neighbours.active_link(&neighbour) {
                    violated(&self.logs, link, &error);
                }
            }
            Routing::Untrusted { origin, version, reason } => {
                if self.distrusted.note(&origin, version, reason) {
                    if self.logs.admit(LogKind::Record, &origin) {
                        warn!(node = %origin, why = %reason, "record rejected: its certificate is not trusted here");
                    }
                    self.emit(Event::RecordNotTrusted { node: origin, why: reason });
                }
            }
            Routing::StubUnproven(peer) => self.stub_unproven(&peer),
            Routing::FalseClaim { stub, by, fault } => self.false_claim(stub, by, fault),
            Routing::StubUnlisted(node) => self.departures.left(node, true, now),
            Routing::SigningFailed => {
                // The router tries again every second.
                if !std::mem::replace(&mut self.signing_failed, true) {
                    error!(
                        "this node's record cannot be signed: others know the one before, or none, until it can"
                    );
                    self.emit(Event::SigningFailed);
                }
            }
            Routing::NodeLeft(node) => self.on_left(node, now),
            Routing::AddressCollision { known, refused } => {
                if self.logs.admit(LogKind::Conflict, &refused) {
                    error!(%known, %refused, "two ids have the same address; rename one of the nodes");
                }
                self.emit(Event::AddressCollision { known, refused });
            }
            Routing::DuplicateId(duplicate) => self.on_duplicate(&duplicate, now),
            Routing::Converged { request, count } => {
                self.on_verdict(request, Convergence::Converged { count }, now);
            }
            Routing::Partial { request, count, expected } => {
                self.on_verdict(request, Convergence::Partial { count, expected }, now);
            }
            other => debug!(event = ?other, "router"),
        }
    }

    fn on_reachable(&mut self, node: NodeId, now: Instant) {
        match self.is_stub(&node) {
            true => debug!(%node, "reachable"),
            false => self.reachability.reachable(&node, now),
        }
        self.distrusted.forget(&node);
        self.departures.came(&node);
        self.emit(Event::NodeReachable { node });
    }

    fn on_unreachable(&mut self, node: NodeId, now: Instant) {
        if self.is_stub(&node) {
            debug!(%node, "unreachable");
            self.departures.left(node.clone(), true, now);
        } else {
            self.reachability.unreachable(&node, now);
        }
        self.emit(Event::NodeUnreachable { node });
    }

    fn on_synced(&mut self, peer: NodeId, now: Instant) {
        debug!(%peer, "synced");
        self.changed = true;
        // Not before: a neighbour in its sync would be advertised as dormant first.
        self.manifest.seen(&peer, clock::unix_secs());
        if let Role::Full(router) = &mut self.role {
            router.set_dormant(self.manifest.known(), now);
        }
        self.emit(Event::Synced { peer });
    }

    fn on_held(&self, peer: NodeId, until: Instant, now: Instant) {
        let remaining = until.saturating_duration_since(now);
        if self.is_stub(&peer) {
            debug!(%peer, ?remaining, "stub not listed yet: it was lost repeatedly");
        } else if self.logs.admit(LogKind::Link, &peer) {
            info!(%peer, ?remaining, "link held back: it was lost repeatedly, and another path leads to the neighbour");
        }
        let remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        self.emit(Event::LinkHeld { peer, remaining_ms });
    }

    fn on_released(&self, peer: NodeId) {
        if self.is_stub(&peer) {
            debug!(%peer, "stub listed");
        } else if self.logs.admit(LogKind::Link, &peer) {
            info!(%peer, "link no longer held back");
        }
        self.emit(Event::LinkReleased { peer });
    }

    fn on_left(&mut self, node: NodeId, now: Instant) {
        if self.logs.admit(LogKind::Left, &node) {
            info!(%node, "left");
        }
        self.departures.left(node.clone(), false, now);
        self.manifest.forget(&node);
        self.emit(Event::NodeLeft { node });
        if let Role::Full(router) = &mut self.role {
            router.set_dormant(self.manifest.known(), now);
        }
    }
}
