//! The defects of the system that this one succeeds, each of which must not return.

use std::time::Duration;

use receptor_quic::router::{
    DecodeError, Explanation, LinkClass, Message, NeighbourKind, PeerError,
};

use crate::cold_start::cold;
use crate::probe::{Probe, draft, entry, garbage, link, names, record};
use crate::reference::assert_converged;
use crate::sim::{Seen, id, in_both_modes};
use crate::topologies;

#[test]
fn r1_r2_a_stale_update_changes_nothing_and_is_answered_with_the_newer() {
    let mut probe = Probe::new();
    probe.sync("n");
    let (old, new) = (record("n", (5, 1), &[("me", 1)]), record("n", (5, 2), &[("me", 2)]));
    probe.update("n", &new);
    let table = probe.router.table();
    probe.sent.clear();
    probe.update("n", &old);
    assert_eq!(probe.held("n"), Some(&new));
    assert_eq!(probe.router.table(), table);
    assert_eq!(probe.sent_to("n"), [Message::Have(vec![entry(&new)])]);
    // The link still listens.
    probe.update("n", &record("n", (5, 3), &[("me", 3)]));
    assert_eq!(probe.cost("n"), Some(3));
}

#[test]
fn r3_a_part_that_is_not_reachable_does_not_break_paths() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("x", (5, 1), &[("y", 1)]));
    probe.update("n", &record("y", (5, 1), &[("x", 1), ("n", 1)]));
    assert!(probe.router.table().is_empty());
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("y", 1)]));
    assert_eq!((probe.cost("n"), probe.cost("y"), probe.cost("x")), (Some(1), Some(2), Some(3)));
    probe.update("n", &record("n", (5, 2), &[("me", 1)]));
    assert_eq!((probe.cost("n"), probe.cost("y"), probe.cost("x")), (Some(1), None, None));
}

#[test]
fn r4_a_new_epoch_with_a_lower_sequence_is_accepted() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (5, 900), &[]));
    let restarted = record("n", (6, 1), &[("me", 1)]);
    probe.update("n", &restarted);
    assert_eq!(probe.held("n"), Some(&restarted));
    probe.update("n", &record("n", (5, 901), &[]));
    assert_eq!(probe.held("n"), Some(&restarted));
}

#[test]
fn r5_r6_links_that_change_together_are_all_told() {
    let mut probe = Probe::new();
    for name in ["a", "b", "c", "d"] {
        probe.sync(name);
    }
    probe.sent.clear();
    for name in ["a", "b", "c"] {
        probe.router.handle_session_down(&id(name), probe.now);
    }
    probe.wait(10);
    let own = probe.held("me").unwrap().clone();
    assert_eq!(own.links.iter().map(|link| link.peer.clone()).collect::<Vec<_>>(), names(&["d"]));
    assert_eq!(
        probe.sent_to("d"),
        [Message::Update(own.advertisement().clone())],
        "one update for all three"
    );
}

#[test]
fn r7_churn_does_not_silence_a_node() {
    let mut probe = Probe::new();
    probe.sync("n");
    let before = probe.router.counters().originations;
    for round in 0..100 {
        probe.router.set_capabilities(vec![round].into(), probe.now);
        probe.wait(50);
    }
    let spoken = probe.router.counters().originations - before;
    assert!((24..=26).contains(&spoken), "a burst of 20, then one a second: {spoken}");
    probe.wait(1_000);
    assert_eq!(&*probe.held("me").unwrap().capabilities, [99]);
}

#[test]
fn r9_a_heal_after_a_long_time_learns_far_nodes() {
    in_both_modes(|| {
        let mut sim = cold(1, &topologies::line(6));
        let far = |node: &receptor_quic::NodeId| *node >= id("n03");
        let healing = sim.partition(far, Seen::Now);
        sim.run_for(Duration::from_secs(1_200));
        assert_eq!(sim.router("n00").database().count(), 3, "the far side was deleted");
        sim.boot("n06", 0);
        sim.connect("n05", "n06");
        sim.run_for(Duration::from_secs(5));
        sim.heal(healing);
        sim.settle();
        assert_converged(&sim);
        assert_eq!(sim.router("n00").table().len(), 6);
    });
}

#[test]
fn r15_r16_a_node_advertises_only_links_of_its_own() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("ghost", (5, 1), &[("me", 1)]));
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("ghost", 1)]));
    probe.wait(2_000);
    let own = probe.held("me").unwrap();
    assert_eq!(own.links, [link("n", LinkClass::Active, 1)]);
}

#[test]
fn r17_a_one_way_claim_attracts_no_traffic() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("liar");
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("far", 5)]));
    probe.update("n", &record("far", (5, 1), &[("n", 5)]));
    probe.update("liar", &record("liar", (5, 1), &[("me", 1), ("far", 1), ("nobody", 1)]));
    let table = probe.router.table();
    assert_eq!(table.route(&id("far")).unwrap().next_hops.to_vec(), names(&["n"]));
    assert_eq!(
        probe.router.explain(&id("nobody")),
        Explanation::OneWay { claimed_by: names(&["liar"]) }
    );
}

#[test]
fn r18_of_two_costs_the_larger_counts() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 100), ("x", 7)]));
    probe.update("n", &record("x", (5, 1), &[("n", 3)]));
    assert_eq!((probe.cost("n"), probe.cost("x")), (Some(100), Some(107)));
}

#[test]
fn r19_costs_that_are_no_costs_are_refused_at_the_edge() {
    let mut probe = Probe::new();
    probe.sync("n");
    // ["x", 5, 1, 1, 0, [["n", 0, COST]], b""]
    let records: [&[u8]; 6] = [
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\x00\xc4\x00",
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\xff\xc4\x00",
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\xce\x00\x01\x00\x00\xc4\x00",
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\xc0\xc4\x00",
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\xa11\xc4\x00",
        b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\xca\x3f\x80\x00\x00\xc4\x00",
    ];
    for bytes in records {
        let refused = probe.tell("n", garbage(bytes));
        assert!(
            matches!(refused, Err(PeerError::BadRecord(DecodeError::Malformed(_)))),
            "{refused:?}"
        );
    }
    assert!(probe.held("x").is_none());
    probe.tell("n", garbage(b"\x97\xa1x\x05\x01\x01\x00\x91\x93\xa1n\x00\x01\xc4\x00")).unwrap();
    assert!(probe.held("x").is_some());
}

#[test]
fn r23_floods_go_to_live_sessions_only() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("gone");
    probe.router.handle_session_down(&id("gone"), probe.now);
    probe.wait(50);
    probe.sent.clear();
    probe.update("n", &record("n", (5, 1), &[("me", 1)]));
    probe.wait(5_000);
    assert!(probe.sent_to("gone").is_empty());
}

#[test]
fn r32_a_dormant_link_is_inventory_and_no_way_for_traffic() {
    let mut probe = Probe::tuned(|config| config.dormant = names(&["n", "known"]));
    probe.sync("n");
    let far = link("far", LinkClass::Dormant, 1);
    probe.update(
        "n",
        &draft("n", (5, 1), vec![link("me", LinkClass::Active, 1), far]).seal().unwrap(),
    );
    probe
        .update("n", &draft("far", (5, 1), vec![link("n", LinkClass::Dormant, 1)]).seal().unwrap());
    assert_eq!(
        probe.held("me").unwrap().link(&id("known")),
        Some(&link("known", LinkClass::Dormant, 1))
    );
    assert_eq!(probe.held("me").unwrap().link(&id("n")).unwrap().class, LinkClass::Active);
    assert_eq!((probe.cost("known"), probe.cost("far")), (None, None));
    assert_eq!(
        probe.router.explain(&id("known")),
        Explanation::Dormant { known_by: names(&["me"]) }
    );
    probe.router.handle_session_down(&id("n"), probe.now);
    probe.wait(20);
    assert_eq!(probe.held("me").unwrap().link(&id("n")).unwrap().class, LinkClass::Dormant);
}

#[test]
fn r36_frames_of_unknown_types_are_skipped() {
    for frame in
        [b"\x91\x3f".as_slice(), b"\x93\x2f\xc0\x01", b"\x92\x3e\x81\xa1a\x01", b"\x91\x00"]
    {
        assert_eq!(Message::decode(frame), Ok(None));
    }
}

#[test]
fn a_neighbour_that_breaks_the_protocol_costs_its_session_and_nothing_else() {
    let mut probe = Probe::new();
    probe.sync("good");
    assert_eq!(probe.tell("nobody", Message::SyncEnd), Err(PeerError::NoSession(id("nobody"))));
    probe.up("bad", NeighbourKind::Full).unwrap();
    assert_eq!(probe.tell("bad", Message::SyncEnd), Err(PeerError::DigestMissing));
    probe.sync("bad");
    assert_eq!(probe.tell("bad", Message::SyncEnd), Err(PeerError::SyncEndedTwice));
    assert!(matches!(probe.tell("bad", garbage(b"\xc1")), Err(PeerError::BadRecord(_))));
    assert!(matches!(probe.tell("bad", garbage(b"")), Err(PeerError::BadRecord(_))));
    probe.up("stub", NeighbourKind::Stub).unwrap();
    assert_eq!(probe.tell("stub", Message::SyncEnd), Err(PeerError::StubSpoke));
    probe.update("good", &record("good", (5, 1), &[("me", 1)]));
    assert_eq!(probe.cost("good"), Some(1));
}
