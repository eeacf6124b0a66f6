//! The NATs of the lab do what their names say: what is found behind them is no accident of this
//! kernel.

use std::net::SocketAddr;

use crate::lab::{Family, Internet, Nat, skipped};
use crate::observer::{Filtering, Mapping, Probe, observe};

fn each_kind() -> [(Nat, Mapping, Filtering); 6] {
    [
        (Nat::FullCone, Mapping::Preserved, Filtering::Everybody),
        (Nat::AddressRestricted, Mapping::Preserved, Filtering::ByAddress),
        (Nat::PortRestricted, Mapping::Preserved, Filtering::ByPort),
        (Nat::PortRemapped, Mapping::EndpointIndependent, Filtering::ByPort),
        (Nat::Symmetric, Mapping::EndpointDependent, Filtering::ByPort),
        (Nat::Carrier, Mapping::Preserved, Filtering::ByPort),
    ]
}

#[test]
fn each_kind_maps_and_filters_as_its_name_says() {
    if skipped("each_kind_maps_and_filters_as_its_name_says") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let outside = ["r1", "r2", "far"].map(|role| internet.host(role));
    for (nat, mapping, filtering) in each_kind() {
        let gateway = internet.gateway("gw", nat);
        let inside = gateway.host("in");
        assert_eq!(observe(&inside, outside.each_ref(), false), (mapping, filtering), "{nat:?}");
    }
}

#[test]
fn an_ipv6_firewall_lets_in_answers_only_and_keeps_ports() {
    if skipped("an_ipv6_firewall_lets_in_answers_only_and_keeps_ports") {
        return;
    }
    let internet = Internet::new(Family::V4AndV6);
    let outside = ["r1", "r2", "far"].map(|role| internet.host(role));
    let inside_of = |nat| {
        let gateway = internet.gateway("gw", nat);
        let inside = gateway.host("in");
        (gateway, inside)
    };
    for nat in [Nat::FirewalledV6, Nat::Symmetric] {
        let (_gateway, inside) = inside_of(nat);
        assert_eq!(
            observe(&inside, outside.each_ref(), true),
            (Mapping::Preserved, Filtering::ByPort),
            "{nat:?}"
        );
    }
}

#[test]
fn two_gateways_in_a_row_filter_and_neither_hairpins() {
    if skipped("two_gateways_in_a_row_filter_and_neither_hairpins") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let outside = ["r1", "r2", "far"].map(|role| internet.host(role));
    let carrier = internet.gateway("cgn", Nat::Carrier);
    let home = carrier.lan.gateway("home", Nat::PortRestricted);
    let (a, b) = (home.host("a"), home.host("b"));
    let neighbour = carrier.lan.gateway("next", Nat::PortRestricted);
    let c = neighbour.host("c");
    assert_eq!(observe(&a, outside.each_ref(), false), (Mapping::Preserved, Filtering::ByPort));

    // Each of them learns its own address outside, and what the others send there does not come
    // back in.
    let [a, b, c] = [a, b, c].map(|host| Probe::on(&host, false));
    let server = Probe::on(&outside[0], false);
    let mapped = |probe: &Probe| -> SocketAddr {
        probe.send("hello", server.addr);
        server.receive().1
    };
    let (of_a, of_b, of_c) = (mapped(&a), mapped(&b), mapped(&c));
    assert!(of_a.ip() == of_b.ip() && of_a.ip() == of_c.ip());
    a.send("hairpin", of_b);
    c.send("hairpin", of_b);
    server.send("last", of_b);
    assert_eq!(b.receive_up_to("last"), Vec::<String>::new());
    a.send("lan", b.addr);
    assert_eq!(b.receive().0, "lan");
}
