//! Nodes that refuse transit, and stubs: what they carry, and what others take from them.

use std::time::Duration;

use receptor_quic::testing::Mesh;
use tokio::time::timeout;

use crate::support::{echo, id, serve_echo};

#[tokio::test(start_paused = true)]
async fn a_node_without_transit_is_no_way_between_others() {
    let mut mesh = Mesh::builder(["a-edge", "b-edge", "a-r", "b-r"]).without_transit(["edge"]).start().await;
    mesh.node("a").ping(&id("b")).await.unwrap();
    mesh.node("a").ping(&id("edge")).await.unwrap();
    mesh.kill("r");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(timeout(Duration::from_secs(20), mesh.node("a").ping(&id("b"))).await.unwrap().is_err());
    mesh.node("a").ping(&id("edge")).await.unwrap();
    assert_eq!(mesh.node("edge").status().await.unwrap().switch.forwarded, 0);
}

#[tokio::test(start_paused = true)]
async fn stubs_of_relays_and_of_nodes_without_transit_reach_each_other() {
    let mesh = Mesh::builder(["edge-r1", "r1-r2", "one-edge", "two-r2"])
        .without_transit(["edge"])
        .ephemeral(["one", "two"])
        .start()
        .await;
    for (from, to) in [("one", "two"), ("two", "one")] {
        serve_echo(mesh.node(to));
        echo(mesh.node(from), to).await;
        echo(mesh.node(from), to).await;
    }
    let edge = mesh.node("edge").status().await.unwrap();
    assert!(!edge.transit && edge.switch.forwarded > 0);
    assert!(mesh.node("one").status().await.unwrap().ephemeral);
}

#[tokio::test(start_paused = true)]
async fn stubs_of_one_node_reach_each_other() {
    let mesh = Mesh::builder(["one-r", "two-r"]).ephemeral(["one", "two"]).start().await;
    serve_echo(mesh.node("two"));
    echo(mesh.node("one"), "two").await;
}
