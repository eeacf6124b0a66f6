//! Stubs: reachable at once, and nothing left behind.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{
    DeadlineReason, Event, Explanation, LinkClass, NeighbourKind, SessionError,
};

use crate::cold_start::cold;
use crate::probe::{Probe, draft, link, names, record};
use crate::reference::assert_converged;
use crate::sim::{id, in_both_modes};
use crate::topologies;

#[test]
fn a_stub_is_reached_through_its_neighbour_by_everybody() {
    in_both_modes(|| {
        let mut sim = cold(1, &topologies::ring_with_chord());
        sim.attach(&id("n01"), id("leaf"), Cost::try_from(4).unwrap());
        sim.run_for(Duration::from_millis(400));
        assert_converged_stub(&sim, "leaf", 5);
        let explained = sim.router("n00").explain(&id("leaf"));
        assert!(
            matches!(explained, Explanation::Stub { of, route: Some(_) } if of == names(&["n01"]))
        );
        assert_eq!(sim.router("n00").path(&id("leaf")), Some(names(&["n00", "n01", "leaf"])));
        sim.detach(&id("n01"), &id("leaf"));
        sim.run_for(Duration::from_millis(1_400));
        assert!(sim.router("n00").table().route(&id("leaf")).is_none());
        assert_eq!(sim.router("n00").explain(&id("leaf")), Explanation::NeverHeardOf);
    });
}

#[test]
fn a_stub_that_comes_and_goes_at_once_changes_no_record() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.wait(5_000);
    let before = probe.router.version();
    for n in 0..50 {
        let stub = format!("stub~{n}");
        probe.up(&stub, NeighbourKind::Stub).unwrap();
        assert!(probe.router.table().route(&id(&stub)).is_some(), "it is reached here at once");
        probe.wait(150);
        probe.router.handle_session_down(&id(&stub), probe.now);
        probe.wait(400);
    }
    assert_eq!(probe.router.version(), before);
}

#[test]
fn churn_of_stubs_is_paced_and_delays_no_other_news() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.wait(30_000);
    let before = probe.router.counters().originations;
    for n in 0..200 {
        probe.up(&format!("stub~{n}"), NeighbourKind::Stub).unwrap();
        probe.wait(50);
    }
    let spoken = probe.router.counters().originations - before;
    assert!((9..=11).contains(&spoken), "ten seconds: {spoken}");
    // The burst for other news is untouched.
    for round in 0..20 {
        probe.up(&format!("another~{round}"), NeighbourKind::Stub).unwrap();
        probe.router.set_capabilities(vec![round].into(), probe.now);
        probe.wait(20);
        assert_eq!(&*probe.held("me").unwrap().capabilities, [round]);
    }
    probe.wait(1_300);
    assert_eq!(
        probe.held("me").unwrap().links.iter().filter(|link| link.class == LinkClass::Stub).count(),
        220
    );
}

#[test]
fn a_stub_that_alternates_is_listed_ever_more_rarely() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.wait(30_000);
    let before = probe.router.counters().originations;
    // Up and down each 1.5 s for ten minutes: 400 changes, each long enough to be listed.
    let mut honest = Vec::new();
    for round in 0..200 {
        probe.up("flapper~1", NeighbourKind::Stub).unwrap();
        probe.wait(1_500);
        assert!(
            probe.router.table().route(&id("flapper~1")).is_some(),
            "it is reached here all the time"
        );
        probe.down("flapper~1");
        probe.wait(1_500);
        if round % 20 == 19 {
            let (name, start) = (format!("honest{round}"), probe.now);
            probe.up(&name, NeighbourKind::Stub).unwrap();
            while !lists(&probe, &name) {
                probe.wait(10);
            }
            honest.push((probe.now - start).as_millis());
        }
    }
    let spoken = probe.router.counters().originations - before;
    assert!(spoken <= 30, "{spoken} records, 10 of them for others");
    assert!(honest.iter().all(|millis| *millis <= 210), "{honest:?}");
}

#[test]
fn many_stubs_of_one_base_id_alternate_at_the_pace_of_its_budget() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.wait(30_000);
    let before = probe.router.counters().originations;
    // Each time with other suffixes.
    for round in 0..600 {
        let names: Vec<String> = (0..10).map(|nth| format!("many~{round}x{nth}")).collect();
        names.iter().for_each(|name| probe.up(name, NeighbourKind::Stub).unwrap());
        probe.wait(1_000);
        names.iter().for_each(|name| probe.down(name));
        probe.wait(1_000);
    }
    let spoken = probe.router.counters().originations - before;
    // 1,200 changes. After the first seven rounds, each that is listed costs 40 s of the budget.
    assert!(spoken <= 2 * (7 + 20 * 60 / 40), "{spoken}");
    let start = probe.now;
    probe.up("honest", NeighbourKind::Stub).unwrap();
    probe.wait(210);
    assert!(lists(&probe, "honest"), "{:?}", probe.now - start);
}

#[test]
fn the_hold_of_a_stub_is_reported_and_ends_by_itself() {
    let mut probe = Probe::new();
    probe.sync("n");
    for _ in 0..2 {
        probe.wait(5_000);
        probe.up("leaf", NeighbourKind::Stub).unwrap();
        probe.wait(1_500);
        assert!(lists(&probe, "leaf"));
        probe.down("leaf");
    }
    probe.wait(1_500);
    probe.up("leaf", NeighbourKind::Stub).unwrap();
    let until = probe.now + Duration::from_secs(1);
    assert_eq!(probe.router.held_links().collect::<Vec<_>>(), [(id("leaf"), until)]);
    assert_eq!(probe.router.held_until(&id("leaf")), Some(until));
    assert!(probe.events.contains(&Event::LinkHeld { neighbour: id("leaf"), until }));
    probe.wait(999);
    assert!(!lists(&probe, "leaf"));
    probe.wait(1_000);
    assert!(lists(&probe, "leaf") && probe.router.held_links().next().is_none());
    assert!(probe.events.contains(&Event::LinkReleased(id("leaf"))));
}

#[test]
fn stubs_that_all_reconnect_after_a_loss_are_listed_at_once() {
    let mut probe = Probe::new();
    probe.sync("n");
    let names: Vec<String> = (0..500).map(|nth| format!("worker~{nth}")).collect();
    for _ in 0..2 {
        probe.wait(5_000);
        names.iter().for_each(|name| probe.up(name, NeighbourKind::Stub).unwrap());
        probe.wait(1_500);
        assert!(names.iter().all(|name| lists(&probe, name)));
        names.iter().for_each(|name| probe.down(name));
        probe.wait(1_500);
        assert!(!names.iter().any(|name| lists(&probe, name)));
    }
}

/// Whether the record of the router lists the stub.
fn lists(probe: &Probe, stub: &str) -> bool {
    let link = probe.held("me").and_then(|record| record.link(&id(stub)));
    link.is_some_and(|link| link.class == LinkClass::Stub)
}

#[test]
fn only_a_stub_may_have_a_suffix() {
    let mut probe = Probe::new();
    let refused = SessionError::SuffixedId(id("a~1"));
    assert_eq!(probe.up("a~1", NeighbourKind::Full), Err(refused));
    assert_eq!(probe.up("a~1", NeighbourKind::Stub), Ok(()));
    let of = |class| draft("n", (1, 1), vec![link("a~1", class, 1)]).seal();
    assert!(of(LinkClass::Stub).is_ok());
    assert!(of(LinkClass::Active).is_err() && of(LinkClass::Dormant).is_err());
    assert!(draft("n~1", (1, 1), vec![]).seal().is_err());
}

#[test]
fn stubs_that_alternate_by_the_thousand_delay_only_who_lists_them() {
    let mut probe = Probe::new();
    probe.sync("n");
    let active = || vec![link("n", LinkClass::Active, 1)];
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("hub", 1), ("other", 1)]));
    let with_stubs = |sequence, there: bool| {
        let stubs = (0..if there { 4_000 } else { 0 })
            .map(|nth| link(&format!("s{nth}"), LinkClass::Stub, 1));
        draft("hub", (5, sequence), active().into_iter().chain(stubs).collect()).seal().unwrap()
    };
    let routes = |probe: &Probe| probe.router.table().len();
    // The first appearance and the first loss of thousands of stubs are accepted at once.
    probe.update("n", &with_stubs(1, true));
    probe.wait(1_000);
    assert_eq!(routes(&probe), 4_002);
    probe.update("n", &with_stubs(2, false));
    probe.wait(1_000);
    assert_eq!(routes(&probe), 2);
    // Twice a second for 30 s: few of the changes are accepted.
    let accepted = probe.router.counters().updates_accepted;
    for sequence in 3..63 {
        probe.update("n", &with_stubs(sequence, sequence % 2 == 1));
        probe.wait(500);
        // The records of others are.
        let other = record("other", (5, sequence), &[("n", 1 + sequence as u32)]);
        probe.update("n", &other);
        assert_eq!(probe.held("other"), Some(&other));
    }
    let changes = probe.router.counters().updates_accepted - accepted - 60;
    assert!((4..=12).contains(&changes), "{changes} of 60");
    // What was said last is known in the end.
    probe.wait(10_000);
    assert_eq!((probe.held("hub"), routes(&probe)), (Some(&with_stubs(62, false)), 3));
}

fn assert_converged_stub(sim: &crate::sim::Sim, stub: &str, cost: u64) {
    let route = sim.router("n00").table().route(&id(stub)).cloned().unwrap();
    assert_eq!((route.cost, route.hops, route.stub), (cost, 2, true));
}

#[test]
fn stubs_that_come_and_go_change_routes_over_the_paths_there_are() {
    in_both_modes(|| {
        let mut sim = cold(3, &topologies::ring_with_chord());
        sim.settle();
        let runs = |sim: &crate::sim::Sim| -> Vec<u64> {
            sim.nodes.values().map(|node| node.router.counters().path_runs).collect()
        };
        let before = runs(&sim);
        let owner = id("n01");
        sim.attach(&owner, id("leaf"), Cost::DEFAULT);
        sim.settle();
        let table = sim.router("n00").table();
        let (leaf, owner_route) = (table.route(&id("leaf")).unwrap(), table.route(&owner).unwrap());
        assert_eq!((leaf.stub, &leaf.next_hops), (true, &owner_route.next_hops));
        sim.detach(&owner, &id("leaf"));
        sim.settle();
        assert!(sim.nodes.values().all(|node| node.router.table().route(&id("leaf")).is_none()));
        assert_eq!(runs(&sim), before, "paths were computed again");
        assert_converged(&sim);
    });
}

#[test]
fn r12_b11_a_thousand_stubs_come_and_go_and_leave_nothing() {
    in_both_modes(|| {
        let mut sim = cold(2, &topologies::ring_with_chord());
        sim.settle();
        let before: Vec<usize> =
            sim.nodes.values().map(|node| node.router.database().count()).collect();
        for n in 0..1_000 {
            let stub = id(&format!("one-shot-{n}"));
            sim.attach(&id("n02"), stub.clone(), Cost::DEFAULT);
            sim.run_for(Duration::from_millis(100));
            sim.detach(&id("n02"), &stub);
            sim.run_for(Duration::from_millis(20));
        }
        sim.settle();
        assert_converged(&sim);
        let after: Vec<usize> =
            sim.nodes.values().map(|node| node.router.database().count()).collect();
        assert_eq!(before, after);
        for node in sim.nodes.values() {
            assert_eq!(node.router.table().len(), 5);
            assert!(node.router.database().all(|record| record.links.len() <= 3));
            assert!(node.router.poll_timeout().is_none_or(|deadline| {
                matches!(deadline.reason, DeadlineReason::Expire | DeadlineReason::Audit)
            }));
        }
    });
}

#[test]
fn a_node_without_routers_around_it_serves_its_stubs() {
    let mut probe = Probe::new();
    probe.up("leaf", NeighbourKind::Stub).unwrap();
    assert_eq!(probe.cost("leaf"), Some(1));
    assert_eq!(probe.router.path(&id("leaf")), Some(names(&["me", "leaf"])));
    assert_eq!(probe.held("me").unwrap().links, [link("leaf", LinkClass::Stub, 1)]);
    assert!(probe.sent.is_empty(), "a stub is sent nothing");
}

#[test]
fn a_claim_to_a_stub_never_takes_a_node_with_a_record_of_its_own() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("liar");
    probe.update("n", &record("n", (5, 1), &[("me", 9)]));
    let links = vec![link("me", LinkClass::Active, 1), link("n", LinkClass::Stub, 1)];
    probe.update("liar", &draft("liar", (5, 1), links).seal().unwrap());
    let route = probe.router.table().route(&id("n")).cloned().unwrap();
    assert!(!route.stub);
    assert_eq!(route.next_hops.to_vec(), names(&["n"]));
}

#[test]
fn a_stub_with_two_neighbours_takes_the_cheaper_one_and_survives_its_loss() {
    in_both_modes(|| {
        let mut sim = cold(3, &topologies::line(4));
        sim.attach(&id("n01"), id("leaf"), Cost::DEFAULT);
        sim.attach(&id("n03"), id("leaf"), Cost::DEFAULT);
        sim.settle();
        assert_converged(&sim);
        assert_eq!(sim.router("n00").path(&id("leaf")), Some(names(&["n00", "n01", "leaf"])));
        sim.detach(&id("n01"), &id("leaf"));
        sim.settle();
        assert_converged(&sim);
        assert_eq!(sim.router("n00").table().route(&id("leaf")).unwrap().cost, 4);
    });
}
