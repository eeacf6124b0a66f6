//! Links come up, and routes with them.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network, mesh};

#[tokio::test(start_paused = true)]
async fn two_edges_reach_each_other_through_a_relay() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let pong = mesh.node("a").ping(mesh.node("b").id()).await.unwrap();
    assert_eq!(pong.node.as_str(), "b");
    let hops = mesh.node("a").trace(mesh.node("b").id()).await.unwrap();
    let hops: Vec<_> = hops.iter().map(|hop| hop.node.as_str()).collect();
    assert_eq!(hops, ["r", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_can_ping_itself() {
    let mesh = mesh(["a"]).await;
    mesh.node("a").ping(mesh.node("a").id()).await.unwrap();
}

/// Every node pings every other one.
async fn everyone_answers_everyone(mesh: &Mesh) {
    for from in mesh.nodes() {
        for to in mesh.nodes() {
            let pong = from.ping(to.id()).await;
            assert!(pong.is_ok(), "{} → {}: {pong:?}", from.id(), to.id());
        }
    }
}

/// Links with some latency, jitter and loss, so that seeds differ.
fn rough(seed: u64) -> Network {
    let network = Network::new(seed);
    network.set_default(LinkQuality {
        latency: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
        loss: 0.01,
        ..LinkQuality::default()
    });
    network
}

#[tokio::test(start_paused = true)]
async fn a_ring_with_a_chord_comes_up_from_cold_on_rough_links() {
    for seed in 0..5 {
        let links = ["n1-n2", "n2-n3", "n3-n4", "n4-n5", "n5-n6", "n6-n1", "n1-n4"];
        everyone_answers_everyone(&Mesh::on(rough(seed), links).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_of_thirteen_comes_up_from_cold_on_rough_links() {
    let links = [
        "n1-c", "n5-c", "n9-c", "n2-n1", "n3-n1", "n4-n1", "n6-n5", "n7-n5", "n8-n5", "n10-n9",
        "n11-n9", "n12-n9",
    ];
    for seed in 0..2 {
        everyone_answers_everyone(&Mesh::on(rough(seed), links).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_random_mesh_of_sixteen_comes_up_from_cold_on_rough_links() {
    for seed in 0..2_u64 {
        // Each node dials an earlier one, so that all are connected, and every third one another.
        let mut state = seed + 1;
        let mut below = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut links: Vec<String> = (1..16).map(|n| format!("n{n}-n{}", below(n))).collect();
        links.extend((2..16).step_by(3).map(|n| format!("n{n}-n{}", below(n - 1))));
        let mesh = Mesh::on(rough(seed), links.iter().map(String::as_str)).await;
        everyone_answers_everyone(&mesh).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_names_the_directives_of_its_node() {
    let mesh = mesh(["a-r", "b-r"]).await;
    mesh.node("b").handle("text:shout", async |_, _| Ok(())).unwrap();
    let mut seen = Vec::new();
    while seen != ["text:shout"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let status = mesh.node("a").status().await.unwrap();
        seen = status
            .routes
            .into_iter()
            .find(|route| route.node == *mesh.node("b").id())
            .unwrap()
            .directives;
    }
}
