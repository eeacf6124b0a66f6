//! Makes a [`Status`] of what the driver knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::clock;
use super::driver::{Driver, Role};
use super::link::{Link, Phase};
use super::status::{
    CertificateStatus, Direction, EdgeStatus, LinkState, LinkStatus, NetworkStatus, PeerPath, PeerStatus,
    RecordStatus, RouteStatus, Status,
};
use crate::id::{Cost, NodeAddr, NodeId};
use crate::router::{LinkClass, NeighbourState, NeighbourView, Router};
use crate::switch::ForwardingTable;
use crate::transport::Identity;

/// What a dormant edge is shown to cost, as the seed had it. It carries no traffic.
const DORMANT_COST: u32 = 100;

/// A snapshot of the mesh as `driver` sees it.
pub(super) fn snapshot(driver: &Driver, now: Instant) -> Status {
    let router = match &driver.role {
        Role::Full(router) => Some(&**router),
        Role::Stub(_) => None,
    };
    let first_hops = FirstHops::of_now(driver);
    Status {
        node_id: driver.id.clone(),
        instance: format!("{:016x}", driver.start.instance),
        epoch: driver.start.epoch,
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: millis(now.saturating_duration_since(driver.started)),
        transit: driver.transit,
        ephemeral: router.is_none(),
        listen: if driver.accept_links { driver.endpoint.socket().bound_addrs() } else { Vec::new() },
        network: NetworkStatus {
            addresses: driver.roaming.addresses.clone(),
            changes: driver.roaming.moves,
            port_mapping: driver.port_mapping.clone(),
        },
        duplicate: router.and_then(super::twin::status).or_else(|| driver.twin.status()),
        certificate: certificate(&driver.endpoint.identity()),
        links: links(driver, router, now),
        routes: router.map(|router| routes(router, &first_hops)).unwrap_or_default(),
        edges: router.map(edges).unwrap_or_default(),
        peers: peers(driver, &first_hops, now),
        records: router.map(|router| records(driver, router)).unwrap_or_default(),
        left: driver.departures.status(now),
        paths: driver.paths.status(),
        detours: driver.detours.count(),
        switch: driver.endpoint.socket().counters().status(),
        services: driver.services.names().iter().map(ToString::to_string).collect(),
        refused_streams: driver.services.overloads(),
        datagrams: driver.services.datagrams.status(),
        running_calls: 0,
        handshakes: driver.handshakes.status(),
        receive_windows: driver.services.windows.status(),
    }
}

/// The neighbours that this node's own packets go to.
struct FirstHops {
    forwarding: Option<Arc<ForwardingTable>>,
    names: BTreeMap<NodeAddr, NodeId>,
}

impl FirstHops {
    fn of_now(driver: &Driver) -> Self {
        let forwarding = driver.view.borrow().forwarding.clone();
        let active = driver.neighbours.active().values().filter_map(|id| driver.neighbours.link(*id));
        let names = active.map(|link| (link.addr, link.peer.clone())).collect();
        Self { forwarding, names }
    }

    fn of(&self, node: NodeAddr) -> Option<NodeId> {
        let (hop, _) = self.forwarding.as_ref()?.originate(node)?;
        self.names.get(&hop.neighbour).cloned()
    }
}

fn certificate(identity: &Identity) -> CertificateStatus {
    let not_after =
        identity.not_after().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let left =
        i64::try_from(not_after).unwrap_or(i64::MAX) - i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX);
    CertificateStatus {
        names: identity.ids().to_vec(),
        not_after,
        days_left: left.div_euclid(24 * 60 * 60),
        valid_in_s: identity
            .not_before()
            .duration_since(clock::system())
            .ok()
            .map(|wait| wait.as_secs().max(1)),
        fingerprint: identity.fingerprint().to_string(),
    }
}

fn links(driver: &Driver, router: Option<&Router>, now: Instant) -> Vec<LinkStatus> {
    // `None` on a stub, which has nothing to sync.
    let synced: Option<BTreeSet<NodeId>> = router.map(|router| {
        let synced = |neighbour: &NeighbourView| neighbour.state != NeighbourState::Syncing;
        router.neighbours().filter(synced).map(|neighbour| neighbour.id).collect()
    });
    // What a neighbour says in its record is newer than its HELLO.
    let said = router.into_iter().flat_map(Router::database);
    let said = said.filter_map(|record| Some((&record.origin, record.active(&driver.id)?))).collect();
    let held: BTreeMap<NodeId, Instant> = router.into_iter().flat_map(Router::held_links).collect();
    let connected = driver.neighbours.links().values().map(|link| {
        let phase = driver.neighbours.phase(link.id);
        let held = held.get(&link.peer).filter(|_| phase == Some(Phase::Active));
        let synced = synced.as_ref().is_none_or(|synced| synced.contains(&link.peer));
        LinkStatus {
            held_ms: held.map(|until| millis(until.saturating_duration_since(now))),
            ..link_status(link, state(phase, synced, held.is_some()), &said, now)
        }
    });
    let dialled = driver.dialled.iter().filter_map(|dialled| {
        dialled.status().filter(|status| {
            let linked = |peer: &NodeId| driver.neighbours.active().contains_key(peer);
            !status.peer.as_ref().is_some_and(linked)
        })
    });
    connected.chain(dialled).collect()
}

fn state(phase: Option<Phase>, synced: bool, held: bool) -> LinkState {
    match phase {
        Some(Phase::Active) if held => LinkState::Held,
        Some(Phase::Active) if synced => LinkState::Up,
        Some(Phase::Active | Phase::Waiting) => LinkState::Syncing,
        Some(Phase::Draining { .. }) | None => LinkState::Draining,
    }
}

fn link_status(link: &Link, state: LinkState, said: &BTreeMap<&NodeId, Cost>, now: Instant) -> LinkStatus {
    LinkStatus {
        peer: Some(link.peer.clone()),
        state,
        direction: if link.dialled { Direction::Outgoing } else { Direction::Incoming },
        address: canonical(link.remote).to_string(),
        rtt_ms: Some(rtt_ms(link.connection.rtt())),
        mtu: Some(link.connection.stats().path.current_mtu),
        cost: Some(link.cost.max(said.get(&link.peer).copied().unwrap_or(link.their_cost)).get()),
        up_ms: Some(millis(now.saturating_duration_since(link.since))),
        held_ms: None,
        ephemeral: link.stub,
        observed: Some(canonical(link.observed)),
        attempts: 0,
        last_error: None,
    }
}

fn routes(router: &Router, first_hops: &FirstHops) -> Vec<RouteStatus> {
    let capabilities: BTreeMap<_, _> =
        router.database().map(|record| (record.origin.clone(), record.capabilities.clone())).collect();
    let route = |route: &crate::router::Route| {
        Some(RouteStatus {
            directives: Vec::new(),
            capabilities: capabilities.get(&route.id).cloned().unwrap_or_default(),
            node: route.id.clone(),
            next_hop: first_hops.of(route.addr).or_else(|| route.next_hops.first().cloned())?,
            next_hops: route.next_hops.to_vec(),
            alternates: route.alternates.to_vec(),
            cost: route.cost,
            hops: route.hops,
        })
    };
    router.table().iter().filter_map(route).collect()
}

fn records(driver: &Driver, router: &Router) -> RecordStatus {
    let counters = router.counters();
    RecordStatus {
        verified: counters.records_verified,
        forged: counters.records_forged,
        untrusted: counters.records_untrusted,
        unproven: counters.records_unproven,
        attachments: counters.attachments_verified,
        claims_rejected: counters.claims_rejected,
        credentials_pulled: counters.credentials_pulled,
        credentials_sent: counters.credentials_sent,
        not_trusted: driver.distrusted.status(|node| router.record_version(node)),
    }
}

fn edges(router: &Router) -> Vec<EdgeStatus> {
    router
        .database()
        .flat_map(|record| {
            record.links.iter().map(|link| EdgeStatus {
                from: record.origin.clone(),
                to: link.peer.clone(),
                cost: if link.class == LinkClass::Dormant { DORMANT_COST } else { link.cost.get() },
                class: match link.class {
                    LinkClass::Active => "active",
                    LinkClass::Stub => "stub",
                    LinkClass::Dormant => "dormant",
                },
            })
        })
        .collect()
}

fn peers(driver: &Driver, first_hops: &FirstHops, now: Instant) -> Vec<PeerStatus> {
    let ago = |since| now.saturating_duration_since(since).as_secs_f64();
    let neighbours = driver.neighbours.active().keys().filter_map(|peer| {
        let link = driver.neighbours.active_link(peer)?;
        Some(PeerStatus {
            node: peer.clone(),
            path: PeerPath::Link,
            via: None,
            detour: None,
            address: None,
            since_s: Some(ago(link.since)),
            rtt_ms: rtt_ms(link.connection.rtt()),
            streams: link.usage.streams(),
            opening: link.usage.waiting(),
        })
    });
    let others = driver.peers.views().into_iter().map(|peer| {
        let direct = driver.paths.path(&peer.node);
        PeerStatus {
            via: first_hops.of(peer.node.addr()),
            detour: driver.detours.of(&peer.node, now),
            path: if direct.is_some() { PeerPath::Direct } else { PeerPath::Relayed },
            address: direct.map(|path| path.to),
            since_s: driver.paths.since(&peer.node).map(ago),
            rtt_ms: rtt_ms(peer.rtt),
            streams: peer.streams,
            opening: peer.waiting,
            node: peer.node,
        }
    });
    neighbours.chain(others).collect()
}

fn canonical(addr: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rtt_ms(rtt: std::time::Duration) -> f64 {
    // Microseconds are what a round trip is known to.
    rtt.as_micros() as f64 / 1_000.0
}
