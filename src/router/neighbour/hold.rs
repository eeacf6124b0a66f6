//! Flap damping: which links are held back, and when a hold ends.
//!
//! Only the loss of a link between the same two processes is a flap. A neighbour that announces its
//! leave, or comes back as another process, has restarted, however often it does so. A link is held
//! back only while another path leads to the neighbour: damping spares the mesh the news of a link
//! that it can do without, and never costs reachability.
//!
//! Stubs have no other path. What is held back is their entry in this node's record; see
//! [`StubDamping`](crate::router::neighbour::stub_damping::StubDamping).

use std::collections::BTreeMap;
use std::time::Instant;

use crate::id::NodeId;
use crate::router::Router;
use crate::router::event::Event;
use crate::router::neighbour::{NeighbourKind, NeighbourState, SessionUp};
use crate::router::origin::Urgency;
use crate::router::paths::spf::Paths;
use crate::router::record::draft::LinkClass;

/// What happened.
impl Router {
    /// The neighbour announced that it leaves, by another way than its record: the close of its
    /// link, for example. The link carries nothing from now on, and its end does not count as a
    /// flap. Without a session, nothing happens.
    pub fn handle_leaving(&mut self, neighbour: &NodeId, now: Instant) {
        if self.on_neighbour_leaving(neighbour, now) {
            self.settle(now);
        }
    }
}

/// Getters.
impl Router {
    /// The neighbours whose links are held back after flapping, stubs among them, and until when at
    /// the latest; ascending by id.
    pub fn held_links(&self) -> impl Iterator<Item = (NodeId, Instant)> {
        let held = self.neighbours.held().chain(self.stub_damping.held());
        held.map(|(id, until)| (id.clone(), until)).collect::<BTreeMap<_, _>>().into_iter()
    }

    /// Until when, at the latest, the link to a neighbour is held back. `None` if it is not.
    #[must_use]
    pub fn held_until(&self, id: &NodeId) -> Option<Instant> {
        self.neighbours.held_until(id).or_else(|| self.stub_damping.held_until(id))
    }
}

impl Router {
    /// Takes a neighbour's link out of use, since the neighbour leaves. Returns whether that is
    /// news.
    pub(in crate::router) fn on_neighbour_leaving(
        &mut self,
        neighbour: &NodeId,
        now: Instant,
    ) -> bool {
        let Some(session) = self.neighbours.get_mut(neighbour) else { return false };
        // A stub's leave is the end of its session.
        if session.kind == NeighbourKind::Stub || session.state == NeighbourState::Leaving {
            return false;
        }
        session.state = NeighbourState::Leaving;
        self.schedule.on_change();
        self.origin.on_change(Urgency::Coalesce, now);
        self.echoes.on_gone(neighbour);
        true
    }

    /// The session with the neighbour has synced, and its link is held back: reports it, unless the
    /// hold ends at once.
    pub(in crate::router) fn on_held(&mut self, neighbour: &NodeId, now: Instant) {
        self.release_needed(now);
        let held = self.neighbours.held().find(|(id, _)| *id == neighbour);
        if let Some(until) = held.map(|(_, until)| until) {
            self.counters.holds += 1;
            self.event(Event::LinkHeld { neighbour: neighbour.clone(), until });
        }
    }

    /// Ends the holds of links to neighbours that no other path leads to.
    pub(in crate::router) fn release_needed(&mut self, now: Instant) {
        if self.neighbours.held().next().is_none() {
            return;
        }
        let graph = self.database.graph();
        let paths = graph.number(self.id()).map(|source| {
            Paths::find(graph, source, |from, to| from != source || self.uses_link(graph.id(to)))
        });
        let reached = |id: &NodeId| {
            let way =
                graph.number(id).zip(paths.as_ref()).and_then(|(number, paths)| paths.way(number));
            way.is_some()
        };
        let needed: Vec<NodeId> =
            self.neighbours.held().map(|(id, _)| id).filter(|id| !reached(id)).cloned().collect();
        for id in needed {
            self.neighbours.release(&id);
            self.on_released(id, now);
        }
    }

    /// A hold is over: the link is advertised.
    pub(in crate::router) fn on_released(&mut self, neighbour: NodeId, now: Instant) {
        self.schedule.on_change();
        self.origin.on_change(Urgency::Now, now);
        self.event(Event::LinkReleased(neighbour));
    }

    /// A stub has attached itself. If it does so too often, its entry in the record waits.
    pub(in crate::router) fn damp_stub(&mut self, up: &SessionUp, now: Instant) {
        if let Some(until) = self.stub_damping.on_session_up(&up.neighbour, up.instance, now) {
            self.counters.holds += 1;
            self.event(Event::LinkHeld { neighbour: up.neighbour.clone(), until });
        }
    }

    /// The session with a process of a stub has ended.
    pub(in crate::router) fn on_stub_lost(&mut self, stub: &NodeId, instance: u64) {
        let link = self.database.get(self.id()).and_then(|record| record.link(stub));
        let listed = link.is_some_and(|link| link.class == LinkClass::Stub);
        self.stub_damping.on_session_down(stub, instance, listed);
    }

    pub(in crate::router) fn release_stubs(&mut self, now: Instant) {
        for stub in self.stub_damping.poll_releases(now) {
            self.origin.on_stubs_changed(now);
            self.event(Event::LinkReleased(stub));
        }
    }
}
