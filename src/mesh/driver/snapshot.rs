//! Makes a [`Status`] of what the driver knows.
//!
//! With thousands of links a status takes milliseconds to build. The driver therefore only collects
//! a [`Snapshot`], of parts that are cheap to clone, and the status is built from it on another
//! thread. Stubs are most of a large mesh; a reader that does not need each of them limits their
//! number, and then neither side handles the rest.

mod collect;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::id::{Cost, NodeAddr, NodeId};
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::report::status::{
    Direction, EdgeStatus, LinkState, LinkStatus, PeerPath, PeerStatus, RouteStatus, Status,
    StubsStatus,
};
use crate::mesh::view::LinkView;
use crate::router::{LinkClass, Record, Table};
use crate::switch::ForwardingTable;

/// What a dormant edge is shown to cost, as the seed had it. It carries no traffic.
const DORMANT_COST: u32 = 100;
/// Links, routes and records of which a status is built where it is asked for; that of a larger
/// mesh is built on a blocking thread.
const SMALL: usize = 256;

/// The mesh as the driver sees it at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Complete except for what grows with the mesh: links, routes, edges and peers.
    small: Status,
    links: Vec<LinkPart>,
    /// Peers that are dialled and not linked.
    dialled: Vec<LinkStatus>,
    table: Arc<Table>,
    records: Vec<Record>,
    forwarding: Option<Arc<ForwardingTable>>,
    /// Peer connections of nodes that are not neighbours, without the neighbour that their packets
    /// go through.
    peers: Vec<PeerStatus>,
    /// Maximum number of stubs in each list of the status.
    max_stubs: usize,
    now: Instant,
}

/// One link.
#[derive(Debug)]
struct LinkPart {
    peer: NodeId,
    addr: NodeAddr,
    /// Whether it carries the session of its neighbour.
    active: bool,
    state: LinkState,
    dialled: bool,
    stub: bool,
    cost: Cost,
    their_cost: Cost,
    address: SocketAddr,
    carrier: Carrier,
    observed: SocketAddr,
    since: Instant,
    held_until: Option<Instant>,
    view: Arc<LinkView>,
}

impl Snapshot {
    /// Whether the status is built within a few hundred microseconds.
    pub(crate) fn is_small(&self) -> bool {
        self.links.len() + self.table.len() + self.records.len() <= SMALL
    }

    /// Builds the status. It takes time in proportion to links, routes and edges.
    pub(crate) fn into_status(self) -> Status {
        let first_hops = FirstHops::new(&self);
        let (stubs, routes, edges) = (self.stubs(), self.routes(&first_hops), self.edges());
        // What a neighbour says in its record is newer than its HELLO.
        let me = &self.small.node_id;
        let said =
            self.records.iter().filter_map(|record| Some((&record.origin, record.active(me)?)));
        let said: BTreeMap<&NodeId, Cost> = said.collect();
        let links =
            self.links.iter().map(|link| link.status(said.get(&link.peer).copied(), self.now));
        let links: Vec<_> = links.chain(self.dialled.iter().cloned()).collect();
        let peers = self.peers(&first_hops);
        Status { stubs, links, routes, edges, peers, ..self.small }
    }

    fn stubs(&self) -> StubsStatus {
        let attached = self.records.iter().map(|record| {
            let stubs = record.links.iter().filter(|link| link.class == LinkClass::Stub);
            (record.origin.clone(), stubs.count())
        });
        StubsStatus {
            reachable: self.table.iter().filter(|route| route.stub).count(),
            attached: attached.filter(|(_, stubs)| *stubs > 0).collect(),
            ..self.small.stubs.clone()
        }
    }

    fn peers(&self, first_hops: &FirstHops) -> Vec<PeerStatus> {
        let mut neighbours: Vec<_> = self.links.iter().filter(|link| link.active).collect();
        neighbours.sort_by(|a, b| a.peer.cmp(&b.peer));
        let mut listed = AtMost::new(self.max_stubs);
        let neighbours = neighbours.into_iter().filter(|link| !link.stub || listed.one_more());
        let mut peers: Vec<_> = neighbours.map(|link| link.peer_status(self.now)).collect();
        let is_stub = |node: &NodeId| self.table.route(node).is_some_and(|route| route.stub);
        let others = self.peers.iter().filter(|peer| !is_stub(&peer.node) || listed.one_more());
        peers.extend(
            others.map(|peer| PeerStatus { via: first_hops.of(peer.node.addr()), ..peer.clone() }),
        );
        peers
    }

    fn routes(&self, first_hops: &FirstHops) -> Vec<RouteStatus> {
        let capabilities = |node: &NodeId| {
            let nth = self.records.binary_search_by(|record| record.origin.cmp(node)).ok();
            nth.map(|nth| self.records[nth].capabilities.clone()).unwrap_or_default()
        };
        let route = |route: &crate::router::Route| {
            Some(RouteStatus {
                directives: Vec::new(),
                capabilities: capabilities(&route.id),
                node: route.id.clone(),
                next_hop: first_hops.of(route.addr).or_else(|| route.next_hops.first().cloned())?,
                next_hops: route.next_hops.to_vec(),
                alternates: route.alternates.to_vec(),
                cost: route.cost,
                hops: route.hops,
            })
        };
        let mut listed = AtMost::new(self.max_stubs);
        self.table
            .iter()
            .filter(|route| !route.stub || listed.one_more())
            .filter_map(route)
            .collect()
    }

    fn edges(&self) -> Vec<EdgeStatus> {
        let mut listed = AtMost::new(self.max_stubs);
        let links = self
            .records
            .iter()
            .flat_map(|record| record.links.iter().map(move |link| (&record.origin, link)));
        let links = links.filter(|(_, link)| link.class != LinkClass::Stub || listed.one_more());
        let edges = links.map(|(origin, link)| EdgeStatus {
            from: origin.clone(),
            to: link.peer.clone(),
            cost: if link.class == LinkClass::Dormant { DORMANT_COST } else { link.cost.get() },
            class: Cow::Borrowed(match link.class {
                LinkClass::Active => "active",
                LinkClass::Stub => "stub",
                LinkClass::Dormant => "dormant",
            }),
        });
        edges.collect()
    }
}

/// Permits a number of entries.
struct AtMost(usize);

impl AtMost {
    fn new(max: usize) -> Self {
        Self(max)
    }

    fn one_more(&mut self) -> bool {
        let room = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        room
    }
}

impl LinkPart {
    /// `said` is the cost in the neighbour's record.
    fn status(&self, said: Option<Cost>, now: Instant) -> LinkStatus {
        let connection = &self.view.connection;
        LinkStatus {
            peer: Some(self.peer.clone()),
            state: self.state,
            direction: if self.dialled { Direction::Outgoing } else { Direction::Incoming },
            carrier: self.carrier,
            address: self.address.to_string(),
            rtt_ms: Some(rtt_ms(connection.rtt())),
            mtu: Some(connection.stats().path.current_mtu),
            cost: Some(self.cost.max(said.unwrap_or(self.their_cost)).get()),
            up_ms: Some(millis(now.saturating_duration_since(self.since))),
            held_ms: self.held_until.map(|until| millis(until.saturating_duration_since(now))),
            ephemeral: self.stub,
            observed: Some(canonical(self.observed)),
            attempts: 0,
            last_error: None,
        }
    }

    fn peer_status(&self, now: Instant) -> PeerStatus {
        PeerStatus {
            node: self.peer.clone(),
            path: PeerPath::Link,
            via: None,
            detour: None,
            address: None,
            since_s: Some(now.saturating_duration_since(self.since).as_secs_f64()),
            rtt_ms: rtt_ms(self.view.connection.rtt()),
            streams: self.view.usage.streams(),
            opening: self.view.usage.waiting(),
        }
    }
}

/// The neighbours that this node's own packets go to.
struct FirstHops {
    forwarding: Option<Arc<ForwardingTable>>,
    names: BTreeMap<NodeAddr, NodeId>,
}

impl FirstHops {
    fn new(snapshot: &Snapshot) -> Self {
        let active = snapshot.links.iter().filter(|link| link.active);
        let names = active.map(|link| (link.addr, link.peer.clone())).collect();
        Self { forwarding: snapshot.forwarding.clone(), names }
    }

    fn of(&self, node: NodeAddr) -> Option<NodeId> {
        let (hop, _) = self.forwarding.as_ref()?.originate(node)?;
        self.names.get(&hop.neighbour).cloned()
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rtt_ms(rtt: std::time::Duration) -> f64 {
    // Microseconds are what a round trip is known to.
    rtt.as_micros() as f64 / 1_000.0
}
