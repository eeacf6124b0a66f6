//! Tables, paths, limits, and what a router says when it is asked.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{
    DeadlineReason, Digest, Event, Explanation, Limit, Message, NeighbourKind, NeighbourState,
    SessionError,
};

use crate::cold_start::cold;
use crate::probe::{Probe, entry, names, record};
use crate::reference::assert_converged;
use crate::sim::{Seen, id, in_both_modes};
use crate::topologies;

#[test]
fn a_node_that_refuses_transit_is_an_end_and_no_way() {
    in_both_modes(|| {
        let mut sim = cold(1, &topologies::line(3));
        let now = sim.now;
        sim.nodes.get_mut(&id("n01")).unwrap().transit = false;
        sim.command(&id("n01"), |router| router.set_transit(false, now));
        sim.settle();
        assert_converged(&sim);
        let router = sim.router("n00");
        assert!(
            router.table().route(&id("n01")).is_some()
                && router.table().route(&id("n02")).is_none()
        );
        let explained = router.explain(&id("n02"));
        assert!(
            matches!(explained, Explanation::NoTransit { neighbours, .. } if neighbours == names(&["n01"]))
        );
        // Not on the way, but not forgotten either: databases agree, and records stay.
        sim.run_for(Duration::from_secs(2_000));
        assert_eq!(sim.router("n00").database().count(), 3);
    });
}

#[test]
fn a_changed_cost_moves_the_traffic() {
    in_both_modes(|| {
        let mut sim = cold(2, &topologies::ring(4));
        let route =
            |sim: &crate::sim::Sim| sim.router("n00").table().route(&id("n02")).cloned().unwrap();
        assert_eq!(route(&sim).next_hops.to_vec(), names(&["n01", "n03"]));
        let now = sim.now;
        sim.command(&id("n00"), |router| {
            router.set_cost(&id("n01"), Cost::try_from(2).unwrap(), now)
        });
        sim.run_for(Duration::from_millis(200));
        assert_eq!(route(&sim).next_hops.to_vec(), names(&["n03"]));
        assert_eq!(
            sim.router("n01").table().route(&id("n00")).unwrap().cost,
            2,
            "the other end counts the larger cost too"
        );
    });
}

#[test]
fn a_lost_link_is_not_used_from_that_moment() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 1)]));
    probe.events.clear();
    probe.router.handle_session_down(&id("n"), probe.now);
    probe.wait(0);
    assert!(probe.router.table().is_empty());
    assert!(probe.events.is_empty() || probe.events.contains(&Event::NodeUnreachable(id("n"))));
}

#[test]
fn a_link_is_used_only_after_the_databases_agree() {
    let mut probe = Probe::new();
    probe.up("n", NeighbourKind::Full).unwrap();
    assert!(matches!(&probe.sent_to("n")[..], [Message::Digest { digest: Digest(0), count: 0 }]));
    probe.tell("n", Message::Digest { digest: Digest(5), count: 2 }).unwrap();
    assert!(
        matches!(&probe.sent_to("n")[..], [Message::Summary { entries, last: true, .. }] if entries.is_empty())
    );
    let theirs = record("n", (5, 1), &[("me", 1)]);
    let summary =
        Message::Summary { after: None, entries: vec![entry(&theirs)], last: true, buckets: None };
    probe.tell("n", summary).unwrap();
    assert_eq!(probe.sent_to("n"), [Message::SyncEnd]);
    probe.update("n", &theirs);
    assert!(probe.held("me").is_none() && probe.router.table().is_empty());
    assert_eq!(probe.router.neighbours().next().unwrap().state, NeighbourState::Syncing);
    probe.tell("n", Message::SyncEnd).unwrap();
    probe.wait(1);
    assert!(probe.events.contains(&Event::Synced(id("n"))));
    assert_eq!(probe.cost("n"), Some(1));
    let own = probe.held("me").unwrap().advertisement().clone();
    assert_eq!(probe.sent_to("n"), [Message::Update(own)]);
}

#[test]
fn an_announced_record_is_asked_for_when_it_does_not_come() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("m");
    let far = record("far", (5, 1), &[]);
    probe.tell("n", Message::Have(vec![entry(&far)])).unwrap();
    assert_eq!(probe.router.poll_timeout().unwrap().reason, DeadlineReason::Pull);
    probe.wait(99);
    assert!(probe.sent_to("n").is_empty());
    probe.wait(1);
    assert_eq!(probe.sent_to("n"), [Message::Want(names(&["far"]))]);
    probe.tell("m", Message::Have(vec![entry(&far)])).unwrap();
    probe.tell("n", Message::Nack(names(&["far"]))).unwrap();
    probe.wait(0);
    assert_eq!(probe.sent_to("m"), [Message::Want(names(&["far"]))]);
    probe.update("m", &far);
    probe.wait(30);
    assert_eq!(
        probe.sent_to("n"),
        [Message::Offer(vec![entry(&far)])],
        "no tree hangs on what is not reached"
    );
    assert!(probe.sent_to("m").is_empty(), "never back to where it came from");
    probe.tell("n", Message::Want(names(&["far", "unknown"]))).unwrap();
    let answers = probe.sent_to("n");
    assert!(answers.contains(&Message::Nack(names(&["unknown"]))), "{answers:?}");
    assert!(answers.contains(&Message::Update(far.advertisement().clone())));
}

#[test]
fn a_slow_neighbour_costs_its_dirty_set_and_skips_what_was_superseded() {
    let mut probe = Probe::tuned(|config| config.limits.window_messages = 1);
    probe.sync("n");
    probe.up("slow", NeighbourKind::Full).unwrap();
    // The window is closed from here on: only the router is asked, and nothing is taken.
    let now = probe.now;
    for sequence in 1..=15 {
        let update =
            Message::Update(record("n", (5, sequence), &[("me", 1)]).advertisement().clone());
        probe.router.handle_message(&id("n"), update, now).unwrap();
    }
    let slow = probe.router.neighbours().find(|view| view.id == id("slow")).unwrap();
    assert_eq!(slow.backlog, 1);
    while let Some(transmit) = probe.router.poll_transmit() {
        probe.router.handle_writable(&transmit.to.clone(), now);
        let newest = record("n", (5, 15), &[("me", 1)]);
        assert_eq!(transmit.message, Message::Update(newest.advertisement().clone()));
    }
}

#[test]
fn a_sync_that_makes_no_progress_is_reported_once() {
    let mut probe = Probe::new();
    probe.up("n", NeighbourKind::Full).unwrap();
    probe.wait(29_000);
    assert_eq!(probe.router.poll_timeout().unwrap().reason, DeadlineReason::SyncStall);
    probe.wait(60_000);
    assert_eq!(probe.events, [Event::SyncStalled(id("n"))]);
}

#[test]
fn sessions_that_cannot_be_are_refused() {
    let mut probe = Probe::tuned(|config| {
        config.limits.active_links = 1;
        config.limits.stub_links = 0;
    });
    assert_eq!(probe.up("me", NeighbourKind::Full), Err(SessionError::SelfLink));
    probe.up("n", NeighbourKind::Full).unwrap();
    assert_eq!(probe.up("m", NeighbourKind::Full), Err(SessionError::TooManyLinks { max: 1 }));
    assert_eq!(probe.up("m", NeighbourKind::Stub), Err(SessionError::TooManyLinks { max: 0 }));
    probe.up("n", NeighbourKind::Full).unwrap();
    probe.router.leave(probe.now);
    assert_eq!(probe.up("n", NeighbourKind::Full), Err(SessionError::Leaving));
}

#[test]
fn a_full_database_gives_up_what_is_unreachable_first() {
    let mut probe = Probe::tuned(|config| config.limits.origins = 4);
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("x", 1)]));
    probe.update("n", &record("x", (5, 1), &[("n", 1)]));
    for corpse in ["c1", "c2", "c3"] {
        probe.update("n", &record(corpse, (5, 1), &[]));
        assert!(probe.held(corpse).is_some());
    }
    assert_eq!(probe.router.database().count(), 4);
    assert!(probe.held("x").is_some() && probe.held("c2").is_none());
    assert!(probe.events.contains(&Event::LimitHit(Limit::Origins)));
    assert_eq!(probe.router.counters().records_evicted, 2);
}

#[test]
fn updates_that_come_too_fast_are_delayed_and_only_the_newest_counts() {
    let mut probe = Probe::new();
    probe.sync("n");
    let newest = |sequence| record("n", (5, sequence), &[("me", 1)]);
    for sequence in 1..=40 {
        probe.tell("n", Message::Update(newest(sequence).advertisement().clone())).unwrap();
    }
    assert_eq!(probe.held("n"), Some(&newest(20)));
    assert!(probe.events.contains(&Event::LimitHit(Limit::AcceptRate)));
    probe.wait(500);
    assert_eq!(probe.held("n"), Some(&newest(40)));
    assert_eq!(probe.router.counters().updates_delayed, 20);
}

#[test]
fn an_epoch_from_the_far_future_is_ignored() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (u64::MAX, 1), &[("me", 1)]));
    assert!(probe.held("n").is_none());
    let own = record("me", (u64::MAX, 1), &[]);
    probe.update("n", &own);
    assert_eq!(probe.router.version().epoch, 1_000);
    assert!(probe.events.contains(&Event::LimitHit(Limit::EpochAhead)));
}

#[test]
fn capabilities_travel_with_the_record_and_have_a_bound() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.router.set_capabilities(vec![7; 4096].into(), probe.now);
    probe.wait(20);
    assert_eq!(probe.held("me").unwrap().capabilities.len(), 4096);
    probe.router.set_capabilities(vec![7; 4097].into(), probe.now);
    probe.wait(20);
    assert!(probe.held("me").unwrap().capabilities.is_empty());
    assert!(probe.events.contains(&Event::LimitHit(Limit::Capabilities)));
}

#[test]
fn a_record_that_grows_too_large_is_cut_and_keeps_its_active_links() {
    let mut probe = Probe::new();
    probe.sync("zz-the-last-by-name");
    for n in 0..2_000 {
        probe.up(&format!("stub-with-a-rather-long-name-{n:08}"), NeighbourKind::Stub).unwrap();
    }
    probe.wait(20_000);
    let own = probe.held("me").unwrap();
    assert!(own.advertisement().bytes().len() <= 64 * 1024);
    assert!(own.links.len() > 1_000 && own.link(&id("zz-the-last-by-name")).is_some());
    assert!(probe.events.contains(&Event::LimitHit(Limit::Record)));
}

#[test]
fn another_path_to_the_same_process_leaves_the_link_in_use() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 1)]));
    let before = probe.router.version();
    probe.up("n", NeighbourKind::Full).unwrap();
    assert_eq!(probe.cost("n"), Some(1));
    probe.sync("n");
    assert_eq!((probe.cost("n"), probe.router.version()), (Some(1), before));
}

#[test]
fn explanations_tell_the_cases_apart() {
    in_both_modes(|| {
        let mut sim = cold(4, &topologies::line(4));
        let explain = |sim: &crate::sim::Sim, name: &str| sim.router("n00").explain(&id(name));
        assert_eq!(explain(&sim, "n00"), Explanation::Myself);
        assert!(
            matches!(explain(&sim, "n03"), Explanation::Reachable { path, .. } if path == names(&["n00", "n01", "n02", "n03"]))
        );
        assert_eq!(explain(&sim, "nobody"), Explanation::NeverHeardOf);
        sim.cut(&id("n02"), &id("n03"), Seen::Now);
        sim.run_for(Duration::from_secs(1));
        let explained = explain(&sim, "n03");
        assert!(
            matches!(explained, Explanation::KnownUnreachable { left: false, .. }),
            "{explained:?}"
        );
    });
}
