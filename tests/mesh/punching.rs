//! Direct paths through NATs: which pairs get one, how soon, and what becomes of it.
//!
//! The matrix is played in networks of different quality; `RECEPTOR_SEEDS=200` plays it in more of
//! them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use receptor_quic::mesh::PeerPath;
use receptor_quic::testing::{
    LinkQuality, Mesh, Nat, NatBehaviour, NatKind, Network, VirtualSocket,
};
use receptor_quic::{Event, Events, Node, NodeExplanation};

use tokio::time::{Instant, timeout};

use crate::support::{echo, id, serve_echo, serve_sink, service, transfer, try_echo};

/// Networks that the matrix is played in by default: some six seconds of one core.
const SEEDS: u64 = 40;
/// And with loss.
const LOSSY_SEEDS: u64 = 8;
/// How long a pair that can be direct may take from its first traffic.
const SOON: Duration = Duration::from_secs(3);
/// The same where a third of all round trips is lost: a handshake can take ten seconds then, an
/// offer as long, and when an attempt fails the next one follows after as long again. One pair in
/// some ten thousand takes more than half of it.
const SOON_ENOUGH: Duration = Duration::from_secs(60);
/// How long a pair that cannot be direct may take to say why, calls going on.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// How long a stream may stall when its path dies.
const STALL: Duration = Duration::from_secs(7);

/// What is to become of a pair: direct, or relayed for this reason.
type Expected = Result<(), &'static str>;

/// What two NATs allow without guessing ports.
fn expected(caller: NatKind, callee: NatKind) -> Expected {
    use NatKind::{PortRestricted, Symmetric};
    match (caller, callee) {
        (Symmetric, Symmetric) => Err("both-endpoint-dependent"),
        (Symmetric, PortRestricted) | (PortRestricted, Symmetric) => Err("port-guessing-needed"),
        _ => Ok(()),
    }
}

#[test]
fn every_pair_of_nats_is_direct_within_seconds_or_relayed_for_the_stated_reason() {
    println!("the slowest direct pair took {:?}", play_seeds(seeds(), 0.0));
}

#[test]
fn with_a_tenth_lost_on_both_access_links_every_pair_that_can_be_direct_still_is() {
    // A few: at a fifth of all packets lost each way, chance has many places to strike.
    let seeds = seeds();
    let few = if seeds.end - seeds.start == SEEDS { 0..LOSSY_SEEDS } else { seeds };
    println!("the slowest direct pair took {:?}", play_seeds(few, 0.1));
}

/// Plays the matrix of each seed, on all cores. How long the slowest of all direct pairs took.
fn play_seeds(seeds: Range<u64>, loss: f64) -> Duration {
    let next = AtomicU64::new(seeds.start);
    let play = || {
        let mut worst = Duration::ZERO;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return worst;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build();
            worst = worst.max(runtime.unwrap().block_on(play_matrix(seed, loss)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let playing: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        playing.into_iter().map(|playing| playing.join().unwrap()).max().unwrap_or_default()
    })
}

/// Four callers and four callees, each behind a NAT of its own, all calling at the same time. How
/// long the slowest of the direct pairs took.
async fn play_matrix(seed: u64, loss: f64) -> Duration {
    let world = World::new(seed).await;
    let mut dice = Dice(seed);
    // The end with the smaller id offers: half of the callers.
    let (mut callers, mut callees) = (Vec::new(), Vec::new());
    let offers = seed.is_multiple_of(2);
    for (nth, kind) in NatKind::ALL.into_iter().enumerate() {
        let names = [format!("a{nth}"), format!("b{nth}")];
        let mut nodes = Vec::new();
        for name in names {
            let nat = world.network().nat(kind);
            nat.set_access(dice.access(loss));
            nodes.push((kind, world.edge(&name, [nat.host()]).await));
        }
        if !offers {
            nodes.reverse();
        }
        callees.push(nodes.remove(1));
        callers.push(nodes.remove(0));
    }
    for (_, caller) in &callers {
        for (_, callee) in &callees {
            caller.routable(callee.id()).await.unwrap();
            callee.routable(caller.id()).await.unwrap();
        }
    }
    let mut pairs = Vec::new();
    for (caller_kind, caller) in &callers {
        for (callee_kind, callee) in &callees {
            let what = format!("seed {seed}: {caller_kind:?} calls {callee_kind:?}");
            let limit = if loss > 0.05 { SOON_ENOUGH } else { SOON };
            let pair = judge(
                what,
                caller.clone(),
                callee.clone(),
                expected(*caller_kind, *callee_kind),
                limit,
            );
            pairs.push(tokio::spawn(pair));
        }
    }
    let mut worst = Duration::ZERO;
    for pair in pairs {
        worst = worst.max(pair.await.unwrap());
    }
    worst
}

/// Calls, and looks what becomes of the pair. How long a direct one took to be so at both ends.
async fn judge(
    what: String,
    caller: Node,
    callee: Node,
    expected: Expected,
    soon: Duration,
) -> Duration {
    let mut events = [caller.events(), callee.events()];
    let ends = [(&caller, &callee), (&callee, &caller)];
    let start = Instant::now();
    while let Err(error) = try_echo(&caller, callee.id().as_str()).await {
        // Where much is lost, one handshake in some twenty thousand ends with the last word of it
        // lost for 15 s.
        assert!(soon > SOON, "{what}: the first call failed: {error}");
    }
    let first_call = start.elapsed();
    assert!(first_call < soon, "{what}: the first call took {first_call:?}");
    let mut took = Duration::ZERO;
    // What is wrong after these waits is told below.
    if let Err(why) = expected {
        let given_up = async {
            while !(has_failed(&caller, &callee, why).await
                && has_failed(&callee, &caller, why).await)
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
                echo(&caller, callee.id().as_str()).await;
            }
        };
        let _ = timeout(GIVEN_UP, given_up).await;
    } else {
        for (events, (_, far)) in events.iter_mut().zip(ends) {
            let _ =
                timeout(soon.saturating_sub(start.elapsed()), direct(events, far.id().as_str()))
                    .await;
        }
        took = start.elapsed();
    }
    for (near, far) in ends {
        let explained = explain(near, far).await;
        let kind = explained.path.as_ref().unwrap().kind;
        let as_expected = match expected {
            Ok(()) => kind == PeerPath::Direct,
            Err(why) => kind == PeerPath::Relayed && has_failed(near, far, why).await,
        };
        let explained = serde_json::to_string(&explained).unwrap();
        assert!(as_expected, "{what}, at {} after {:?}: {explained}", near.id(), start.elapsed());
    }
    echo(&caller, callee.id().as_str()).await;
    took
}

/// Whether an attempt has ended so.
async fn has_failed(near: &Node, far: &Node, outcome: &str) -> bool {
    explain(near, far).await.attempts.iter().any(|attempt| attempt.outcome == outcome)
}

#[tokio::test(start_paused = true)]
async fn behind_two_nats_the_harder_one_counts() {
    for (carrier, home, peer, expected) in [
        (NatKind::FullCone, NatKind::PortRestricted, NatKind::PortRestricted, Ok(())),
        (NatKind::PortRestricted, NatKind::PortRestricted, NatKind::PortRestricted, Ok(())),
        (
            NatKind::PortRestricted,
            NatKind::FullCone,
            NatKind::Symmetric,
            Err("port-guessing-needed"),
        ),
        (NatKind::Symmetric, NatKind::PortRestricted, NatKind::FullCone, Ok(())),
        (NatKind::Symmetric, NatKind::FullCone, NatKind::Symmetric, Err("both-endpoint-dependent")),
    ] {
        let world = World::new(1).await;
        let a = world.edge("a", [world.network().nat(carrier).nat(home).host()]).await;
        let b = world.edge("b", [world.network().nat(peer).host()]).await;
        world.judge(&format!("{home:?} behind {carrier:?} calls {peer:?}"), &a, &b, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nats_that_do_not_filter_their_own_input_are_passed() {
    for kind in NatKind::ALL.into_iter().chain([NatKind::Masquerade]) {
        for bare_calls in [true, false] {
            let world = World::new(1).await;
            let nats = [NatKind::Masquerade, kind].map(|kind| world.network().nat(kind));
            let sockets = nats.each_ref().map(Nat::host);
            for nat in &nats {
                let latency = Duration::from_millis(5);
                nat.set_access(LinkQuality { latency, ..LinkQuality::default() });
            }
            let [a, b] = sockets;
            let (a, b) = (world.edge("a", [a]).await, world.edge("b", [b]).await);
            let (caller, callee) = if bare_calls { (&a, &b) } else { (&b, &a) };
            let expected =
                if kind == NatKind::Symmetric { Err("port-guessing-needed") } else { Ok(()) };
            world
                .judge(&format!("masquerade and {kind:?}, {bare_calls}"), caller, callee, expected)
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_behind_one_nat_talk_at_home_with_and_without_hairpin() {
    for hairpin in [false, true] {
        for kind in NatKind::ALL {
            let world = World::new(1).await;
            let nat = world.network().nat(NatBehaviour { hairpin, ..kind.into() });
            nat.set_access(LinkQuality {
                latency: Duration::from_millis(20),
                ..LinkQuality::default()
            });
            let sockets = [nat.host(), nat.host()];
            let a = world.edge("a", [sockets[0].clone()]).await;
            let b = world.edge("b", [sockets[1].clone()]).await;
            world.judge(&format!("behind one {kind:?}, hairpin {hairpin}"), &a, &b, Ok(())).await;
            // With a hairpin the way around may have been found first, and be no worse.
            for (near, far, socket) in [(&a, &b, &sockets[1]), (&b, &a, &sockets[0])] {
                let path = explain(near, far).await.path.unwrap();
                let at_home = (path.address, path.candidate.as_deref())
                    == (Some(socket.address()), Some("host"));
                assert!(at_home || hairpin, "{kind:?}, at {}: {path:?}", near.id());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_homes_behind_one_carrier_need_its_hairpin() {
    for (hairpin, expected) in [(true, Ok(())), (false, Err("no-answer"))] {
        let world = World::new(1).await;
        let carrier = world.network().nat(NatBehaviour { hairpin, ..NatKind::FullCone.into() });
        let a = world.edge("a", [carrier.nat(NatKind::PortRestricted).host()]).await;
        let b = world.edge("b", [carrier.nat(NatKind::PortRestricted).host()]).await;
        world.judge(&format!("hairpin {hairpin}"), &a, &b, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ipv6_firewalls_on_both_sides_let_a_pair_through_that_sends_at_the_same_time() {
    let world = World::new(1).await;
    let [a, b] = [world.network().firewall().host(), world.network().firewall().host()];
    let (a, b) = (world.edge("a", [a]).await, world.edge("b", [b]).await);
    world.judge("both firewalled", &a, &b, Ok(())).await;
}

#[tokio::test(start_paused = true)]
async fn where_ipv4_needs_guessing_ipv6_serves() {
    let world = World::new(1).await;
    let sockets =
        || [world.network().nat(NatKind::Symmetric).host(), world.network().firewall().host()];
    let (a, b) = (world.edge("a", sockets()).await, world.edge("b", sockets()).await);
    world.judge("both symmetric, and firewalled", &a, &b, Ok(())).await;
    assert!(explain(&a, &b).await.path.unwrap().address.unwrap().is_ipv6());
}

#[tokio::test(start_paused = true)]
async fn a_public_node_is_reached_from_behind_any_nat_whoever_calls() {
    for kind in NatKind::ALL {
        for edge_calls in [true, false] {
            let world = World::new(1).await;
            let public = world.edge("p", [world.network().bind_host()]).await;
            let edge = world.edge("e", [world.network().nat(kind).host()]).await;
            let (caller, callee) = if edge_calls { (&edge, &public) } else { (&public, &edge) };
            world
                .judge(&format!("{kind:?}, the edge calls: {edge_calls}"), caller, callee, Ok(()))
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_is_blocked_in_one_direction_stays_relayed_and_says_so() {
    let world = World::new(1).await;
    let nats = [(); 2].map(|()| world.network().nat(NatKind::FullCone));
    let a = world.edge("a", [nats[0].host()]).await;
    let b = world.edge("b", [nats[1].host()]).await;
    world.network().cut_one_way(nats[0].address(), nats[1].address());
    world.judge("blocked from a to b", &a, &b, Err("no-answer")).await;
}

#[tokio::test(start_paused = true)]
async fn a_direct_transfer_outlives_what_nats_forget_and_the_death_of_its_path() {
    type Fault = (&'static str, fn(&World, &[Nat; 2]));
    let faults: [Fault; 4] = [
        ("the sender's NAT is flushed", |_, nats| nats[0].flush()),
        ("the receiver's NAT is flushed", |_, nats| nats[1].flush()),
        ("the sender's address changes", |_, nats| _ = nats[0].renumber()),
        ("the receiver's address changes", |_, nats| _ = nats[1].renumber()),
    ];
    let cut: Fault = ("the path is cut", |world, nats| {
        world.network().cut(nats[0].address(), nats[1].address())
    });
    for kinds in [
        [NatKind::PortRestricted, NatKind::PortRestricted],
        [NatKind::Symmetric, NatKind::AddressRestricted],
        [NatKind::FullCone, NatKind::Symmetric],
    ] {
        for (what, fault) in faults.into_iter().chain([cut]) {
            let world = World::new(1).await;
            let nats = kinds.map(|kind| world.network().nat(kind));
            for nat in &nats {
                let latency = Duration::from_millis(10);
                nat.set_access(LinkQuality {
                    latency,
                    bandwidth: Some(8 << 20),
                    ..LinkQuality::default()
                });
            }
            let a = world.edge("a", [nats[0].host()]).await;
            let b = world.edge("b", [nats[1].host()]).await;
            let what = format!("{kinds:?}, {what}");
            world.judge(&what, &a, &b, Ok(())).await;
            let stream = a.open(&id("b"), &service("sink")).await.unwrap();
            let transfer = tokio::spawn(transfer(stream, 256));
            tokio::time::sleep(Duration::from_secs(1)).await;
            fault(&world, &nats);
            let longest = transfer.await.unwrap();
            println!("{what}: stalled for {longest:?}");
            assert!(longest <= STALL, "{what}: stalled for {longest:?}");
        }
    }
}

/// The seeds that `RECEPTOR_SEEDS` asks for: `N` for those below N, or `FROM..TO`.
fn seeds() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number of seeds, or a range of them");
    match std::env::var("RECEPTOR_SEEDS") {
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&text),
        },
        Err(_) => 0..SEEDS,
    }
}

/// Two relays on the Internet, so that edges can tell what kind of NAT they are behind; each has
/// IPv4 and IPv6.
struct World {
    mesh: Mesh,
    relays: BTreeMap<&'static str, Node>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let network = Network::new(seed);
        let mesh = Mesh::on(network.clone(), ["hub"]).await;
        let mut relays = BTreeMap::new();
        for (name, ipv6) in [("r1", "[2001:db8:ffff::1]:7400"), ("r2", "[2001:db8:ffff::2]:7400")] {
            let ipv6 = network.bind(ipv6.parse().unwrap()).unwrap();
            let relay =
                mesh.joiner(name, &["hub"]).socket(ipv6).transit(true).start().await.unwrap();
            relay.routable(&id("hub")).await.unwrap();
            relays.insert(name, relay);
        }
        Self { mesh, relays }
    }

    fn network(&self) -> &Network {
        self.mesh.network()
    }

    /// A node that dials both relays, over what it has.
    async fn edge<const N: usize>(&self, name: &str, sockets: [Arc<VirtualSocket>; N]) -> Node {
        let ipv4 = sockets.iter().any(|socket| socket.address().is_ipv4());
        let mut sockets = sockets.into_iter();
        let mut edge = self.mesh.joiner_on(sockets.next().unwrap(), name, &[]).direct(true);
        for socket in sockets {
            edge = edge.socket(socket);
        }
        for relay in self.relays.values() {
            let addr = relay.local_addrs().into_iter().find(|addr| addr.is_ipv4() == ipv4);
            edge = edge.peer(addr.unwrap());
        }
        let edge = edge.start().await.unwrap();
        for relay in self.relays.values() {
            edge.routable(relay.id()).await.unwrap();
        }
        serve_echo(&edge);
        serve_sink(&edge);
        edge
    }

    /// Has one call the other, and looks what becomes of the pair.
    async fn judge(&self, what: &str, caller: &Node, callee: &Node, expected: Expected) {
        caller.routable(callee.id()).await.unwrap();
        callee.routable(caller.id()).await.unwrap();
        judge(what.to_owned(), caller.clone(), callee.clone(), expected, SOON).await;
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    /// An access link: 2 to 60 ms, with jitter.
    fn access(&mut self, loss: f64) -> LinkQuality {
        let latency = Duration::from_millis(2 + self.roll(58));
        let jitter = Duration::from_millis(self.roll(10));
        LinkQuality { latency, jitter, reorder: true, loss, ..LinkQuality::default() }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Waits for a path to the peer.
async fn direct(events: &mut Events, peer: &str) {
    while !matches!(events.recv().await.unwrap(), Event::PathUp { peer: up, .. } if up.as_str() == peer)
    {
    }
}

async fn explain(near: &Node, far: &Node) -> NodeExplanation {
    near.explain(far.id()).await.unwrap()
}
