//! Ephemerals come, do their one thing, and leave nothing.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network, mesh};
use receptor_quic::{Node, OpenError, StartError};
use tokio::time::Instant;

use crate::support::{echo, id, serve_echo, service};

#[tokio::test(start_paused = true)]
async fn an_ephemeral_reaches_everyone_and_is_reached() {
    let mesh = mesh(["r1-r2", "a-r2"]).await;
    let start = Instant::now();
    let guest = mesh.joiner("guest", &["r1"]).ephemeral(true).start().await.unwrap();
    guest.linked().await.unwrap();
    for name in ["r1", "r2", "a", "guest"] {
        guest.ping(&id(name)).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    mesh.node("a").ping(&id("guest")).await.unwrap();
    let error = guest.open(&id("nobody"), &service("s")).await.unwrap_err();
    assert_eq!(error, OpenError::NoRoute { node: id("nobody") });
    let hops = guest.trace(&id("a")).await.unwrap();
    assert_eq!(hops.iter().map(|hop| hop.node.as_str()).collect::<Vec<_>>(), ["r1", "r2", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_ephemerals_leave_no_trace() {
    let mesh = mesh(["r1-r2", "a-r2"]).await;
    let nodes = ["r1", "r2", "a"].map(|name| mesh.node(name).clone());
    let picture = async || {
        let mut pictures = Vec::new();
        for node in &nodes {
            let status = node.status().await.unwrap();
            let links: Vec<_> = status.links.iter().map(|link| link.peer.clone()).collect();
            pictures.push((links, status.routes, status.edges));
        }
        pictures
    };
    let before = picture().await;
    for n in 0..100 {
        let guest = mesh.joiner(&format!("guest-{n}").replace('-', "."), &["r1"]).ephemeral(true);
        let guest = guest.start().await.unwrap();
        guest.linked().await.unwrap();
        guest.ping(&id("a")).await.unwrap();
        guest.shutdown().await;
    }
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(picture().await, before);
    for node in &nodes {
        let peers = node.status().await.unwrap().peers;
        assert!(peers.iter().all(|peer| !peer.node.as_str().starts_with("guest")), "{peers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_needs_somebody_to_dial() {
    let mesh = mesh(["r"]).await;
    let error = mesh.joiner("guest", &[]).ephemeral(true).start().await.unwrap_err();
    assert!(matches!(error, StartError::EphemeralWithoutPeer));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_transit_carries_its_own_ephemerals_packets() {
    let mesh = mesh(["far-r"]).await;
    let edge = mesh.joiner("edge", &["r"]).transit(false).start().await.unwrap();
    edge.routable(&id("far")).await.unwrap();
    let addr = edge.local_addrs()[0];
    let ephemeral = mesh.joiner("e", &[]).peer(addr).ephemeral(true).start().await.unwrap();
    ephemeral.linked().await.unwrap();
    ephemeral.ping(&id("far")).await.unwrap();
    mesh.node("far").ping(&id("e")).await.unwrap();
}

/// Two relays between an edge and the ephemerals, 10 ms apart.
async fn far_mesh() -> Mesh {
    let network = Network::new(5);
    network
        .set_default(LinkQuality { latency: Duration::from_millis(10), ..LinkQuality::default() });
    Mesh::on(network, ["edge-r1", "r1-r2"]).await
}

#[tokio::test(start_paused = true)]
async fn one_shots_in_a_row_are_all_fast_and_change_few_records() {
    let mesh = far_mesh().await;
    let begin = Instant::now();
    let originations = async || mesh.node("edge").status().await.unwrap().records.verified;
    let before = originations().await;
    for turn in 0..100 {
        let guest = mesh.joiner("guest", &["r2"]).one_shot().start().await.unwrap();
        guest.linked().await.unwrap();
        let start = Instant::now();
        guest.ping(&id("edge")).await.unwrap();
        // Three one-way hops each way: the question, the handshake, and the ping.
        assert!(start.elapsed() < Duration::from_millis(160), "{turn}: {:?}", start.elapsed());
        guest.shutdown().await;
    }
    // They stay for more than 200 ms, so each would change the record twice.
    let (records, took) = (originations().await - before, begin.elapsed());
    assert!(records <= took.as_secs() + 2 && records < 110, "{records} records in {took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_shots_that_leave_at_once_change_no_record() {
    let mesh = mesh(["edge-r1", "r1-r2"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = mesh.node("edge").status().await.unwrap().records.verified;
    for _ in 0..20 {
        let guest = mesh.joiner("guest", &["r2"]).one_shot().start().await.unwrap();
        guest.linked().await.unwrap();
        guest.ping(&id("edge")).await.unwrap();
        guest.shutdown().await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(mesh.node("edge").status().await.unwrap().records.verified, before);
}

#[tokio::test(start_paused = true)]
async fn one_shots_at_the_same_time_share_a_certificate() {
    let mesh = far_mesh().await;
    serve_echo(mesh.node("edge"));
    let shots = (0..20).map(|_| {
        let builder = mesh.joiner("guest", &["r2"]).one_shot();
        tokio::spawn(async move {
            let guest = builder.start().await.unwrap();
            assert_eq!(guest.id().base(), id("guest"));
            guest.linked().await.unwrap();
            echo(&guest, "edge").await;
            guest
        })
    });
    let mut guests = Vec::new();
    for shot in shots.collect::<Vec<_>>() {
        guests.push(shot.await.unwrap());
    }
    // Who stays is in the record soon, and is reached.
    mesh.node("edge").routable(guests[7].id()).await.unwrap();
    mesh.node("edge").ping(guests[7].id()).await.unwrap();
    let ids: std::collections::BTreeSet<_> =
        guests.iter().map(|guest| guest.id().clone()).collect();
    assert_eq!(ids.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_service_sees_the_whole_id_of_a_one_shot() {
    let mesh = far_mesh().await;
    let mut listener = mesh.node("edge").serve(service("who")).unwrap();
    let guest = mesh.joiner("guest", &["r2"]).one_shot().start().await.unwrap();
    guest.linked().await.unwrap();
    let _stream = guest.open(&id("edge"), &service("who")).await.unwrap();
    let incoming = listener.accept().await.unwrap();
    assert_eq!(incoming.peer, *guest.id());
    assert_eq!(incoming.peer.base(), id("guest"));
    // At a neighbour as well.
    let mut listener = mesh.node("r2").serve(service("who")).unwrap();
    let _stream = guest.open(&id("r2"), &service("who")).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer, *guest.id());
}

#[tokio::test(start_paused = true)]
async fn only_an_ephemeral_may_have_a_suffix() {
    let mesh = mesh(["r"]).await;
    let error = mesh.joiner("guest~x1", &["r"]).start().await.unwrap_err();
    assert!(matches!(error, StartError::SuffixedId(_)), "{error}");
    let guest = mesh.joiner("guest~x1", &["r"]).ephemeral(true).start().await.unwrap();
    guest.linked().await.unwrap();
    guest.ping(&id("r")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_shots_of_a_node_that_refuses_transit_are_answered_before_anybody_knows_them() {
    let mesh = far_mesh().await;
    let edge = mesh.joiner("hub", &["r2"]).transit(false).start().await.unwrap();
    edge.routable(&id("edge")).await.unwrap();
    let addr = edge.local_addrs()[0];
    for _ in 0..3 {
        let guest = mesh.joiner("guest", &[]).peer(addr).one_shot().start().await.unwrap();
        guest.linked().await.unwrap();
        let start = Instant::now();
        guest.ping(&id("edge")).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(250), "{:?}", start.elapsed());
        guest.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_an_ephemeral_goes_on_when_it_is_attached_elsewhere() {
    let mut mesh = Mesh::on(Network::new(6), ["edge-r1", "r1-r2", "r1-r3"]).await;
    serve_echo(mesh.node("edge"));
    let guest: Node = mesh.joiner("guest", &["r2", "r3"]).one_shot().start().await.unwrap();
    guest.linked().await.unwrap();
    let mut stream = guest.open(&id("edge"), &service("echo")).await.unwrap();
    let mut answer = [0; 4];
    for relay in ["r2", "r3"] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        if relay == "r2" {
            mesh.kill("r2");
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    }
    assert_eq!(&answer, b"ping");
}
