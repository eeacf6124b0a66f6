//! Which nodes are believed to have which stubs: those that the stubs have attached themselves to.

use std::time::Duration;

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::router::{ClaimFault, ClaimState, Event, FloodMode, NeighbourKind, SessionUp};

use crate::notary::{LIFE, Plain};
use crate::signed::signed;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

#[test]
fn a_stub_is_reached_once_it_is_used() {
    in_both_modes(|| {
        let mut sim = row(4);
        sim.attach(&id("n03"), id("leaf"), Cost::DEFAULT);
        sim.run_for(Duration::from_secs(2));
        assert!(sim.router("n00").table().is_claimed(&id("leaf")));
        assert_eq!(cost(&sim, "n00"), None);
        assert_eq!(state(&sim, "n00", "n03"), ClaimState::Unverified);
        assert_eq!(verified(&sim), 0, "nobody has asked");

        let start = sim.now;
        verify(&mut sim, "n00");
        while cost(&sim, "n00").is_none() && sim.now < start + Duration::from_secs(2) {
            sim.run_for(Duration::from_millis(1));
        }
        assert_eq!(cost(&sim, "n00"), Some(4));
        let took = sim.now - start;
        assert!(
            took <= Duration::from_millis(6 * 50 + 20),
            "one round trip of three hops: {took:?}"
        );
        // So does each hop on the way, which the packets depend on.
        assert_eq!(["n01", "n02", "n03"].map(|hop| cost(&sim, hop)), [Some(3), Some(2), Some(1)]);
        assert_eq!(verified(&sim), 3);

        sim.detach(&id("n03"), &id("leaf"));
        sim.run_for(Duration::from_secs(2));
        for node in sim.nodes.values() {
            assert!(
                node.router.table().route(&id("leaf")).is_none() && node.router.sizes().claims == 0
            );
        }
    });
}

#[test]
fn a_stub_that_nobody_uses_costs_each_node_at_most_200_bytes() {
    let edges = topologies::star(161);
    let mut sim = Sim::flooding(1, FloodMode::Full);
    sim.tune = signed;
    sim.latency = (1, 10);
    sim.boot_all(topologies::nodes_of(&edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(20));
    let before = sim.received.clone();
    sim.attach(&id("n00"), id("laptop"), Cost::DEFAULT);
    sim.run_for(Duration::from_secs(10));
    for name in sim.nodes.keys().filter(|name| **name != id("n00")) {
        // The signature of the hub's record is 16 bytes here, where ECDSA P-256 takes up to 72.
        let cost = sim.received[name] - before[name];
        assert!(cost <= 200, "{name}: {cost}");
        assert!(sim.router(name.as_str()).table().is_claimed(&id("laptop")));
    }
    assert_eq!(verified(&sim), 0);
}

#[test]
fn a_false_claim_attracts_nothing_and_is_reported_once() {
    in_both_modes(|| {
        let mut sim = row(4);
        sim.attach(&id("n03"), id("leaf"), Cost::DEFAULT);
        sim.run_for(Duration::from_secs(2));
        // The liar is next to the node that uses the stub.
        lie(&mut sim, "n01", "leaf");
        sim.run_for(Duration::from_secs(3));
        verify(&mut sim, "n00");
        sim.run_for(Duration::from_secs(2));
        assert_eq!(cost(&sim, "n00"), Some(4));
        assert_eq!(state(&sim, "n00", "n03"), ClaimState::Proven);
        assert_eq!(state(&sim, "n00", "n01"), ClaimState::Rejected(ClaimFault::Forged));
        for _ in 0..5 {
            verify(&mut sim, "n00");
            sim.run_for(Duration::from_secs(90));
        }
        // The user of the stub, and the node that it is attached to.
        for name in ["n00", "n03"] {
            let reports = sim.events.iter().filter(|(at, event)| {
                let of_liar = |by: &NodeId| *by == id("n01");
                *at == id(name) && matches!(event, Event::FalseClaim { by, .. } if of_liar(by))
            });
            assert_eq!(reports.count(), 1, "{name}");
        }
    });
}

#[test]
fn a_neighbour_of_a_stub_notices_who_else_claims_it() {
    let mut sim = row(4);
    sim.attach(&id("n00"), id("leaf"), Cost::DEFAULT);
    sim.run_for(Duration::from_secs(2));
    lie(&mut sim, "n03", "leaf");
    sim.run_for(Duration::from_secs(5));
    // The liar's neighbour finds the forgery, and passes nothing on.
    assert_eq!(state(&sim, "n00", "n03"), ClaimState::Rejected(ClaimFault::NoProof));
    assert_eq!(state(&sim, "n02", "n03"), ClaimState::Rejected(ClaimFault::Forged));
    assert_eq!(["n00", "n02"].map(|name| sim.router(name).counters().claims_false), [1, 1]);
}

#[test]
fn the_proof_of_a_former_neighbour_loses_against_a_newer_one() {
    in_both_modes(|| {
        let mut sim = row(4);
        sim.attach(&id("n01"), id("leaf"), Cost::DEFAULT);
        sim.run_for(Duration::from_secs(2));
        verify(&mut sim, "n00");
        sim.run_for(Duration::from_secs(1));
        assert_eq!(cost(&sim, "n00"), Some(2));
        // It moves, and its old neighbour does not notice, or does not want to.
        sim.attach(&id("n03"), id("leaf"), Cost::DEFAULT);
        sim.run_for(Duration::from_secs(3));
        assert_eq!(cost(&sim, "n00"), Some(4), "without anybody asking again");
        assert_eq!(state(&sim, "n00", "n01"), ClaimState::Rejected(ClaimFault::Older));
        assert_eq!(cost(&sim, "n01"), Some(3), "the old neighbour itself goes along");
    });
}

#[test]
fn a_question_that_is_not_answered_is_given_up_and_asked_again_later() {
    let mut sim = row(3);
    sim.attach(&id("n02"), id("leaf"), Cost::DEFAULT);
    sim.run_for(Duration::from_secs(2));
    // A neighbour that claims to have the stub and has forgotten its proof answers, too.
    let now = sim.now;
    sim.command(&id("n02"), |router| router.handle_timeout(now));
    verify(&mut sim, "n00");
    sim.run_for(Duration::from_secs(1));
    assert_eq!(cost(&sim, "n00"), Some(3));
    // A renewed notary judges everything again.
    let now = sim.now;
    sim.command(&id("n00"), |router| {
        router.set_notary(std::sync::Arc::new(Plain::of(&id("n00"))), now)
    });
    sim.run_for(Duration::from_secs(1));
    assert_eq!(cost(&sim, "n00"), None);
    verify(&mut sim, "n00");
    sim.run_for(Duration::from_secs(1));
    assert_eq!(cost(&sim, "n00"), Some(3));
}

#[test]
fn a_proof_is_kept_while_its_refresh_has_no_next_hop() {
    let mut sim = row(3);
    sim.attach(&id("n02"), id("leaf"), Cost::DEFAULT);
    sim.run_for(Duration::from_secs(2));
    verify(&mut sim, "n00");
    sim.run_for(Duration::from_secs(1));
    assert_eq!(cost(&sim, "n00"), Some(3));
    // The proof is refreshed 10 minutes before it expires. The only link is down at that time.
    sim.run_for(LIFE - Duration::from_secs(605));
    sim.cut(&id("n00"), &id("n01"), Seen::Now);
    sim.run_for(Duration::from_secs(10));
    assert_eq!(cost(&sim, "n00"), None);
    sim.connect("n00", "n01");
    sim.run_for(Duration::from_secs(20));
    assert_eq!(cost(&sim, "n00"), Some(3), "although nobody has used the stub since");
}

/// `liar` lists a stub with a proof that it has made itself.
fn lie(sim: &mut Sim, liar: &str, stub: &str) {
    let (now, instance) = (sim.now, 7);
    let up =
        SessionUp { neighbour: id(stub), instance, cost: Cost::DEFAULT, kind: NeighbourKind::Stub };
    let version = Version { epoch: u64::MAX, sequence: 0, instance };
    let forged = Plain::of(&id(liar)).attach(&id(stub), &id(liar), version);
    sim.command(&id(liar), |router| {
        router.handle_session_up(up, now).unwrap();
        assert!(router.set_attachment(forged, LIFE, now), "it believes itself");
    });
}

fn row(nodes: usize) -> Sim {
    let edges = topologies::line(nodes);
    let mut sim = Sim::new(5);
    sim.tune = signed;
    sim.boot_all(topologies::nodes_of(&edges));
    edges.iter().for_each(|(a, b)| {
        sim.connect(a, b);
    });
    sim.run_for(Duration::from_secs(20));
    sim
}

fn verify(sim: &mut Sim, name: &str) {
    let now = sim.now;
    sim.command(&id(name), |router| {
        router.verify_claims(&id("leaf"), now);
    });
}

fn cost(sim: &Sim, name: &str) -> Option<u64> {
    sim.router(name).table().route(&id("leaf")).map(|route| route.cost)
}

fn state(sim: &Sim, name: &str, by: &str) -> ClaimState {
    let claims = sim.router(name).claims(&id("leaf"));
    let claim = claims.iter().find(|claim| claim.by == id(by));
    claim.expect("it is listed").state
}

fn verified(sim: &Sim) -> u64 {
    sim.nodes.values().map(|node| node.router.counters().attachments_verified).sum()
}
