//! Edges in networks where UDP does not pass: their links are carried by TLS over TCP.

use std::time::Duration;

use crate::clock::{now, until};
use crate::lab::{Family, Gateway, Internet, Nat, Segment, skipped};
use crate::mesh::{Edge, Mesh, list};
use crate::transfer::{MIB, Transfer};

/// From the start of a node's process until it has its links.
const LINKED_WITHIN: Duration = Duration::from_millis(1_500);

/// Relays that accept links by UDP and by TLS.
fn relays(internet: &Segment) -> Mesh {
    Mesh::with(internet, false, &["--listen-tcp", "[::]:4433"])
}

/// An edge behind a NAT of its own that drops UDP.
fn walled(mesh: &Mesh, internet: &Segment, id: &str, nat: Nat) -> (Edge, Gateway) {
    let gateway = internet.gateway(id, nat);
    gateway.drop_udp();
    let host = gateway.host(id);
    (mesh.edge_by_tls(id, host), gateway)
}

fn open(mesh: &Mesh, internet: &Segment, id: &str, nat: Nat) -> (Edge, Gateway) {
    let gateway = internet.gateway(id, nat);
    let host = gateway.host(id);
    (mesh.edge(id, host, &[]), gateway)
}

/// What carries the links of a node that are up.
fn carriers(mesh: &Mesh, node: &str) -> Vec<String> {
    let status = mesh.status(node);
    let up = list(&status["links"]).iter().filter(|link| link["state"] == "up");
    up.map(|link| link["carrier"].as_str().unwrap_or_default().to_owned()).collect()
}

/// An edge behind each kind of NAT.
fn behind_each(
    edge: fn(&Mesh, &Segment, &str, Nat) -> (Edge, Gateway),
    (mesh, internet): (&Mesh, &Segment),
    name: &str,
) -> Vec<(Edge, Gateway)> {
    let kinds = Nat::MATRIX.into_iter().enumerate();
    kinds.map(|(i, nat)| edge(mesh, internet, &format!("{name}{i}"), nat)).collect()
}

/// Each edge of one side calls each one of the other, and is called by it.
fn all_pairs_call(mesh: &Mesh, callers: &[(Edge, Gateway)], called: &[(Edge, Gateway)]) {
    mesh.settle(&callers.iter().chain(called).map(|(edge, _)| edge).collect::<Vec<_>>());
    for (from, _) in callers {
        assert_eq!(carriers(mesh, &from.id), ["tls", "tls"]);
        for (to, _) in called {
            mesh.ping(from, to);
            mesh.ping(to, from);
            assert_eq!((mesh.direct(from, to), mesh.direct(to, from)), (None, None));
        }
    }
}

#[test]
fn pairs_behind_any_nats_call_with_udp_dropped_at_one_side() {
    if skipped("pairs_behind_any_nats_call_with_udp_dropped_at_one_side") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = relays(&internet);
    let lab = (&mesh, &internet);
    let (walled, open) = (behind_each(walled, lab, "a"), behind_each(open, lab, "b"));
    all_pairs_call(&mesh, &walled, &open);
    assert_eq!(carriers(&mesh, "b0"), ["udp", "udp"]);
}

#[test]
fn pairs_behind_any_nats_call_with_udp_dropped_at_both_sides() {
    if skipped("pairs_behind_any_nats_call_with_udp_dropped_at_both_sides") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = relays(&internet);
    let lab = (&mesh, &internet);
    let (callers, called) = (behind_each(walled, lab, "a"), behind_each(walled, lab, "b"));
    all_pairs_call(&mesh, &callers, &called);
}

#[test]
fn an_edge_by_tls_has_its_links_soon_and_streams_arrive_whole() {
    if skipped("an_edge_by_tls_has_its_links_soon_and_streams_arrive_whole") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = relays(&internet);
    let (b, _gateway) = open(&mesh, &internet, "b", Nat::PortRestricted);
    mesh.settle(&[&b]);
    let begin = now();
    let (a, _gateway) = walled(&mesh, &internet, "a", Nat::PortRestricted);
    until("the edge has its links", || (carriers(&mesh, "a").len() == 2).then_some(()));
    let took = begin.elapsed();
    eprintln!("an edge by TLS has its links {} ms after its start", took.as_millis());
    assert!(took <= LINKED_WITHIN, "{took:?}");

    mesh.settle(&[&a, &b]);
    let transfer = Transfer::start(&mesh, &a, &b);
    transfer.advance(4 * MIB);
    transfer.finish();
}

#[test]
fn an_edge_without_udp_has_no_link_unless_by_tls() {
    if skipped("an_edge_without_udp_has_no_link_unless_by_tls") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = relays(&internet);
    let gateway = internet.gateway("a", Nat::PortRestricted);
    gateway.drop_udp();
    let by_udp = mesh.edge("a", gateway.host("a"), &[]);
    let by_tls = mesh.edge_by_tls("b", gateway.host("b"));
    mesh.settle(&[&by_tls]);
    until("both attempts by UDP fail", || {
        let status = mesh.status(&by_udp.id);
        let failed = |link: &serde_json::Value| link["last_error"].is_string();
        list(&status["links"]).iter().all(failed).then_some(())
    });
    assert_eq!(carriers(&mesh, &by_udp.id), Vec::<String>::new());
}
