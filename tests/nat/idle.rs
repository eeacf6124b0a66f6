//! What an idle edge costs its line.

use std::thread;
use std::time::Duration;

use crate::lab::{Family, Host, Internet, Nat, skipped};
use crate::mesh::Mesh;

/// Several keepalives of every kind.
const MEASURED: Duration = Duration::from_secs(60);

/// Counts what a host sends and gets by UDP, with IP headers.
fn count(host: &Host) {
    host.namespace.nft(
        "table inet usage {
           counter sent { }
           counter received { }
           chain output {
             type filter hook output priority filter
             meta l4proto udp counter name sent
           }
           chain input {
             type filter hook input priority filter
             meta l4proto udp counter name received
           }
         }",
    );
}

/// Bytes a second that an edge with this profile sends to each of its relays, when nothing happens.
fn idle(profile: &str) -> f64 {
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let gateway = internet.gateway("a", Nat::PortRestricted);
    let edge = mesh.edge("a", gateway.host("a"), &["--liveness", profile]);
    let other = mesh.edge("b", internet.host("b"), &[]);
    mesh.settle(&[&edge, &other]);
    let begin = MEASURED / 4;
    // What settling takes at the start is not what is measured.
    thread::sleep(begin);
    count(&edge.host);
    thread::sleep(MEASURED);
    let per_second = |counter| {
        edge.host.namespace.bytes("inet usage", counter) as f64 / MEASURED.as_secs_f64() / 2.0
    };
    let (sent, received) = (per_second("sent"), per_second("received"));
    eprintln!("an idle edge, {profile}: sends {sent:.1} B/s to each relay, and gets {received:.1}");
    mesh.ping(&other, &edge);
    sent
}

#[test]
#[ignore = "measures for a minute"]
fn an_idle_edge_sends_at_most_100_bytes_a_second_to_a_relay_and_is_reachable() {
    if skipped("an_idle_edge_sends_at_most_100_bytes_a_second_to_a_relay_and_is_reachable") {
        return;
    }
    assert!(idle("default") <= 100.0);
}

#[test]
#[ignore = "measures for a minute"]
fn an_idle_metered_edge_sends_at_most_10_bytes_a_second_to_a_relay_and_is_reachable() {
    if skipped("an_idle_metered_edge_sends_at_most_10_bytes_a_second_to_a_relay_and_is_reachable") {
        return;
    }
    assert!(idle("metered") <= 10.0);
}
