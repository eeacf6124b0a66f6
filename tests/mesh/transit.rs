//! Nodes that refuse transit, and stubs: what they carry, and what others take from them.

use std::time::Duration;

use receptor_quic::router::Explanation;
use receptor_quic::testing::{Mesh, Network};
use receptor_quic::transport::RelayRule;
use receptor_quic::{Authority, Node, NodeId};
use tokio::time::timeout;

use crate::support::{echo, id, serve_echo};

#[tokio::test(start_paused = true)]
async fn a_node_without_transit_is_no_way_between_others() {
    let mut mesh =
        Mesh::builder(["a-edge", "b-edge", "a-r", "b-r"]).without_transit(["edge"]).start().await;
    mesh.node("a").ping(&id("b")).await.unwrap();
    mesh.node("a").ping(&id("edge")).await.unwrap();
    mesh.kill("r");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        timeout(Duration::from_secs(20), mesh.node("a").ping(&id("b"))).await.unwrap().is_err()
    );
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

/// Five nodes that all claim transit: `bad` links a and b, as r1 and r2 do less directly, which
/// alone have the role. All but `bad` permit transit by this rule.
async fn restricted(rule: Option<&str>) -> Vec<Node> {
    let (network, ca) = (Network::new(3), Authority::new("roles", 1).unwrap());
    let rule: Option<RelayRule> = rule.map(|rule| rule.parse().unwrap());
    let mut nodes: Vec<Node> = Vec::new();
    for (name, peers) in
        [("bad", &[][..]), ("r1", &[0]), ("r2", &[1]), ("a", &[0, 1]), ("b", &[0, 2])]
    {
        let roles = if name.starts_with('r') { &["relay"][..] } else { &[] };
        let identity = ca.issue_with_roles(&id(name), roles.iter().copied(), 1).unwrap();
        let trust = identity.trust().clone();
        let identity = match &rule {
            Some(rule) if name != "bad" => identity.with_trust(trust.with_relays([rule.clone()])),
            _ => identity,
        };
        let builder = Node::builder(id(name), identity)
            .socket(network.bind_host())
            .direct(false)
            .transit(true);
        let dial = |builder: receptor_quic::NodeBuilder, peer: &usize| {
            builder.peer(nodes[*peer].local_addrs()[0])
        };
        let node = peers.iter().fold(builder, dial).start().await.unwrap();
        nodes.push(node);
    }
    for from in &nodes {
        for to in &nodes {
            from.routable(to.id()).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_permission_attracts_nothing_and_stays_reachable() {
    for (rule, forwards) in
        [(None, true), (Some("role:relay"), false), (Some("r*"), false), (Some("*"), true)]
    {
        let nodes = restricted(rule).await;
        let [bad, _, _, a, b] = &nodes[..] else { unreachable!("there are five") };
        for (from, to) in [(a, b), (b, a), (a, bad), (bad, b)] {
            from.ping(to.id()).await.unwrap();
        }
        let status = bad.status().await.unwrap();
        assert_eq!(status.switch.forwarded > 0, forwards, "{rule:?}");
        let status = a.status().await.unwrap();
        assert_eq!(status.relays, rule.map(|rule| vec![rule.to_owned()]));
        let hops = status.routes.iter().find(|route| route.node == *b.id()).unwrap().hops;
        assert_eq!(hops, if forwards { 2 } else { 3 }, "{rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_gets_the_role_by_renewal_carries_traffic() {
    let (network, ca) = (Network::new(4), Authority::new("roles", 1).unwrap());
    let rule: RelayRule = "role:relay".parse().unwrap();
    let node = |name: &str| {
        let identity = ca.issue(&id(name), 1).unwrap();
        let trust = identity.trust().clone().with_relays([rule.clone()]);
        Node::builder(id(name), identity.with_trust(trust))
            .socket(network.bind_host())
            .direct(false)
    };
    let r = node("r").transit(true).start().await.unwrap();
    let a = node("a").peer(r.local_addrs()[0]).start().await.unwrap();
    let b = node("b").peer(r.local_addrs()[0]).start().await.unwrap();
    a.routable(r.id()).await.unwrap();
    b.routable(r.id()).await.unwrap();
    let routable = async || timeout(Duration::from_secs(10), a.routable(b.id())).await;
    assert!(routable().await.is_err());
    let explained = a.explain(b.id()).await.unwrap().route;
    let names_r = |ids: &[NodeId]| ids == [r.id().clone()];
    assert!(
        matches!(&explained, Explanation::NoTransit { not_permitted, .. } if names_r(not_permitted)),
        "{explained:?}"
    );
    let renewed = ca.issue_with_roles(r.id(), ["relay"], 1).unwrap();
    let trust = renewed.trust().clone().with_relays([rule.clone()]);
    r.reload(renewed.with_trust(trust)).await.unwrap();
    routable().await.unwrap().unwrap();
    b.routable(a.id()).await.unwrap();
    a.ping(b.id()).await.unwrap();
}
