//! Collects a [`Snapshot`] of the driver.

use std::sync::Arc;
use std::time::Instant;

use super::{LinkPart, Snapshot, millis, rtt_ms};
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::driver::{Driver, Role};
use crate::mesh::links::id::Phase;
use crate::mesh::links::link::Link;
use crate::mesh::report::status::{
    CertificateStatus, LinkState, NetworkStatus, PeerPath, PeerStatus, PolicyStatus, RecordStatus,
    Status, StatusOptions, StubsStatus,
};
use crate::router::{NeighbourState, Router};
use crate::transport::Identity;

impl Driver {
    /// Collects what a status of the mesh is built from. What it visits grows with routers, and
    /// with the stubs that `options` permit it to list, but not with all stubs.
    pub(in crate::mesh::driver) fn snapshot(
        &self,
        options: StatusOptions,
        now: Instant,
    ) -> Snapshot {
        let max_stubs = options.max_stubs.unwrap_or(usize::MAX);
        let router = match &self.role {
            Role::Full(router) => Some(&**router),
            Role::Stub(_) => None,
        };
        let small = Status {
            node_id: self.id.clone(),
            instance: format!("{:016x}", self.start.instance),
            epoch: self.start.epoch,
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: millis(now.saturating_duration_since(self.started)),
            transit: self.transit,
            relays: self
                .endpoint
                .identity()
                .trust()
                .relays()
                .map(|rules| rules.map(ToString::to_string).collect()),
            ephemeral: router.is_none(),
            listen: if self.accept_links {
                self.endpoint.socket().bound_addrs()
            } else {
                Vec::new()
            },
            listen_tcp: self.listen_tcp.clone(),
            carriers: self.endpoint.socket().carriers().status(),
            network: NetworkStatus {
                addresses: self.roaming.addresses.clone(),
                changes: self.roaming.moves,
                port_mapping: self.port_mapping.clone(),
            },
            duplicate: router
                .and_then(crate::mesh::links::twin::status)
                .or_else(|| self.twin.status()),
            certificate: certificate(&self.endpoint.identity()),
            stubs: StubsStatus {
                links: self.neighbours.stub_links(),
                max_listed: options.max_stubs,
                ..StubsStatus::default()
            },
            links: Vec::new(),
            routes: Vec::new(),
            edges: Vec::new(),
            peers: Vec::new(),
            records: router.map(|router| records(self, router)).unwrap_or_default(),
            left: self.departures.status(now),
            paths: self.paths.status(),
            detours: self.detours.count(),
            switch: self.endpoint.socket().counters().status(),
            services: self.services.names().iter().map(ToString::to_string).collect(),
            refused_streams: self.services.overloads(),
            datagrams: self.services.datagrams.status(),
            running_calls: 0,
            policy: PolicyStatus::default(),
            handshakes: self.handshakes.status(),
            receive_windows: self.services.windows.status(),
            send_windows: self.services.send_windows.status(),
        };
        let linked = |peer: &NodeId| self.neighbours.active().contains_key(peer);
        let dialled = self.dials.peers().list();
        let dialled = dialled.iter().filter_map(|dialled| dialled.status());
        Snapshot {
            small,
            links: links(self, router, max_stubs),
            dialled: dialled.filter(|status| !status.peer.as_ref().is_some_and(linked)).collect(),
            table: router.map(Router::table).unwrap_or_default(),
            records: router.into_iter().flat_map(Router::database).cloned().collect(),
            forwarding: self.view.borrow().forwarding.clone(),
            peers: peers(self, now),
            max_stubs,
            now,
        }
    }
}

fn links(driver: &Driver, router: Option<&Router>, max_stubs: usize) -> Vec<LinkPart> {
    // Only two routers sync.
    let synced = |peer: &NodeId| {
        let state = |router: &Router| router.neighbour_state(peer);
        router.is_none_or(|router| {
            state(router).is_some_and(|state| state != NeighbourState::Syncing)
        })
    };
    let part = |link: &Link| {
        let phase = driver.neighbours.phase(link.id);
        let active = phase == Some(Phase::Active);
        let synced = link.stub || synced(&link.peer);
        let held_until = router.and_then(|router| router.held_until(&link.peer)).filter(|_| active);
        LinkPart {
            peer: link.peer.clone(),
            addr: link.addr,
            active,
            state: state(phase, synced, held_until.is_some()),
            dialled: link.dialled,
            stub: link.stub,
            cost: link.cost,
            their_cost: link.their_cost,
            address: link.address(),
            carrier: link.carrier(),
            observed: link.observed,
            since: link.since,
            held_until,
            view: Arc::clone(&link.view),
        }
    };
    driver.neighbours.routers_and_stubs(max_stubs).map(part).collect()
}

fn peers(driver: &Driver, now: Instant) -> Vec<PeerStatus> {
    let ago = |since| now.saturating_duration_since(since).as_secs_f64();
    let others = driver.peers.views().into_iter().map(|peer| {
        let direct = driver.paths.path(&peer.node);
        PeerStatus {
            via: None,
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
    others.collect()
}

fn certificate(identity: &Identity) -> CertificateStatus {
    let not_after = identity
        .not_after()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let left = i64::try_from(not_after).unwrap_or(i64::MAX)
        - i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX);
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

fn state(phase: Option<Phase>, synced: bool, held: bool) -> LinkState {
    match phase {
        Some(Phase::Active) if held => LinkState::Held,
        Some(Phase::Active) if synced => LinkState::Up,
        Some(Phase::Active | Phase::Waiting) => LinkState::Syncing,
        Some(Phase::Draining { .. }) | None => LinkState::Draining,
    }
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
