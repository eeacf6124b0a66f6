//! NATs that do not filter their own input: plain masquerade.

use std::time::Duration;

use crate::clock::runs;
use crate::lab::{Family, Gateway, Internet, Nat, Segment, skipped};
use crate::mesh::Mesh;
use crate::observer::Probe;

/// From the first packet to a peer until packets for it go directly.
const AT_ONCE: Duration = Duration::from_secs(3);
/// The same where several volleys may be needed.
const WITH_LUCK: Duration = Duration::from_secs(8);

/// How long a pair behind these gateways took to be direct; `None` if it is not after `limit`.
fn direct(internet: &Segment, gateways: [&Gateway; 2], limit: Duration) -> Option<Duration> {
    let mesh = Mesh::new(internet);
    let (a, b) =
        (mesh.edge("a", gateways[0].host("a"), &[]), mesh.edge("b", gateways[1].host("b"), &[]));
    mesh.settle(&[&a, &b]);
    let began = crate::clock::now();
    mesh.ping(&a, &b);
    let both = || mesh.direct(&a, &b).and_then(|_| mesh.direct(&b, &a));
    crate::clock::within(limit, both).map(|_| crate::clock::now() - began)
}

#[test]
fn a_bare_nat_gives_the_answer_to_an_unasked_packet_another_port() {
    if skipped("a_bare_nat_gives_the_answer_to_an_unasked_packet_another_port") {
        return;
    }
    let internet = Internet::new(Family::V4);
    for (nat, kept) in [(Nat::Bare, false), (Nat::PortRestricted, true)] {
        let gateway = internet.gateway("gw", nat);
        let (outside, inside) = (internet.host("out"), gateway.host("in"));
        let (outside, inside) = (Probe::on(&outside, false), Probe::on(&inside, false));
        outside.send("unasked", (gateway.public, inside.addr.port()).into());
        inside.send("answer", outside.addr);
        let (_, seen) = outside.receive();
        assert_eq!(seen.port() == inside.addr.port(), kept, "{nat:?}");
    }
}

#[test]
fn two_bare_nats_with_10_ms_between_them_are_passed_at_once() {
    if skipped("two_bare_nats_with_10_ms_between_them_are_passed_at_once") {
        return;
    }
    for run in 1..=runs() {
        let internet = Internet::new(Family::V4);
        let half = Duration::from_millis(5);
        let far = |role| internet.far_gateway(role, Nat::Bare, half);
        let ((left, _left_line), (right, _right_line)) = (far("left"), far("right"));
        let took = direct(&internet, [&left, &right], AT_ONCE).expect("direct");
        eprintln!("run {run}: direct after {} ms", took.as_millis());
    }
}

#[test]
fn a_bare_nat_and_each_other_kind_are_passed_where_ports_need_no_guessing() {
    if skipped("a_bare_nat_and_each_other_kind_are_passed_where_ports_need_no_guessing") {
        return;
    }
    for other in [Nat::FullCone, Nat::AddressRestricted, Nat::PortRestricted] {
        let internet = Internet::new(Family::V4);
        let half = Duration::from_millis(5);
        let (bare, _bare_line) = internet.far_gateway("bare", Nat::Bare, half);
        let (gateway, _line) = internet.far_gateway("other", other, half);
        let took = direct(&internet, [&bare, &gateway], WITH_LUCK);
        assert!(took.is_some(), "{other:?}");
        eprintln!("{other:?}: direct after {:?}", took.unwrap());
    }
}

#[test]
#[ignore = "takes minutes, and luck: without delay a volley must be exact to some 10 µs"]
fn two_bare_nats_on_one_bridge_are_mostly_passed() {
    if skipped("two_bare_nats_on_one_bridge_are_mostly_passed") {
        return;
    }
    let mut passed = 0;
    for run in 1..=20 {
        let internet = Internet::new(Family::V4);
        let gateways = [internet.gateway("left", Nat::Bare), internet.gateway("right", Nat::Bare)];
        let took = direct(&internet, gateways.each_ref(), WITH_LUCK);
        eprintln!("run {run}: {took:?}");
        passed += u32::from(took.is_some());
    }
    assert!(passed >= 15, "{passed} of 20");
}
