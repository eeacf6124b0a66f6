//! Each kind of NAT with each other.

use std::time::Duration;

use crate::clock::runs;
use crate::lab::{Family, Gateway, Internet, Nat, Segment, skipped};
use crate::mesh::{Edge, Mesh};

/// From the first packet to a peer until packets for it go directly, where the NATs allow it.
const AT_ONCE: Duration = Duration::from_secs(3);

/// What becomes of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Direct,
    /// For this reason.
    Relayed(&'static str),
}

/// A symmetric NAT's port for a peer is not known before something has come through it. Whoever
/// filters by port lets nothing in from a port that he does not know.
fn expected(caller: Nat, called: Nat) -> Expected {
    match (caller, called) {
        (Nat::Symmetric, Nat::Symmetric) => Expected::Relayed("both-endpoint-dependent"),
        (Nat::Symmetric, Nat::PortRestricted) | (Nat::PortRestricted, Nat::Symmetric) => {
            Expected::Relayed("port-guessing-needed")
        }
        _ => Expected::Direct,
    }
}

/// An edge behind a NAT of its own.
fn home(mesh: &Mesh, internet: &Segment, id: &str, nat: Nat) -> (Nat, Edge, Gateway) {
    let gateway = internet.gateway(id, nat);
    let host = gateway.host(id);
    (nat, mesh.edge(id, host, &[]), gateway)
}

#[test]
fn every_pair_of_nats_calls_at_once_and_is_direct_within_3_s_or_says_why_not() {
    if skipped("every_pair_of_nats_calls_at_once_and_is_direct_within_3_s_or_says_why_not") {
        return;
    }
    for run in 1..=runs() {
        let internet = Internet::new(Family::V4);
        let mesh = Mesh::new(&internet);
        let side = |name: &str| -> Vec<_> {
            let kinds = Nat::MATRIX.into_iter().enumerate();
            kinds.map(|(i, nat)| home(&mesh, &internet, &format!("{name}{i}"), nat)).collect()
        };
        let (callers, called) = (side("a"), side("b"));
        mesh.settle(&callers.iter().chain(&called).map(|(_, edge, _)| edge).collect::<Vec<_>>());
        let pairs =
            || callers.iter().flat_map(|caller| called.iter().map(move |called| (caller, called)));
        for ((from_nat, from, _), (to_nat, to, _)) in pairs() {
            if expected(*from_nat, *to_nat) == Expected::Direct {
                let took = mesh.direct_within(AT_ONCE, from, to);
                eprintln!(
                    "run {run}: {from_nat:?} to {to_nat:?}: direct after {} ms",
                    took.as_millis()
                );
            } else {
                mesh.ping(from, to);
            }
        }
        for ((from_nat, from, _), (to_nat, to, _)) in pairs() {
            if let Expected::Relayed(why) = expected(*from_nat, *to_nat) {
                mesh.relayed_because(why, from, to);
                eprintln!("run {run}: {from_nat:?} to {to_nat:?}: relayed, {why}");
            }
        }
    }
}
