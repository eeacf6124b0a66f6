//! Configured peers that are replaced while the node runs.

use std::time::Duration;

use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::{Event, Node, PeerAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{echo, id, serve_echo, service, up_links};

/// The peers with these names.
fn peers(mesh: &Mesh, names: &[&str]) -> Vec<PeerAddr> {
    let addr = |name: &&str| format!("{name}@{}", mesh.addr(name)).parse().unwrap();
    names.iter().map(addr).collect()
}

async fn sorted_links(node: &Node) -> Vec<String> {
    let mut links = up_links(node).await;
    links.sort();
    links
}

async fn until_linked(mesh: &Mesh, name: &str, links: &[&str]) {
    let linked = async {
        while sorted_links(mesh.node(name)).await != links {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(5), linked).await.is_ok();
    let status = mesh.node(name).status().await.unwrap();
    assert!(in_time, "not linked to {links:?} alone: {:#?}", status.links);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_while_its_relay_is_replaced() {
    let mesh = mesh(["a-r", "b-r", "b-s"]).await;
    serve_echo(mesh.node("b"));
    let mut stream = mesh.node("a").open(&id("b"), &service("echo")).await.unwrap();
    let mut sent = 0_u8;
    for names in [&["r", "s"][..], &["s"], &["s", "r"], &["r"]] {
        mesh.node("a").set_peers(peers(&mesh, names)).await.unwrap();
        let mut links = names.to_vec();
        links.sort_unstable();
        until_linked(&mesh, "a", &links).await;
        mesh.converge().await;
        sent += 1;
        stream.write_all(&[sent]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), sent, "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_removed_learns_why_and_is_not_dialled() {
    let mesh = mesh(["a-r", "a-s"]).await;
    let mut events = mesh.node("r").events();
    mesh.node("a").set_peers(peers(&mesh, &["s"])).await.unwrap();
    let why = loop {
        if let Event::LinkDown { peer, why } = events.recv().await.unwrap() {
            assert_eq!(peer, id("a"));
            break why;
        }
    };
    assert!(why.contains("the node no longer keeps this link"), "{why}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(up_links(mesh.node("a")).await, ["s"]);
    assert_eq!(up_links(mesh.node("r")).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_forgotten_when_removed() {
    let mut mesh = mesh(["a-r", "a-s"]).await;
    let dead = peers(&mesh, &["s"]);
    mesh.kill("s");
    let mut events = mesh.node("a").events();
    while !matches!(events.recv().await.unwrap(), Event::DialFailed { .. }) {}
    mesh.node("a").set_peers(peers(&mesh, &["r"])).await.unwrap();
    let links = mesh.node("a").status().await.unwrap().links;
    assert_eq!(links.len(), 1, "{links:#?}");
    let mut events = mesh.node("a").events();
    let failure =
        async { while !matches!(events.recv().await.unwrap(), Event::DialFailed { .. }) {} };
    assert!(timeout(Duration::from_secs(300), failure).await.is_err(), "{dead:?} is dialled");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_the_other_node_dialled_stays() {
    let mesh = mesh(["a-r", "r-s"]).await;
    mesh.node("r").set_peers(peers(&mesh, &["s", "a"])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    mesh.node("r").set_peers(peers(&mesh, &["s"])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sorted_links(mesh.node("r")).await, ["a", "s"]);
}

#[tokio::test(start_paused = true)]
async fn links_of_peers_that_stay_are_not_disturbed() {
    let mesh = mesh(["a-r", "b-r", "b-s"]).await;
    serve_echo(mesh.node("b"));
    let mut events = mesh.node("r").events();
    for round in 0..100 {
        let names = if round % 2 == 0 { &["r", "s", "r"][..] } else { &["r"] };
        mesh.node("a").set_peers(peers(&mesh, names)).await.unwrap();
        echo(mesh.node("a"), "b").await;
    }
    until_linked(&mesh, "a", &["r"]).await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::LinkDown { .. } | Event::LinkUp { .. }), "{event:?}");
    }
}
