//! Names that resolve slowly or not at all, and addresses that are reported as unreachable.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::mesh::links::dialling::names::tests::Scripted;
use crate::mesh::{Event, PeerAddr};
use crate::testing::{LinkQuality, Mesh, mesh};
use crate::{Node, NodeBuilder};

const MINUTE: Duration = Duration::from_secs(60);

/// Dials the relay by a name.
fn by_name(mesh: &Mesh, resolver: Arc<Scripted>) -> NodeBuilder {
    let peer = PeerAddr {
        expected: Some("relay".parse().unwrap()),
        host: "relay.example".to_owned(),
        port: mesh.addr("relay").port(),
        carrier: Default::default(),
    };
    mesh.joiner("a", &[]).peer(peer).resolver(resolver)
}

async fn why_dial_failed(events: &mut crate::Events) -> String {
    loop {
        if let Event::DialFailed { why, .. } = events.recv().await.unwrap() {
            return why;
        }
    }
}

/// An address that no host of the network has.
fn nowhere() -> SocketAddr {
    "203.0.113.9:7400".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_slow_look_up_is_named_and_its_answer_used() {
    let mesh = mesh(["relay"]).await;
    let resolver = Scripted::new([(Duration::from_secs(8), Ok(vec![mesh.addr("relay")]))]);
    let start = Instant::now();
    let node = by_name(&mesh, resolver).start().await.unwrap();
    let why = why_dial_failed(&mut node.events()).await;
    assert_eq!(why, "cannot resolve relay.example: the resolver did not answer within 5s");
    node.linked().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(8_500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_dialled_while_its_name_is_looked_up() {
    let mut mesh = mesh(["relay-b"]).await;
    let slow = (MINUTE, Ok(vec![nowhere()]));
    let resolver = Scripted::new([(Duration::ZERO, Ok(vec![mesh.addr("relay")])), slow]);
    let node = by_name(&mesh, resolver).start().await.unwrap();
    node.linked().await.unwrap();
    tokio::time::sleep(MINUTE).await;
    mesh.kill("relay");
    tokio::time::sleep(Duration::from_secs(10)).await;
    mesh.restart_in_place("relay", &[]).await;
    let start = Instant::now();
    node.linked().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_a_look_up_adds_are_dialled_too() {
    let mesh = mesh(["relay"]).await;
    let resolver = Scripted::new([
        (Duration::ZERO, Ok(vec![nowhere()])),
        (Duration::from_secs(1), Ok(vec![nowhere(), mesh.addr("relay")])),
    ]);
    let node = by_name(&mesh, resolver).start().await.unwrap();
    let start = Instant::now();
    node.linked().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_is_named_at_once() {
    let mesh = mesh(["relay"]).await;
    let node = mesh.joiner("a", &[]).peer(PeerAddr::from(nowhere())).start().await.unwrap();
    let mut events = node.events();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let start = Instant::now();
    node.report_closed_port(nowhere());
    let why = why_dial_failed(&mut events).await;
    assert_eq!(why, "port unreachable: no process listens there");
    assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn forged_reports_delay_a_link_and_do_not_prevent_it() {
    for (latency, within) in [(10, Duration::from_millis(200)), (200, Duration::from_secs(30))] {
        let mesh = mesh(["relay"]).await;
        let latency = Duration::from_millis(latency);
        mesh.network().set_default(LinkQuality { latency, ..LinkQuality::default() });
        let relay = mesh.addr("relay");
        let node = mesh.joiner("a", &["relay"]).start().await.unwrap();
        let start = Instant::now();
        let forging = async {
            loop {
                node.report_closed_port(relay);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = forging => {}
            linked = Node::linked(&node) => linked.unwrap(),
        }
        assert!(start.elapsed() < within, "{latency:?}: {:?}", start.elapsed());
    }
}
