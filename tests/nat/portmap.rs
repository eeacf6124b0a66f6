//! A port of the router that is mapped to a node, by a router that can be asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::clock::until;
use crate::lab::{Family, Internet, Nat, Speaks, skipped_without};
use crate::mesh::{Edge, Mesh, list};

const AT_ONCE: Duration = Duration::from_secs(3);

/// Where the world reaches the node, once the router has said so.
fn mapped(mesh: &Mesh, edge: &Edge, protocol: &str) -> SocketAddr {
    let mapping = until("the port is mapped", || {
        let status = mesh.status(&edge.id);
        let mapping = &status["network"]["port_mapping"];
        assert_ne!(mapping["state"], "failed", "{mapping}");
        (mapping["state"] == "mapped").then(|| mapping.clone())
    });
    assert_eq!(mapping["protocol"], protocol);
    mapping["external"].as_str().unwrap().parse().unwrap()
}

/// What the doctor finds at a node that runs. It is asked for nothing but that, so its settings may
/// be any.
fn doctor(mesh: &Mesh, edge: &Edge) -> Value {
    let control = mesh.control(&edge.id);
    let settings =
        ["--id", &edge.id, "--certs", "certs", "--listen", "[::]:0", "--control", &control];
    let output = mesh.command(&[&["doctor", "--json"], &settings[..]].concat()).output().unwrap();
    // Its exit status is about everything that it looks at.
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Both edges are behind NATs that let nothing through between them, but for a port that one's
/// router maps when it is asked.
fn is_reached_at_the_mapped_port(speaks: Speaks, protocol: &str) {
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let [home, elsewhere] = ["home", "else"].map(|role| internet.gateway(role, Nat::Symmetric));
    let router = home.map_ports(speaks);
    let edge = mesh.edge("edge", home.host("edge"), &["--map-port"]);
    let peer = mesh.edge("peer", elsewhere.host("peer"), &[]);

    let external = mapped(&mesh, &edge, protocol);
    assert_eq!(external.ip(), IpAddr::from(home.public));
    let rules = router.mapped();
    assert!(
        matches!(&rules[..], [rule] if rule.contains(&edge.host.addr.to_string())),
        "{rules:?}"
    );
    let findings = doctor(&mesh, &edge);
    let finding = list(&findings).iter().find(|finding| finding["check"] == "port mapping");
    let finding = finding.unwrap_or_else(|| panic!("the doctor says nothing of it: {findings:#}"));
    assert_eq!(finding["verdict"], "ok", "{finding}");
    assert!(finding["text"].as_str().unwrap().contains(&external.to_string()), "{finding}");

    mesh.settle(&[&edge, &peer]);
    let took = mesh.direct_within(AT_ONCE, &peer, &edge);
    assert_eq!(mesh.direct(&peer, &edge), Some(external));
    eprintln!("mapped by {protocol}: direct after {} ms", took.as_millis());

    edge.leave();
    until("the mapping is removed", || router.mapped().is_empty().then_some(()));
}

#[test]
fn an_edge_is_reached_at_the_port_that_its_router_maps_by_pcp() {
    if skipped_without("miniupnpd", "an_edge_is_reached_at_the_port_that_its_router_maps_by_pcp") {
        return;
    }
    is_reached_at_the_mapped_port(Speaks::Pcp, "pcp");
}

#[test]
fn an_edge_is_reached_at_the_port_that_its_router_maps_by_upnp() {
    if skipped_without("miniupnpd", "an_edge_is_reached_at_the_port_that_its_router_maps_by_upnp") {
        return;
    }
    is_reached_at_the_mapped_port(Speaks::Upnp, "upnp");
}
