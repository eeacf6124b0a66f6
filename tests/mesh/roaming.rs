//! The network under a node changes: addresses, routes, sleep.

use std::net::SocketAddr;
use std::time::Duration;

use receptor_quic::mesh::LocalAddress;
use receptor_quic::testing::{LinkQuality, Mesh, mesh};
use receptor_quic::{Event, Node, NodeBuilder, PeerAddr};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::{id, serve_sink, service, transfer, up_links};

/// What "recovers" means, from the change on.
const RECOVERED: Duration = Duration::from_secs(3);

type Addresses = watch::Sender<Vec<LocalAddress>>;

/// A node whose machine's addresses the test has in hand.
async fn roamer(builder: NodeBuilder) -> (Node, Addresses) {
    let (addresses, seen) = watch::channel(Vec::new());
    let node = builder.local_addresses(seen).start().await.unwrap();
    announce(&addresses, node.local_addrs()[0]);
    (node, addresses)
}

fn announce(addresses: &Addresses, addr: SocketAddr) {
    addresses.send_replace(vec![LocalAddress::new(addr.ip(), 8, "eth0")]);
}

/// Moves a node's machine to another address, and has the machine tell.
fn roam(mesh: &Mesh, addresses: &Addresses, from: SocketAddr, to: &str) -> SocketAddr {
    let to = mesh.network().rebind(from, to.parse().unwrap()).unwrap();
    announce(addresses, to);
    to
}

/// Waits until a ping is answered. One that was sent on a dead link is not waited for.
async fn pinged(node: &Node, other: &str) {
    let a_while = Duration::from_millis(100);
    while !matches!(tokio::time::timeout(a_while, node.ping(&id(other))).await, Ok(Ok(_))) {}
}

fn peer(name: &str, node: &Node) -> PeerAddr {
    PeerAddr { expected: Some(id(name)), ..PeerAddr::from(node.local_addrs()[0]) }
}

#[tokio::test(start_paused = true)]
async fn a_stream_survives_that_the_end_that_dialled_moves() {
    let mesh = mesh(["r"]).await;
    mesh.network()
        .set_default(LinkQuality { bandwidth: Some(8 * 1024 * 1024), ..LinkQuality::default() });
    let (edge, addresses) = roamer(mesh.joiner("edge", &["r"])).await;
    edge.linked().await.unwrap();
    serve_sink(mesh.node("r"));
    let mut events = edge.events();
    let stream = edge.open(&id("r"), &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 512));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let to = roam(&mesh, &addresses, edge.local_addrs()[0], "10.9.9.9:1");
    let longest = transfer.await.unwrap();
    assert!(longest < RECOVERED, "stalled for {longest:?}");
    let changed = async {
        loop {
            match events.recv().await.unwrap() {
                Event::NetworkChanged { addresses } => return addresses,
                Event::LinkDown { why, .. } => panic!("the link was to go on: {why}"),
                _ => {}
            }
        }
    };
    assert_eq!(changed.await, [to.ip()]);
    assert_eq!(edge.status().await.unwrap().network.addresses, [to.ip()]);
}

#[tokio::test(start_paused = true)]
async fn the_end_that_was_dialled_moves_and_dials_back() {
    // Which of the two chooses between their links depends on their ids.
    for name in ["a", "z"] {
        let mesh = mesh(["far"]).await;
        let (relay, addresses) = roamer(mesh.joiner("m", &[]).transit(true)).await;
        let edge = mesh.joiner(name, &[]).peer(peer("m", &relay)).start().await.unwrap();
        edge.linked().await.unwrap();
        relay.routable(edge.id()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        roam(&mesh, &addresses, relay.local_addrs()[0], "10.9.9.9:7400");
        pinged(&edge, "m").await;
        pinged(&relay, name).await;
        assert!(start.elapsed() < RECOVERED, "{name}: {:?}", start.elapsed());
        // What is left of the old link goes in the end, and nobody dials the new one's place.
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(up_links(&edge).await, ["m"]);
        assert_eq!(up_links(&relay).await, [name]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_a_link_that_was_only_slow_to_answer_is_not_cut() {
    let mesh = mesh(["r"]).await;
    mesh.network()
        .set_default(LinkQuality { bandwidth: Some(256 * 1024), ..LinkQuality::default() });
    for name in ["a", "z"] {
        let (edge, addresses) = roamer(mesh.joiner(name, &["r"])).await;
        edge.linked().await.unwrap();
        if name == "a" {
            serve_sink(mesh.node("r"));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stream = edge.open(&id("r"), &service("sink")).await.unwrap();
        let transfer = tokio::spawn(transfer(stream, 400));
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The machine says that it moved, and does so only after it has dialled anew: what it sends
        // is lost meanwhile.
        let from = edge.local_addrs()[0];
        mesh.network().cut_one_way(from.ip(), mesh.addr("r").ip());
        addresses.send_replace(Vec::new());
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        mesh.network().heal();
        announce(&addresses, from);
        let longest = transfer.await.unwrap();
        // The loss itself, what recovery may take, and the probe timer that a lost packet has
        // doubled.
        let limit = RECOVERED + Duration::from_millis(2_500);
        assert!(longest < limit, "{name}: stalled for {longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_moves_keeps_the_streams_that_it_carries() {
    let mesh = mesh(["b"]).await;
    mesh.network()
        .set_default(LinkQuality { bandwidth: Some(8 * 1024 * 1024), ..LinkQuality::default() });
    serve_sink(mesh.node("b"));
    let (relay, addresses) = roamer(mesh.joiner("r", &["b"]).transit(true)).await;
    let edge = mesh.joiner("a", &[]).peer(peer("r", &relay)).start().await.unwrap();
    edge.routable(&id("b")).await.unwrap();
    let stream = edge.open(&id("b"), &service("sink")).await.unwrap();
    let transfer = tokio::spawn(transfer(stream, 512));
    tokio::time::sleep(Duration::from_secs(1)).await;
    roam(&mesh, &addresses, relay.local_addrs()[0], "10.9.9.9:7400");
    let longest = transfer.await.unwrap();
    assert!(longest < RECOVERED, "stalled for {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_long_without_a_network_is_back_at_once() {
    let mesh = mesh(["r"]).await;
    let (edge, addresses) = roamer(mesh.joiner("edge", &["r"])).await;
    edge.linked().await.unwrap();
    let addr = edge.local_addrs()[0];
    for hours in [1, 2, 3] {
        mesh.network().isolate(addr.ip());
        addresses.send_replace(Vec::new());
        // Another phase of the back-off each time.
        tokio::time::sleep(Duration::from_secs(hours * 3_607)).await;
        assert_eq!(up_links(&edge).await, [] as [String; 0]);
        mesh.network().rejoin(addr.ip());
        let start = Instant::now();
        announce(&addresses, addr);
        pinged(&edge, "r").await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_harms_no_link_costs_none() {
    let mesh = mesh(["r"]).await;
    let (edge, addresses) = roamer(mesh.joiner("edge", &["r"])).await;
    edge.linked().await.unwrap();
    let mut events = edge.events();
    let addr = edge.local_addrs()[0];
    for n in 1..=9 {
        addresses.send_replace(vec![
            LocalAddress::new(addr.ip(), 8, "eth0"),
            LocalAddress::new(format!("192.0.2.{n}").parse().unwrap(), 24, "eth1"),
        ]);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(
        !seen.iter().any(|event| matches!(event, Event::LinkDown { .. } | Event::LinkUp { .. })),
        "{seen:?}"
    );
    let changes = edge.status().await.unwrap().network.changes;
    assert!(changes >= 9, "{changes}");
    // Containers come and go, and nobody is asked.
    addresses.send_modify(|addresses| {
        addresses.push(LocalAddress::new("172.17.0.1".parse().unwrap(), 16, "docker0"));
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(edge.status().await.unwrap().network.changes, changes);
}
