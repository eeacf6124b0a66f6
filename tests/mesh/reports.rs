//! What nodes report is read back as it was written.

use std::fmt::Debug;
use std::time::Duration;

use receptor_quic::Event;
use receptor_quic::router::Explanation;
use receptor_quic::testing::Mesh;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{echo, serve_echo};

/// In JSON, and in MessagePack with and without the names of fields.
fn assert_round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(report: &T) {
    let json = serde_json::to_string(report).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), report, "{json}");
    let named = rmp_serde::to_vec_named(report).unwrap();
    assert_eq!(&rmp_serde::from_slice::<T>(&named).unwrap(), report, "{json}");
    let compact = rmp_serde::to_vec(report).unwrap();
    assert_eq!(&rmp_serde::from_slice::<T>(&compact).unwrap(), report, "{json}");
}

#[tokio::test(start_paused = true)]
async fn reports_of_live_nodes_are_read_back_as_they_were() {
    let mut mesh = Mesh::builder(["a-r", "b-r", "stub-r", "c-b"]).ephemeral(["stub"]).start().await;
    let mut events = mesh.node("a").events();
    serve_echo(mesh.node("b"));
    mesh.node("b").handle("text:shout", async |_, _| Ok(())).unwrap();
    echo(mesh.node("a"), "b").await;
    assert_round_trip(&mesh.node("a").ping("b").await.unwrap());
    assert_round_trip(&mesh.node("a").trace("stub").await.unwrap());
    mesh.kill("c");
    tokio::time::sleep(Duration::from_secs(60)).await;

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_round_trip(&event);
        seen.push(event);
    }
    assert!(seen.iter().any(|event| matches!(event, Event::NodeUnreachable { .. })), "{seen:?}");

    for name in ["a", "b", "r", "stub"] {
        let status = mesh.node(name).status().await.unwrap();
        assert!(!status.links.is_empty(), "{name}");
        assert_round_trip(&status);
    }
    let mut states = Vec::new();
    for (from, to) in [
        ("a", "a"),
        ("a", "b"),
        ("a", "r"),
        ("a", "stub"),
        ("a", "c"),
        ("a", "unknown"),
        ("stub", "a"),
    ] {
        let explained = mesh.node(from).explain(to).await.unwrap();
        assert_round_trip(&explained);
        states.push(explained.route);
    }
    assert!(matches!(states[1], Explanation::Reachable { .. }), "{states:?}");
    assert!(matches!(states[3], Explanation::Stub { .. }), "{states:?}");
    assert!(matches!(states[5], Explanation::NeverHeardOf), "{states:?}");
}
