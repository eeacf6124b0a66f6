//! Relays whose links are up and that forward nothing.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, mesh};
use receptor_quic::{Event, Node, NodeId};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{id, serve_echo, serve_sink, service, transfer, try_echo};

/// The time within which a pair must be back.
const BACK: Duration = Duration::from_secs(5);

/// The neighbour that a node's packets for another one go to.
async fn via(from: &Node, to: &str) -> String {
    let status = from.status().await.unwrap();
    let peer = status.peers.iter().find(|peer| peer.node == id(to)).unwrap();
    peer.via.as_ref().unwrap().to_string()
}

/// Pings until one is answered; returns how long that took.
async fn back(from: &Node, to: &str) -> Duration {
    let start = Instant::now();
    while !matches!(timeout(Duration::from_secs(1), from.ping(&id(to))).await, Ok(Ok(_))) {
        assert!(start.elapsed() < 4 * BACK, "{to} is not back after {:?}", start.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

async fn pair() -> Mesh {
    let mesh = mesh(["a-r1", "a-r2", "b-r1", "b-r2"]).await;
    mesh.network()
        .set_default(LinkQuality { latency: Duration::from_millis(5), ..LinkQuality::default() });
    serve_echo(mesh.node("b"));
    mesh
}

#[tokio::test(start_paused = true)]
async fn a_pair_cut_by_a_black_hole_is_back_and_stays() {
    let mesh = pair().await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    a.ping(&id("b")).await.unwrap();
    let hole = via(a, "b").await;
    let mut events = a.events();
    mesh.swallow(&hole);
    let took = back(a, "b").await;
    assert!(took <= BACK, "back after {took:?}");
    for _ in 0..600 {
        timeout(Duration::from_millis(100), a.ping(&id("b"))).await.unwrap().unwrap();
        timeout(Duration::from_millis(100), b.ping(&id("a"))).await.unwrap().unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    try_echo(a, "b").await.unwrap();
    let avoided = avoided(&mut events);
    let other = if hole == "r1" { "r2" } else { "r1" };
    assert_eq!(avoided, [(id("b"), vec![id(&hole)], id(other))]);
    let status = a.status().await.unwrap();
    assert_eq!(status.detours, 1);
    let explained = a.explain(&id("b")).await.unwrap();
    let detour = explained.detour.unwrap();
    assert_eq!((detour.avoided, detour.via, detour.settled), (vec![id(&hole)], id(other), true));
    assert!(detour.since_s > 590.0);
}

#[tokio::test(start_paused = true)]
async fn a_first_connection_finds_its_way_around_a_black_hole() {
    for hole in ["r1", "r2"] {
        let mesh = pair().await;
        mesh.swallow(hole);
        for (from, to) in [("a", "b"), ("b", "a")] {
            let took = back(mesh.node(from), to).await;
            assert!(took <= BACK, "{from} to {to} around {hole}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_one_direction_is_avoided_whichever_end_sees_it() {
    for hole in ["r1", "r2"] {
        for end in ["a", "b"] {
            for fresh in [false, true] {
                let mesh = pair().await;
                if !fresh {
                    mesh.node("a").ping(&id("b")).await.unwrap();
                }
                let (hole_ip, end_ip) = (mesh.addr(hole).ip(), mesh.addr(end).ip());
                mesh.network().lose_where(hole_ip, end_ip, |datagram| datagram[0] < 0x40);
                let took = back(mesh.node("a"), "b").await;
                assert!(took <= BACK, "{hole} towards {end}, fresh {fresh}: {took:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_when_only_its_acknowledgements_are_lost() {
    for hole in ["r1", "r2"] {
        for end in ["a", "b"] {
            let mesh = pair().await;
            mesh.network().set_default(LinkQuality {
                bandwidth: Some(8 * 1024 * 1024),
                latency: Duration::from_millis(20),
                ..LinkQuality::default()
            });
            serve_sink(mesh.node("b"));
            let stream = mesh.node("a").open(&id("b"), &service("sink")).await.unwrap();
            let transfer = tokio::spawn(transfer(stream, 512));
            sleep(Duration::from_secs(1)).await;
            let (hole_ip, end_ip) = (mesh.addr(hole).ip(), mesh.addr(end).ip());
            mesh.network().lose_where(hole_ip, end_ip, |datagram| datagram[0] < 0x40);
            let longest = transfer.await.unwrap();
            assert!(longest <= BACK, "{hole} towards {end}: {longest:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_is_blamed_on_nobody() {
    let mut mesh = pair().await;
    let a = mesh.node("a").clone();
    a.ping(&id("b")).await.unwrap();
    let mut events = a.events();
    let b = mesh.addr("b").ip();
    // Its links live on: routes stay.
    for relay in ["r1", "r2"] {
        mesh.network().lose_where(b, mesh.addr(relay).ip(), |datagram| datagram[0] < 0x40);
    }
    for _ in 0..10 {
        assert!(!matches!(timeout(Duration::from_secs(3), a.ping(&id("b"))).await, Ok(Ok(_))));
    }
    mesh.kill("b");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(avoided(&mut events), []);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_with_two_neighbours_avoids_a_black_hole() {
    let mesh =
        Mesh::builder(["s-r1", "s-r2", "r1-b", "r2-b", "r1-r2"]).ephemeral(["s"]).start().await;
    mesh.node("s").ping(&id("b")).await.unwrap();
    let hole = via(mesh.node("s"), "b").await;
    mesh.swallow(&hole);
    let took = back(mesh.node("s"), "b").await;
    assert!(took <= BACK, "back after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_longer_way_round_is_taken_where_no_alternate_exists() {
    let mesh = mesh(["a-h", "h-b", "a-x", "x-y", "y-z", "z-b"]).await;
    mesh.node("a").ping(&id("b")).await.unwrap();
    assert_eq!(via(mesh.node("a"), "b").await, "h");
    mesh.swallow("h");
    let took = back(mesh.node("a"), "b").await;
    assert!(took <= BACK, "back after {took:?}");
    assert_eq!(via(mesh.node("a"), "b").await, "x");
}

/// What was reported as avoided.
fn avoided(events: &mut receptor_quic::Events) -> Vec<(NodeId, Vec<NodeId>, NodeId)> {
    let mut found = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::NextHopAvoided { peer, avoided, via } = event {
            found.push((peer, avoided, via));
        }
    }
    found
}
