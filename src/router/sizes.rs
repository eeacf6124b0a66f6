//! How much a router holds.

use super::Router;

/// How much a router holds, by count. For status pages, and for tests that nothing is left behind:
/// once nothing changes any more, and what is to be forgotten is forgotten, all of this follows
/// from the nodes and links that are reachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// Records, one per origin, reachable or not. At most
    /// [`Limits::origins`](super::Limits::origins) and this node's own.
    pub records: usize,
    /// Nodes of the graph that paths are found in: as many as records.
    pub vertices: usize,
    /// Sessions, stubs included.
    pub sessions: usize,
    /// Messages that neighbours are still to be sent, or what will be made into them: nothing once
    /// all was said. At most a few per origin and session.
    pub owed: usize,
    /// Records that neighbours announced and that are awaited. At most
    /// [`Limits::origins`](super::Limits::origins) for each neighbour, and four times as many in
    /// all.
    pub pulls: usize,
    /// Updates that came too fast and wait. At most one per origin.
    pub parked: usize,
    /// Credentials of other nodes, and this node's own. At most two per origin.
    pub credentials: usize,
    /// Records that wait for their credentials. At most 4,096 per session, and 16,384 in all.
    pub unproven: usize,
    /// Claims about other nodes' stubs that were asked about. At most 16,384.
    pub claims: usize,
    /// Neighbours whose lost links are remembered for up to
    /// [`Timers::flap_memory`](super::Timers::flap_memory): at most
    /// [`Limits::active_links`](super::Limits::active_links) routers, 4,096 stubs and 4,096 base
    /// ids of stubs.
    pub flaps: usize,
    /// Trees of floods that are kept. At most 1,024.
    pub trees: usize,
    /// Ids in the cache of what was seen. At most [`Limits::seen_ids`](super::Limits::seen_ids).
    pub seen_ids: usize,
    /// Ids left out of the table because their address is taken.
    pub collisions: usize,
    /// Echo waves that are under way here, or were within the last minute. At most one per origin.
    pub waves: usize,
    /// Events that wait to be polled. At most [`Limits::events`](super::Limits::events).
    pub events: usize,
}

impl Router {
    /// How much this router holds now. Takes one step per session.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            records: self.database.len(),
            vertices: self.database.graph().node_count(),
            sessions: self.neighbours.iter().count(),
            owed: self.neighbours.owed(),
            pulls: self.pulls.len(),
            parked: self.parked.len(),
            credentials: self.credentials.len(),
            unproven: self.credentials.waiting(),
            claims: self.claims.len(),
            flaps: self.neighbours.remembered_flaps() + self.stub_damping.remembered(),
            trees: self.flood.kept_trees(),
            seen_ids: self.seen.len(),
            collisions: self.collisions.len(),
            waves: self.echoes.len(),
            events: self.events.len(),
        }
    }
}
