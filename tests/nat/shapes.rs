//! Networks that are no simple pair of NATs.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::runs;
use crate::lab::{Family, Gateway, Internet, Nat, Segment, skipped};
use crate::mesh::{Edge, Mesh};

const AT_ONCE: Duration = Duration::from_secs(3);
/// Where packets are lost, those of the handshake and of the offer are as well, and QUIC waits
/// twice as long each time.
const WITH_LOSS: Duration = Duration::from_secs(60);

/// Two edges in a fresh mesh, each behind a gateway that `gateways` makes.
struct Pair {
    mesh: Mesh,
    edges: [Edge; 2],
    gateways: [Gateway; 2],
    _internet: Segment,
}

impl Pair {
    fn new(internet: Segment, v6: bool, gateways: impl Fn(&Segment) -> [Gateway; 2]) -> Self {
        let mesh = Mesh::with(&internet, v6, &[]);
        let gateways = gateways(&internet);
        let edge = |i: usize, id| mesh.edge(id, gateways[i].host(id), &[]);
        let edges = [edge(0, "a"), edge(1, "b")];
        mesh.settle(&[&edges[0], &edges[1]]);
        Self { mesh, edges, gateways, _internet: internet }
    }

    fn of(nats: [Nat; 2]) -> Self {
        Self::new(Internet::new(Family::V4), false, |internet| {
            nats.map(|nat| internet.gateway("gw", nat))
        })
    }

    #[track_caller]
    fn is_direct(&self) -> Duration {
        self.mesh.direct_within(AT_ONCE, &self.edges[0], &self.edges[1])
    }

    #[track_caller]
    fn is_relayed_because(&self, why: &str) {
        self.mesh.relayed_because(why, &self.edges[0], &self.edges[1]);
    }

    /// Where the first edge sends to.
    fn address(&self) -> IpAddr {
        self.mesh.direct(&self.edges[0], &self.edges[1]).expect("it is direct").ip()
    }
}

#[test]
fn a_public_node_and_one_behind_the_hardest_nat_are_direct() {
    if skipped("a_public_node_and_one_behind_the_hardest_nat_are_direct") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let gateway = internet.gateway("gw", Nat::Symmetric);
    let public = mesh.edge("p", internet.host("p"), &[]);
    let hidden = mesh.edge("h", gateway.host("h"), &[]);
    let other = mesh.edge("o", gateway.host("o"), &[]);
    mesh.settle(&[&public, &hidden, &other]);
    mesh.direct_within(AT_ONCE, &public, &hidden);
    mesh.direct_within(AT_ONCE, &other, &public);
}

#[test]
fn two_nodes_behind_one_nat_without_hairpin_use_their_lan() {
    if skipped("two_nodes_behind_one_nat_without_hairpin_use_their_lan") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let gateway = internet.gateway("gw", Nat::Symmetric);
    let (a, b) = (mesh.edge("a", gateway.host("a"), &[]), mesh.edge("b", gateway.host("b"), &[]));
    mesh.settle(&[&a, &b]);
    mesh.direct_within(AT_ONCE, &a, &b);
    assert_eq!(mesh.direct(&a, &b).unwrap().ip(), IpAddr::from(b.host.addr));
    assert_eq!(mesh.direct(&b, &a).unwrap().ip(), IpAddr::from(a.host.addr));
}

#[test]
fn two_homes_with_the_same_private_addresses_are_direct() {
    if skipped("two_homes_with_the_same_private_addresses_are_direct") {
        return;
    }
    let gateways =
        |internet: &Segment| [Nat::PortRestricted; 2].map(|nat| internet.usual_gateway("gw", nat));
    let pair = Pair::new(Internet::new(Family::V4), false, gateways);
    assert_eq!(pair.edges[0].host.addr, pair.edges[1].host.addr);
    pair.is_direct();
    assert_eq!(pair.address(), IpAddr::from(pair.gateways[1].public));
}

#[test]
fn a_nat_that_moves_ports_is_no_hindrance_if_it_does_so_for_all_alike() {
    if skipped("a_nat_that_moves_ports_is_no_hindrance_if_it_does_so_for_all_alike") {
        return;
    }
    Pair::of([Nat::PortRemapped, Nat::PortRestricted]).is_direct();
    Pair::of([Nat::PortRemapped, Nat::PortRemapped]).is_direct();
}

#[test]
fn a_home_behind_a_carrier_s_nat_and_another_home_are_direct() {
    if skipped("a_home_behind_a_carrier_s_nat_and_another_home_are_direct") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let carrier = internet.gateway("cgn", Nat::Carrier);
    let inner = carrier.lan.gateway("in", Nat::PortRestricted);
    let home = internet.gateway("gw", Nat::PortRestricted);
    let (a, b) = (mesh.edge("a", inner.host("a"), &[]), mesh.edge("b", home.host("b"), &[]));
    mesh.settle(&[&a, &b]);
    mesh.direct_within(AT_ONCE, &a, &b);
    assert_eq!(mesh.direct(&b, &a).unwrap().ip(), IpAddr::from(carrier.public));
}

#[test]
fn two_homes_behind_one_carrier_s_nat_without_hairpin_stay_relayed() {
    if skipped("two_homes_behind_one_carrier_s_nat_without_hairpin_stay_relayed") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let mesh = Mesh::new(&internet);
    let carrier = internet.gateway("cgn", Nat::Carrier);
    let homes = [Nat::PortRestricted; 2].map(|nat| carrier.lan.gateway("in", nat));
    let (a, b) = (mesh.edge("a", homes[0].host("a"), &[]), mesh.edge("b", homes[1].host("b"), &[]));
    mesh.settle(&[&a, &b]);
    mesh.relayed_because("no-answer", &a, &b);
}

#[test]
fn two_ipv6_firewalls_are_no_hindrance() {
    if skipped("two_ipv6_firewalls_are_no_hindrance") {
        return;
    }
    let gateways =
        |nat| move |internet: &Segment| [internet.gateway("gw", nat), internet.gateway("gw", nat)];
    // With IPv6 alone; and beside NATs of IPv4 that would not let them through.
    for (nat, relays_by_v6) in
        [(Nat::FirewalledV6, true), (Nat::Symmetric, false), (Nat::Symmetric, true)]
    {
        let pair = Pair::new(Internet::new(Family::V4AndV6), relays_by_v6, gateways(nat));
        pair.is_direct();
        assert_eq!(Some(pair.address()), pair.edges[1].host.addr6.map(IpAddr::from), "{nat:?}");
    }
}

#[test]
fn a_pair_whose_packets_get_through_one_way_only_stays_relayed() {
    if skipped("a_pair_whose_packets_get_through_one_way_only_stays_relayed") {
        return;
    }
    let gateways = |internet: &Segment| {
        let gateways = [Nat::FullCone; 2].map(|nat| internet.gateway("gw", nat));
        gateways[0].block(gateways[1].public);
        gateways
    };
    Pair::new(Internet::new(Family::V4), false, gateways).is_relayed_because("no-answer");
}

#[test]
fn a_pair_that_loses_every_tenth_packet_at_either_end_is_direct() {
    if skipped("a_pair_that_loses_every_tenth_packet_at_either_end_is_direct") {
        return;
    }
    for run in 1..=runs() {
        let pair = Pair::of([Nat::PortRestricted; 2]);
        pair.gateways.iter().for_each(|gateway| gateway.lose(10));
        let took = pair.mesh.direct_within(WITH_LOSS, &pair.edges[0], &pair.edges[1]);
        eprintln!("run {run}: with 10 % loss on both lines: direct after {} ms", took.as_millis());
        if took > AT_ONCE {
            let [a, b] = &pair.edges;
            for (from, to) in [(a, b), (b, a)] {
                eprintln!("  {}", pair.mesh.explain(from, to));
            }
        }
    }
}
