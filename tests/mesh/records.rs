//! Records are signed with the nodes' certificates.

use std::path::Path;
use std::time::Duration;

use receptor_quic::mesh::RecordStatus;
use receptor_quic::testing::{Network, mesh};
use receptor_quic::{Event, Identity, Node, NodeBuilder, PeerAddr};

use crate::support::id;

#[tokio::test(start_paused = true)]
async fn nodes_with_every_kind_of_key_and_name_are_in_one_mesh() {
    // RSA, P-256, Ed25519, P-384 and a chain with an intermediate CA, in a row: all but neighbours
    // know each other by records.
    let names = ["othername", "uri", "dns", "p384", "chained"];
    let network = Network::new(1);
    let mut nodes: Vec<Node> = Vec::new();
    let mut before: Option<PeerAddr> = None;
    for name in names {
        let socket = network.bind_host();
        let address = PeerAddr { expected: Some(id(name)), ..PeerAddr::from(socket.address()) };
        let builder = Node::builder(id(name), fixture(name)).socket(socket).transit(true);
        let builder = before.take().into_iter().fold(builder, NodeBuilder::peer);
        before = Some(address);
        nodes.push(builder.start().await.unwrap());
    }
    for from in &nodes {
        for to in &nodes {
            from.routable(to.id()).await.unwrap();
            from.ping(to.id()).await.unwrap();
        }
        let records = records(from).await;
        assert_eq!(
            (records.forged, records.untrusted, records.unproven),
            (0, 0, 0),
            "{}",
            from.id()
        );
        // Each of the others' certificates came once, whoever had it.
        assert_eq!(records.credentials_pulled, names.len() as u64 - 1, "{}", from.id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_signs_the_record_anew_is_pulled_once_and_costs_no_route() {
    let mesh = mesh(["a-r", "r-b", "b-c"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let others = ["r", "b", "c"];
    let mut events = Vec::new();
    let mut before = Vec::new();
    for name in others {
        events.push(mesh.node(name).events());
        before.push(records(mesh.node(name)).await.credentials_pulled);
    }
    let renewed = mesh.authority().issue(&id("a"), 2).unwrap();
    mesh.node("a").reload(renewed).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for ((name, before), mut events) in others.into_iter().zip(before).zip(events) {
        let records = records(mesh.node(name)).await;
        assert_eq!(records.credentials_pulled, before + 1, "{name}");
        assert_eq!((records.forged, records.untrusted, records.unproven), (0, 0, 0), "{name}");
        while let Ok(event) = events.try_recv() {
            assert!(
                !matches!(event, Event::NodeUnreachable { .. } | Event::LinkDown { .. }),
                "{name}: {event:?}"
            );
        }
        mesh.node(name).ping(&id("a")).await.unwrap();
    }
    // The same certificate once more, with another trust: nothing is said.
    let identity = mesh.authority().issue(&id("b"), 1).unwrap();
    mesh.node("b").reload(identity.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let verified = records(mesh.node("a")).await.verified;
    let denying = identity.trust().clone().with_denied([id("nobody")]);
    mesh.node("b").reload(identity.with_trust(denying)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(records(mesh.node("a")).await.verified, verified);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_one_denies_is_reached_by_the_others_and_the_link_between_stays() {
    let mesh = mesh(["a-r", "r-b"]).await;
    let denying = mesh.authority().issue(&id("d"), 1).unwrap();
    let denying = denying.clone().with_trust(denying.trust().clone().with_denied([id("b")]));
    let socket = mesh.network().bind_host();
    let peer = PeerAddr { expected: Some(id("r")), ..PeerAddr::from(mesh.addr("r")) };
    let d = Node::builder(id("d"), denying).socket(socket).peer(peer).start().await.unwrap();
    let mut events = d.events();
    d.routable(&id("a")).await.unwrap();
    mesh.node("b").routable(&id("d")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    d.ping(&id("a")).await.unwrap();
    assert_eq!(d.status().await.unwrap().routes.len(), 2);
    let records = records(&d).await;
    assert_eq!(records.forged, 0);
    let shown = serde_json::to_value(&records.not_trusted).unwrap();
    assert_eq!(shown, serde_json::json!([{ "node": "b", "why": "denied" }]));
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::LinkDown { .. }), "{event:?}");
    }
}

fn fixture(name: &str) -> Identity {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/fixtures");
    Identity::load(&fixtures, &id(name)).unwrap()
}

async fn records(node: &Node) -> RecordStatus {
    node.status().await.unwrap().records
}
