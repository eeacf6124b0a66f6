//! What real sockets report, and which of several answers.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Node, World, until};

/// Without what its host says, a dead relay is missed after 3.5 s at the earliest.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn the_status_names_a_port_that_nobody_listens_on() {
    let world = World::of(&["edge"]);
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _edge = world.node("edge", &["--peer", &format!("relay@{closed}")]);
    let error = until("an attempt has failed", || {
        let status: Value = world.run(&["status", "--json"]).json();
        status["links"][0]["last_error"].as_str().map(str::to_owned)
    });
    assert_eq!(error, "port unreachable: no process listens there");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
fn a_relay_that_was_killed_is_left_because_its_host_says_so() {
    let world = World::of(&["r1", "r2", "edge", "controller"]);
    let mut relays = ["r1", "r2"].map(|id| (id, world.node(id, &["--transit"])));
    let peers: Vec<_> = relays.iter().map(|(id, relay)| format!("{id}@{}", relay.addr())).collect();
    let more = ["--no-direct", "--peer", &peers[0], "--peer", &peers[1]];
    let edge = world.node("edge", &more);
    let controller = world.node("controller", &more);
    let status = |node: &Node| -> Value {
        world.run(&["status", "--json", "--control", &node.control().display().to_string()]).json()
    };
    let links = |status: &Value| {
        let links = status["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        links.iter().filter(|link| link["state"] == "up").count()
    };
    let socket = controller.control().display().to_string();
    let ping =
        || world.run(&["ping", "edge", "--count", "1", "--timeout", "0.3", "--control", &socket]);
    let via = until("two ways to the edge", || {
        ping();
        let (near, far) = (status(&controller), status(&edge));
        if (links(&near), links(&far)) != (2, 2) {
            return None;
        }
        let peer = near["peers"].as_array()?.iter().find(|peer| peer["node"] == "edge")?;
        peer["via"].as_str().map(str::to_owned)
    });
    relays.iter_mut().find(|(id, _)| *id == via).unwrap().1.kill();
    let killed = std::time::Instant::now();
    until("the edge answers by the other relay", || (ping().code == Some(0)).then_some(()));
    assert!(killed.elapsed() < NOTICED_WITHIN, "{:?}", killed.elapsed());
}

#[test]
fn every_listen_address_answers_though_one_includes_the_others() {
    let world = World::of(&["relay", "me"]);
    let relay = world.node("relay", &["--listen", "0.0.0.0:0"]);
    let (_, listening) = relay.announced.split_once("listening on ").unwrap();
    let (addrs, _) = listening.split_once(',').unwrap();
    let ports: Vec<_> = addrs.split(' ').filter_map(|addr| addr.rsplit(':').next()).collect();
    assert_eq!(ports.len(), 2, "{addrs}");
    for port in ports {
        let peer = format!("relay@127.0.0.1:{port}");
        let args =
            ["ping", "relay", "--count", "1", "--id", "me", "--certs", "certs", "--peer", &peer];
        world.run(&args).ok();
    }
}
