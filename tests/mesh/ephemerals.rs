//! Ephemerals come, do their one thing, and leave nothing.

use std::time::Duration;

use receptor_quic::testing::mesh;
use receptor_quic::{OpenError, StartError};
use tokio::time::Instant;

use crate::support::{id, service};

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
