//! A machine gets another address while it talks to a peer directly.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::clock::{runs, until};
use crate::lab::{Family, Internet, Nat, Segment, skipped};
use crate::mesh::{Edge, Mesh};
use crate::transfer::{MIB, Transfer};

/// How long a transfer may stand still.
const GOES_ON_WITHIN: Duration = Duration::from_secs(3);

/// Two edges that talk directly, and what moves the first one: it says where the other one is to
/// send to then.
struct Roamed<'a> {
    mesh: &'a Mesh,
    mobile: &'a Edge,
    peer: &'a Edge,
    moves: &'a dyn Fn() -> Ipv4Addr,
}

impl Roamed<'_> {
    /// The transfer is begun before the move and ended after it.
    #[track_caller]
    fn survives(&self, what: &str) {
        let transfer = Transfer::start(self.mesh, self.mobile, self.peer);
        self.until_direct(|_| true);
        transfer.advance(4 * MIB);

        let seen_at = (self.moves)();
        let stood_still = transfer.goes_on();
        assert!(stood_still <= GOES_ON_WITHIN, "{what}: it stood still for {stood_still:?}");
        self.until_direct(|ip| ip == IpAddr::from(seen_at));
        // What is under way by relays arrives first.
        transfer.advance(4 * MIB);
        let carried = self.mesh.forwarded();
        transfer.advance(8 * MIB);
        let carried = self.mesh.forwarded() - carried;
        assert!(carried < 1_000, "{what}: relays carried {carried} packets of a direct transfer");
        transfer.finish();
        eprintln!("{what}: it stood still for {} ms", stood_still.as_millis());
    }

    /// Waits until both send directly, and the peer to such an address.
    #[track_caller]
    fn until_direct(&self, wanted: impl Fn(IpAddr) -> bool) {
        until("both send directly", || {
            let there = self.mesh.direct(self.mobile, self.peer);
            let back = self.mesh.direct(self.peer, self.mobile);
            there.and(back).filter(|back| wanted(back.ip()))
        });
    }
}

#[test]
fn a_direct_transfer_survives_a_machine_whose_address_behind_the_nat_changes() {
    if skipped("a_direct_transfer_survives_a_machine_whose_address_behind_the_nat_changes") {
        return;
    }
    for _ in 0..runs() {
        let internet = Internet::new(Family::V4);
        let mesh = Mesh::new(&internet);
        let gateways = [Nat::PortRestricted; 2].map(|nat| internet.gateway("gw", nat));
        let mobile = mesh.edge("a", gateways[0].host("a"), &[]);
        let peer = mesh.edge("b", gateways[1].host("b"), &[]);
        mesh.settle(&[&mobile, &peer]);
        let moves = || {
            gateways[0].lan.readdress(&mobile.host);
            gateways[0].public
        };
        let roamed = Roamed { mesh: &mesh, mobile: &mobile, peer: &peer, moves: &moves };
        roamed.survives("another address behind the NAT");
    }
}

/// Both on one segment, where nothing but the address of the interface itself leads from the one to
/// the other.
fn on_one_segment(internet: &Segment, segment: &Segment, what: &str) {
    let mesh = Mesh::new(internet);
    let (mobile, peer) =
        (mesh.edge("a", segment.host("a"), &[]), mesh.edge("b", segment.host("b"), &[]));
    mesh.settle(&[&mobile, &peer]);
    let moves = || segment.readdress(&mobile.host);
    Roamed { mesh: &mesh, mobile: &mobile, peer: &peer, moves: &moves }.survives(what);
}

#[test]
fn a_direct_transfer_survives_a_machine_whose_address_on_the_lan_changes() {
    if skipped("a_direct_transfer_survives_a_machine_whose_address_on_the_lan_changes") {
        return;
    }
    for _ in 0..runs() {
        let internet = Internet::new(Family::V4);
        let gateway = internet.gateway("gw", Nat::Symmetric);
        on_one_segment(&internet, &gateway.lan, "another address on the LAN");
    }
}

#[test]
fn a_direct_transfer_survives_a_public_machine_whose_address_changes() {
    if skipped("a_direct_transfer_survives_a_public_machine_whose_address_changes") {
        return;
    }
    for _ in 0..runs() {
        let internet = Internet::new(Family::V4);
        on_one_segment(&internet, &internet, "another public address");
    }
}
