//! What links cost, and where traffic goes for it.

use std::time::Duration;

use receptor_quic::mesh::LinkCost;
use receptor_quic::testing::{LinkQuality, Mesh, mesh};
use receptor_quic::{Cost, Node};

use crate::support::id;

#[tokio::test(start_paused = true)]
async fn a_cost_can_be_said_of_one_neighbour_whoever_dials() {
    let mesh = mesh(["a"]).await;
    let cost = |cost: u32| Cost::try_from(cost).unwrap();
    let relay = mesh.joiner("r", &["a"]).transit(true).cost(cost(2)).cost_to(id("b"), cost(7));
    let relay = relay.start().await.unwrap();
    let addr = relay.local_addrs()[0];
    let b = mesh.joiner("b", &[]).peer(addr).start().await.unwrap();
    b.routable(&id("a")).await.unwrap();
    let status = b.status().await.unwrap();
    let costs: Vec<_> =
        status.routes.iter().map(|route| (route.node.as_str(), route.cost)).collect();
    assert_eq!(costs, [("a", 9), ("r", 7)]);
    assert_eq!(status.links[0].cost, Some(7));
}

#[tokio::test(start_paused = true)]
async fn by_round_trips_traffic_takes_the_fast_relay_and_jitter_moves_nothing() {
    let (mesh, _b, _relays) = fast_and_slow().await;
    let a = mesh.node("a");
    // The first round trips that were measured may have been long ones; a lower cost is told later
    // than a higher one.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut told = edges(a).await;
    let mut changes = 0;
    for second in 0..600 {
        assert_eq!(next_hop(a).await, "fast", "after {second} s");
        let now = edges(a).await;
        changes += u32::from(now != told);
        told = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Four links were measured some 400 times each.
    assert!(changes <= 4, "costs were told anew {changes} times");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_becomes_slow_for_good_loses_its_traffic_within_a_minute() {
    let (mesh, b, relays) = fast_and_slow().await;
    let a = mesh.node("a");
    tokio::time::sleep(Duration::from_secs(60)).await;
    link(&mesh, &b, &relays[0], 200);
    let mut waited = 0;
    while next_hop(a).await == "fast" {
        assert!(waited < 60, "it kept its traffic");
        tokio::time::sleep(Duration::from_secs(1)).await;
        waited += 1;
    }
    assert!(waited >= 10, "it lost its traffic after {waited} s");
    for _ in 0..120 {
        assert_eq!(next_hop(a).await, "slow");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Nodes a and b, and two relays between them that say what their round trips cost.
async fn fast_and_slow() -> (Mesh, Node, [Node; 2]) {
    let mesh = mesh(["a"]).await;
    let b = mesh.joiner("b", &[]).start().await.unwrap();
    let relay = async |name, millis| {
        let builder = mesh.joiner(name, &["a"]).peer(b.local_addrs()[0]);
        let relay = builder.transit(true).cost(LinkCost::RoundTrip).start().await.unwrap();
        link(&mesh, &b, &relay, millis);
        relay
    };
    let relays = [relay("fast", 5).await, relay("slow", 40).await];
    for relay in &relays {
        relay.routable(&id("a")).await.unwrap();
        relay.routable(&id("b")).await.unwrap();
    }
    mesh.node("a").routable(&id("b")).await.unwrap();
    (mesh, b, relays)
}

/// Both links of a relay have this latency, and as much again in jitter.
fn link(mesh: &Mesh, b: &Node, relay: &Node, millis: u64) {
    let latency = Duration::from_millis(millis);
    let quality = LinkQuality { latency, jitter: latency, ..LinkQuality::default() };
    for end in [mesh.addr("a"), b.local_addrs()[0]] {
        mesh.network().set_link(end.ip(), relay.local_addrs()[0].ip(), quality);
    }
}

/// Where a's packets for b go.
async fn next_hop(a: &Node) -> String {
    let routes = a.status().await.unwrap().routes;
    routes.iter().find(|route| route.node.as_str() == "b").unwrap().next_hop.to_string()
}

async fn edges(a: &Node) -> Vec<(String, String, u32)> {
    let edges = a.status().await.unwrap().edges;
    edges.into_iter().map(|edge| (edge.from.to_string(), edge.to.to_string(), edge.cost)).collect()
}
