//! Many edges behind one relay: punching settles, and the relay is left with what keeps connections
//! alive.
//!
//! `RECEPTOR_EDGES=200` plays it with so many edges. Most of the time is spent on starting them:
//! each verifies the record of each other one.

use std::time::Duration;

use receptor_quic::mesh::{PathsStatus, PeerPath, Status};
use receptor_quic::testing::{LinkQuality, Mesh, Nat, NatKind, Network};
use receptor_quic::{Node, NodeExplanation};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{echo, serve_echo};

/// Some eight seconds of one core; 200 take twice that.
const EDGES: usize = 100;
/// Of these, those that call each other.
const CALLERS: usize = 20;
/// How often each calls each other one.
const EVERY: Duration = Duration::from_secs(4);
/// From the first calls on: every pair that can be direct is so, and the others have begun to back
/// off.
const SETTLING: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(60);
/// After the last call a connection is closed by the end that opened it after 60 to 75 s, by the
/// other one after twice that at most.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// Attempts of a relayed pair in a window after settling: by then the wait is 40 s, give or take a
/// quarter, and it doubles.
const RETRIES: usize = 2;
/// Probes and answers of one end of a direct pair, a second: one probe of the path in use, one in 5
/// s of each of two spares, and as many answers.
const PROBES_PER_SECOND: f64 = 2.8;
/// Packets of an otherwise silent connection through the relay, a second: each end sends a
/// keepalive every 4 s, which is acknowledged. Half of that again for those that are closed.
const KEEPALIVES_PER_SECOND: f64 = 1.5;
/// Such a packet is some 70 bytes long, with the relay's header.
const KEEPALIVE_BYTES: f64 = 100.0;
/// Mappings that a symmetric NAT makes for each peer: for its outer and its inner address, and for
/// what it was before. While a relayed pair is tried again, as many for each of the fresh ports:
/// about a hundred for 19 peers were seen at most.
const MAPPINGS_PER_PEER: usize = 8;

#[tokio::test(start_paused = true)]
async fn edges_behind_one_relay_that_all_call_each_other_settle_and_leave_the_relay_its_keepalives()
{
    let edges = std::env::var("RECEPTOR_EDGES")
        .map_or(EDGES, |edges| edges.parse().expect("a number of edges"));
    let crowd = Crowd::new(edges).await;
    let idle = crowd.during(WINDOW, async {}).await;
    assert_eq!(idle, Load::default(), "nobody calls, and nobody carries or probes anything");

    let settling = crowd.during(SETTLING, crowd.call(|_, _| true, SETTLING)).await;
    println!("settling: {settling:?}");
    let (mut direct, mut relayed) = (0_u32, 0_u32);
    for (near, far) in crowd.pairs() {
        let path = near.explain(far).await.path.unwrap();
        let expected =
            if near.can_be_direct_with(far) { PeerPath::Direct } else { PeerPath::Relayed };
        assert_eq!(path.kind, expected, "{:?} to {:?}: {}", near.kind, far.kind, path.why);
        *if expected == PeerPath::Direct { &mut direct } else { &mut relayed } += 1;
    }

    // Everybody goes on calling.
    let settled = crowd.during(WINDOW, crowd.call(|_, _| true, WINDOW)).await;
    println!("settled: {settled:?}, {direct} direct ends, {relayed} relayed ones");
    for (near, far) in crowd.pairs() {
        let explained = near.explain(far).await;
        let lately = explained
            .attempts
            .iter()
            .filter(|attempt| attempt.ago_s < WINDOW.as_secs_f64())
            .count();
        let most = if near.can_be_direct_with(far) { 0 } else { RETRIES };
        assert!(lately <= most, "{:?} to {:?}: {lately} attempts", near.kind, far.kind);
    }
    for edge in &crowd.callers {
        let status = edge.status().await;
        assert_eq!(status.peers.len(), CALLERS, "the others that call, and the relay");
        assert_eq!(status.routes.len(), edges);
        let mappings = edge.nat.mappings();
        assert!(
            mappings <= 1 + MAPPINGS_PER_PEER * CALLERS,
            "{:?}: {mappings} mappings",
            edge.kind
        );
    }

    // Those that do so directly go on calling.
    let kept = crowd.during(WINDOW, crowd.call(Edge::can_be_direct_with, WINDOW)).await;
    println!("direct calls only: {kept:?}");
    let seconds = WINDOW.as_secs_f64();
    assert_eq!(kept.attempts, 0);
    let probes = kept.probes as f64 / f64::from(direct) / seconds;
    assert!(probes <= PROBES_PER_SECOND, "{probes} probes a second");
    // Each relayed pair has two ends, and one connection.
    let keepalives = kept.forwarded as f64 / f64::from(relayed / 2) / seconds;
    assert!(keepalives <= KEEPALIVES_PER_SECOND, "{keepalives} packets a second");
    assert!(kept.forwarded_bytes as f64 <= kept.forwarded as f64 * KEEPALIVE_BYTES, "{kept:?}");

    // Nobody calls.
    tokio::time::sleep(FORGOTTEN).await;
    let over = crowd.during(WINDOW, async {}).await;
    assert_eq!(over, Load::default(), "nothing is left of it");
    for edge in &crowd.callers {
        let status = edge.status().await;
        let peers: Vec<_> = status.peers.iter().map(|peer| peer.node.as_str()).collect();
        assert_eq!(peers, ["relay"]);
        assert_eq!(edge.nat.mappings(), 1);
    }
}

/// What all of them did in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Load {
    /// Packets that the relay carried.
    forwarded: u64,
    forwarded_bytes: u64,
    attempts: u64,
    /// Answers included.
    probes: u64,
}

struct Edge {
    kind: NatKind,
    nat: Nat,
    node: Node,
}

impl Edge {
    fn can_be_direct_with(&self, other: &Self) -> bool {
        use NatKind::{PortRestricted, Symmetric};
        let hard = |one, other| one == Symmetric && matches!(other, Symmetric | PortRestricted);
        !hard(self.kind, other.kind) && !hard(other.kind, self.kind)
    }

    async fn status(&self) -> Status {
        self.node.status().await.unwrap()
    }

    async fn explain(&self, far: &Self) -> NodeExplanation {
        self.node.explain(far.node.id()).await.unwrap()
    }

    async fn paths(&self) -> PathsStatus {
        self.status().await.paths.unwrap()
    }
}

/// One relay, and edges behind NATs of their own; some of them call.
struct Crowd {
    mesh: Mesh,
    callers: Vec<Edge>,
    _others: Vec<Edge>,
}

impl Crowd {
    async fn new(edges: usize) -> Self {
        let network = Network::new(1);
        let mesh = Mesh::on(network.clone(), ["relay"]).await;
        let mut starting = JoinSet::new();
        for nth in 0..edges {
            // Of five callers one is behind a symmetric NAT.
            let kind = match nth % 10 {
                0 | 5 => NatKind::Symmetric,
                1 => NatKind::FullCone,
                2 => NatKind::AddressRestricted,
                _ => NatKind::PortRestricted,
            };
            let nat = network.nat(kind);
            let latency = Duration::from_millis(5 + nth as u64 % 40);
            nat.set_access(LinkQuality { latency, ..LinkQuality::default() });
            let builder =
                mesh.joiner_on(nat.host(), &format!("edge{nth}"), &["relay"]).direct(true);
            starting.spawn(async move {
                (nth, Edge { kind, nat, node: builder.start().await.unwrap() })
            });
        }
        let mut edges = starting.join_all().await;
        edges.sort_by_key(|(nth, _)| *nth);
        let mut callers: Vec<_> = edges.into_iter().map(|(_, edge)| edge).collect();
        let others = callers.split_off(CALLERS);
        for edge in callers.iter().chain(&others) {
            mesh.node("relay").routable(edge.node.id()).await.unwrap();
        }
        for edge in &callers {
            serve_echo(&edge.node);
            for other in callers.iter().chain(&others) {
                edge.node.routable(other.node.id()).await.unwrap();
            }
        }
        Self { mesh, callers, _others: others }
    }

    /// All ordered pairs of those that call.
    fn pairs(&self) -> impl Iterator<Item = (&Edge, &Edge)> {
        let different = |(near, far): &(&Edge, &Edge)| near.node.id() != far.node.id();
        self.callers
            .iter()
            .flat_map(|near| self.callers.iter().map(move |far| (near, far)))
            .filter(different)
    }

    /// Has the pairs that are chosen call for a time, spread evenly.
    async fn call(&self, chosen: impl Fn(&Edge, &Edge) -> bool, time: Duration) {
        let end = Instant::now() + time;
        let pairs: Vec<_> = self.pairs().filter(|(near, far)| chosen(near, far)).collect();
        let mut calling = JoinSet::new();
        for (nth, (near, far)) in pairs.iter().enumerate() {
            let (near, far) = (near.node.clone(), far.node.id().clone());
            let first = Instant::now() + EVERY * nth as u32 / pairs.len() as u32;
            calling.spawn(async move {
                let mut next = first;
                while next < end {
                    tokio::time::sleep_until(next).await;
                    echo(&near, far.as_str()).await;
                    next += EVERY;
                }
            });
        }
        calling.join_all().await;
    }

    /// What is done in a time, and what is done by all in it.
    async fn during(&self, time: Duration, what: impl Future<Output = ()>) -> Load {
        let (before, start) = (self.load().await, Instant::now());
        what.await;
        tokio::time::sleep(time.saturating_sub(start.elapsed())).await;
        let after = self.load().await;
        Load {
            forwarded: after.forwarded - before.forwarded,
            forwarded_bytes: after.forwarded_bytes - before.forwarded_bytes,
            attempts: after.attempts - before.attempts,
            probes: after.probes - before.probes,
        }
    }

    async fn load(&self) -> Load {
        let relay = self.mesh.node("relay").status().await.unwrap().switch;
        let mut load = Load {
            forwarded: relay.forwarded,
            forwarded_bytes: relay.forwarded_bytes,
            ..Load::default()
        };
        for edge in &self.callers {
            let paths = edge.paths().await;
            load.attempts += paths.attempts;
            load.probes += paths.probes_sent;
        }
        load
    }
}
