//! Edges behind NATs, relayed: they dial out, are called all the same, and outlive what NATs
//! forget.

use std::sync::Arc;
use std::time::Duration;

use receptor_quic::testing::{
    Blocked, LinkQuality, Mesh, Nat, NatBehaviour, NatKind, Network, VirtualSocket,
};
use receptor_quic::{Liveness, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{echo, id, serve_echo, serve_sink, service, transfer};

/// How long a transfer may stall when a NAT forgets it.
const STALL: Duration = Duration::from_secs(7);
/// The time between two keepalives of `metered`, and what a call that waits for it takes until its
/// next packet.
const METERED: Duration = Duration::from_secs(24);

#[tokio::test(start_paused = true)]
async fn an_edge_behind_any_nat_dials_a_relay_and_is_called() {
    let network = Network::new(1);
    let mesh = Mesh::on(network.clone(), ["r", "caller-r"]).await;
    let carrier = network.nat(NatKind::Symmetric);
    let home = network.nat(NatKind::PortRestricted);
    let sockets = NatKind::ALL.map(|kind| network.nat(kind).host()).into_iter().chain([
        carrier.nat(NatKind::PortRestricted).host(),
        home.host(),
        home.host(),
    ]);
    for (nth, socket) in sockets.enumerate() {
        let name = format!("edge{nth}");
        let edge = mesh.joiner_on(socket, &name, &["r"]).start().await.unwrap();
        serve_echo(&edge);
        mesh.node("caller").routable(&id(&name)).await.unwrap();
        let start = Instant::now();
        echo(mesh.node("caller"), &name).await;
        assert!(start.elapsed() < Duration::from_millis(100), "{name}: {:?}", start.elapsed());
        edge.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_edge_behind_an_ipv6_firewall_is_called_through_its_relay() {
    let network = Network::new(1);
    let relay = network.bind("[2001:db8:ffff::1]:7400".parse().unwrap()).unwrap();
    let address = relay.address();
    let mesh = Mesh::on(network.clone(), ["unused"]).await;
    let relay = mesh.joiner_on(relay, "r", &[]).transit(true).start().await.unwrap();
    let edge = |name| mesh.joiner_on(network.firewall().host(), name, &[]).peer(address).start();
    let (a, b) = (edge("a").await.unwrap(), edge("b").await.unwrap());
    serve_echo(&b);
    a.routable(&id("b")).await.unwrap();
    relay.routable(&id("a")).await.unwrap();
    echo(&a, "b").await;
}

/// What happens to a NAT under a transfer: for how long nothing passes, and what it has forgotten
/// then.
type Fault = (&'static str, Duration, fn(&Nat));

const FAULTS: [Fault; 3] = [
    ("its mappings are flushed", Duration::ZERO, Nat::flush),
    ("its address changes", Duration::ZERO, |nat| _ = nat.renumber()),
    ("it restarts with another address", Duration::from_secs(4), |nat| _ = nat.renumber()),
];

/// At different times after a keepalive, in front of the sender and of the receiver.
#[tokio::test(start_paused = true)]
async fn a_transfer_outlives_what_the_nats_of_its_ends_forget() {
    for (what, outage, fault) in FAULTS {
        let mut worst = Duration::ZERO;
        for kind in [NatKind::PortRestricted, NatKind::Symmetric] {
            for (end, after_ms) in [(0, 1_000), (1, 1_500), (0, 2_000)] {
                let homes = Homes::new(1, kind).await;
                let stream = homes.sender.open(&id("receiver"), &service("sink")).await.unwrap();
                let transfer = tokio::spawn(transfer(stream, 384));
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let nat = &homes.nats[end];
                nat.block(Blocked::Both);
                tokio::time::sleep(outage).await;
                nat.block(None);
                fault(nat);
                let stalled = transfer.await.unwrap().saturating_sub(outage);
                assert!(stalled <= STALL, "{kind:?}, {what}: stalled for {stalled:?}");
                worst = worst.max(stalled);
            }
        }
        println!("{what}: {worst:?} at worst");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_outlives_a_nat_that_forgets_between_two_words() {
    for kind in NatKind::ALL {
        let homes = Homes::new(1, kind).await;
        for nat in &homes.nats {
            let lifetime = Duration::from_secs(1);
            nat.set_behaviour(NatBehaviour { lifetime, ..kind.into() });
        }
        let mut stream = homes.sender.open(&id("receiver"), &service("echo")).await.unwrap();
        for word in 0..20 {
            let start = Instant::now();
            stream.write_u8(word).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), word);
            assert!(start.elapsed() <= STALL, "{kind:?}: {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_edge_stays_reachable_behind_a_nat_that_forgets_in_half_a_minute() {
    for kind in NatKind::ALL {
        let homes = Homes::new(1, kind).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(100)).await;
            let start = Instant::now();
            echo(&homes.sender, "receiver").await;
            assert!(start.elapsed() < Duration::from_secs(1), "{kind:?}: {:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_edge_is_reachable_within_seconds_of_a_new_address() {
    for kind in NatKind::ALL {
        let homes = Homes::new(1, kind).await;
        echo(&homes.sender, "receiver").await;
        for nat in &homes.nats {
            nat.renumber();
            let start = Instant::now();
            echo(&homes.sender, "receiver").await;
            println!("{kind:?}: {:?}", start.elapsed());
            assert!(start.elapsed() <= STALL, "{kind:?}: {:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_metered_edge_calls_and_is_called_again_at_its_next_keepalive_after_a_new_address() {
    for kind in NatKind::ALL {
        let network = Network::new(1);
        let mesh = Mesh::on(network.clone(), ["r", "caller-r"]).await;
        let nat = network.nat(NatBehaviour { lifetime: Duration::from_secs(30), ..kind.into() });
        let edge = mesh
            .joiner_on(nat.host(), "edge", &["r"])
            .liveness(Liveness::Metered)
            .start()
            .await
            .unwrap();
        let caller = mesh.node("caller");
        caller.routable(&id("edge")).await.unwrap();
        edge.routable(&id("caller")).await.unwrap();
        for (after, from, to) in [
            (0, caller, &edge),
            (7, caller, &edge),
            (13, caller, &edge),
            (0, &edge, caller),
            (9, &edge, caller),
        ] {
            // The peer connection is closed by then.
            tokio::time::sleep(Duration::from_secs(300 + after)).await;
            nat.renumber();
            let start = Instant::now();
            // An attempt is given up after 10 s.
            while from.ping(to.id()).await.is_err() {}
            println!("{kind:?}, {} calls: {:?}", from.id(), start.elapsed());
            assert!(
                start.elapsed() <= METERED,
                "{kind:?}, {} calls: {:?}",
                from.id(),
                start.elapsed()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_outlives_a_host_that_moves_to_another_network() {
    let mut worst = Duration::ZERO;
    for kind in [NatKind::FullCone, NatKind::Symmetric] {
        for moves in 0..2 {
            let homes = Homes::new(1, NatKind::PortRestricted).await;
            let mobile = homes.mesh.network().nat(kind);
            let stream = homes.sender.open(&id("receiver"), &service("sink")).await.unwrap();
            let transfer = tokio::spawn(transfer(stream, 512));
            tokio::time::sleep(Duration::from_secs(1)).await;
            homes.sockets[moves].roam(&mobile).unwrap();
            worst = worst.max(transfer.await.unwrap());
        }
    }
    assert!(worst <= STALL, "stalled for {worst:?}");
}

/// Two edges at home, and a relay that both dial.
struct Homes {
    mesh: Mesh,
    sender: Node,
    _receiver: Node,
    nats: [Nat; 2],
    sockets: [Arc<VirtualSocket>; 2],
}

impl Homes {
    /// Both homes' NATs are of this kind. 8 MiB a second, so that a transfer lasts long enough to
    /// be interrupted.
    async fn new(seed: u64, kind: NatKind) -> Self {
        let network = Network::new(seed);
        let mesh = Mesh::on(network.clone(), ["r"]).await;
        let nats = [network.nat(kind), network.nat(kind)];
        for nat in &nats {
            let latency = Duration::from_millis(10);
            let bandwidth = Some(8 << 20);
            nat.set_access(LinkQuality { latency, bandwidth, ..LinkQuality::default() });
        }
        let sockets = nats.each_ref().map(Nat::host);
        let edge = |nth: usize, name| mesh.joiner_on(sockets[nth].clone(), name, &["r"]).start();
        let (sender, receiver) =
            (edge(0, "sender").await.unwrap(), edge(1, "receiver").await.unwrap());
        sender.routable(receiver.id()).await.unwrap();
        receiver.routable(sender.id()).await.unwrap();
        serve_sink(&receiver);
        serve_echo(&receiver);
        Self { mesh, sender, _receiver: receiver, nats, sockets }
    }
}
