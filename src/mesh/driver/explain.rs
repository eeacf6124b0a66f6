//! Why a node is, or is not, reachable, and why its packets travel as they do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Driver, Role};
use crate::id::NodeId;
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::mesh::report::explanation::{
    AttemptStatus, CandidateStatus, Candidates, NatPair, NodeExplanation, PathExplanation,
    StreamUse,
};
use crate::mesh::report::status::PeerPath;
use crate::punch::{self, Candidate, Checked};
use crate::router::{ClaimState, Explanation};

impl Driver {
    /// Explains a node as the driver sees it.
    pub(super) fn explain(&self, node: &NodeId, now: Instant) -> NodeExplanation {
        let route = match &self.role {
            Role::Full(router) => router.explain(node),
            Role::Stub(_) if *node == self.id => Explanation::Myself,
            Role::Stub(_) => Explanation::NoDatabase,
        };
        let claims = match &self.role {
            Role::Full(router) => router.claims(node),
            Role::Stub(_) => Vec::new(),
        };
        let next_hops = match &self.role {
            Role::Full(router) => {
                router.table().route(node).map(|route| route.next_hops.clone()).unwrap_or_default()
            }
            Role::Stub(_) => self.neighbours.active().keys().cloned().collect(),
        };
        let punched = self.paths.puncher().and_then(|puncher| puncher.explain(node));
        let puncher = self.paths.puncher();
        let mine = puncher.map(punch::Puncher::class);
        // A stub has neighbours to send to, which is not to say that they know the way.
        let routed = !next_hops.is_empty() && matches!(self.role, Role::Full(_));
        let path = path(self, node, punched.as_ref(), routed, now);
        let candidates = match (&punched, puncher) {
            (Some(punched), _) => Candidates {
                mine: punched.my_candidates.iter().map(candidate).collect(),
                theirs: punched.their_candidates.iter().map(checked).collect(),
            },
            (None, Some(puncher)) => Candidates {
                mine: puncher.candidates().iter().map(candidate).collect(),
                theirs: Vec::new(),
            },
            (None, None) => Candidates::default(),
        };
        let attempts = punched
            .as_ref()
            .map(|punched| punched.attempts.iter().map(|a| attempt(a, now)).collect());
        let held = match &self.role {
            Role::Full(router) => router.held_until(node),
            Role::Stub(_) => None,
        };
        // One that is listed again is back, whether or not that is proven.
        let listed = claims.iter().any(|claim| !matches!(claim.state, ClaimState::Rejected(_)));
        NodeExplanation {
            node: node.clone(),
            route,
            claims,
            left: self.departures.of(node, now).filter(|_| !listed),
            held_ms: held.map(|until| millis(until.saturating_duration_since(now)) as u64),
            next_hops: next_hops.to_vec(),
            detour: self.detours.of(node, now),
            path,
            streams: match self.neighbours.active_link(node) {
                Some(link) => Some(StreamUse::of(&link.usage)),
                None => self.peers.streams(node),
            },
            nat: NatPair {
                mine: mine.map(|class| class.as_str().into()),
                theirs: punched.as_ref().map(|punched| punched.theirs.as_str().into()),
            },
            candidates,
            attempts: attempts.unwrap_or_default(),
        }
    }

    /// Where packets for a node go first, if they go through the mesh.
    fn relay_of(&self, node: &NodeId) -> Option<SocketAddr> {
        let forwarding = self.view.borrow().forwarding.clone()?;
        forwarding.originate_handshake(node.addr()).map(|(hop, _)| canonical(hop.to))
    }
}

fn path(
    driver: &Driver,
    node: &NodeId,
    punched: Option<&punch::Explanation>,
    routed: bool,
    now: Instant,
) -> Option<PathExplanation> {
    if *node == driver.id {
        return None;
    }
    if let Some(link) = driver.neighbours.active_link(node) {
        return Some(PathExplanation {
            kind: PeerPath::Link,
            address: Some(link.address()),
            candidate: None,
            rtt_ms: Some(millis(link.connection.rtt())),
            since_s: Some(seconds(now.saturating_duration_since(link.since))),
            why: "neighbour".into(),
            reason: match link.carrier() {
                Carrier::Udp => "it is a neighbour: its streams ride the link",
                Carrier::Tls => "it is a neighbour: its streams ride the link, in TLS over TCP",
            }
            .to_owned(),
        });
    }
    if let Some(punch::Path { to, kind, rtt, .. }) = punched.and_then(|punched| punched.path) {
        return Some(PathExplanation {
            kind: PeerPath::Direct,
            address: Some(to),
            candidate: Some(kind.as_str().into()),
            rtt_ms: Some(millis(rtt)),
            since_s: punched.map(|punched| seconds(now.saturating_duration_since(punched.since))),
            why: punch::Why::Direct.as_str().into(),
            reason: punch::Why::Direct.reason().to_owned(),
        });
    }
    let connection = driver.peers.views().into_iter().find(|peer| peer.node == *node);
    let relay = driver.relay_of(node);
    let relayed = |why: &'static str, reason: String| PathExplanation {
        kind: PeerPath::Relayed,
        address: relay,
        candidate: None,
        rtt_ms: connection.as_ref().map(|connection| millis(connection.rtt)),
        since_s: punched.map(|punched| seconds(now.saturating_duration_since(punched.since))),
        why: why.into(),
        reason,
    };
    match (punched, &connection) {
        (Some(punched), _) => Some(relayed(punched.why.as_str(), punched.why.reason().to_owned())),
        (None, Some(_)) => Some(relayed("off", "direct paths are off at this node".to_owned())),
        (None, None) if routed => Some(relayed(
            "not-connected",
            "there is no connection to it, since nobody needed one".to_owned(),
        )),
        (None, None) => None,
    }
}

fn candidate(candidate: &Candidate) -> CandidateStatus {
    CandidateStatus {
        address: candidate.addr,
        kind: candidate.kind.as_str().into(),
        probes: 0,
        rtt_ms: None,
    }
}

fn checked(checked: &Checked) -> CandidateStatus {
    let Checked { candidate: of, probes, rtt } = checked;
    CandidateStatus { probes: *probes, rtt_ms: rtt.map(millis), ..candidate(of) }
}

fn attempt(attempt: &punch::Attempt, now: Instant) -> AttemptStatus {
    AttemptStatus {
        ago_s: seconds(now.saturating_duration_since(attempt.at)),
        took_ms: millis(attempt.took),
        cause: attempt.cause.as_str().into(),
        outcome: attempt.outcome.as_str().into(),
        reason: attempt.outcome.reason().into(),
        probes: attempt.probes,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}
