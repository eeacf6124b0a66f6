//! Flap damping: what counts as a flap, when a link is held back, and when not.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{
    DeadlineReason, Digest, Draft, Event, Explanation, Limits, LinkClass, Message, NeighbourKind,
    NeighbourState, Record, SessionUp,
};

use crate::probe::{Probe, draft, link, record};
use crate::sim::id;

/// `me` is linked to `m`, and `m` to `n`: the other path to `n`.
fn with_another_path() -> Probe {
    let mut probe = Probe::new();
    probe.sync("m");
    probe.update("m", &record("m", (5, 1), &[("me", 1), ("n", 1)]));
    probe.update("m", &record("n", (5, 1), &[("m", 1), ("me", 1)]));
    probe
}

/// A session with a process of `n`, synced.
fn sync_process(probe: &mut Probe, instance: u64) {
    let up =
        SessionUp { neighbour: id("n"), instance, cost: Cost::DEFAULT, kind: NeighbourKind::Full };
    probe.router.handle_session_up(up, probe.now).unwrap();
    end_sync(probe);
}

fn end_sync(probe: &mut Probe) {
    probe.tell("n", Message::Digest { digest: Digest(1), count: 0 }).unwrap();
    probe
        .tell("n", Message::Summary { after: None, entries: vec![], last: true, buckets: None })
        .unwrap();
    probe.tell("n", Message::SyncEnd).unwrap();
}

fn lose(probe: &mut Probe) {
    probe.router.handle_session_down(&id("n"), probe.now);
    probe.wait(20);
}

fn state(probe: &Probe) -> NeighbourState {
    probe.router.neighbour_state(&id("n")).unwrap()
}

fn lists_n(probe: &Probe) -> bool {
    probe.held("me").unwrap().link(&id("n")).is_some()
}

fn left(version: (u64, u64)) -> Record {
    Draft { leaving: true, ..draft("n", version, vec![]) }.seal().unwrap()
}

#[test]
fn a_link_lost_twice_is_held_back_for_a_second_and_that_is_reported() {
    let mut probe = with_another_path();
    for _ in 0..2 {
        sync_process(&mut probe, 1);
        lose(&mut probe);
    }
    let until = probe.now + Duration::from_secs(1);
    sync_process(&mut probe, 1);
    assert_eq!(state(&probe), NeighbourState::Held(until));
    assert_eq!(probe.router.held_until(&id("n")), Some(until));
    assert!(probe.events.contains(&Event::LinkHeld { neighbour: id("n"), until }));
    assert!(matches!(probe.router.explain(&id("n")), Explanation::Reachable { .. }));
    assert_eq!(probe.router.counters().holds, 1);
    probe.wait(990);
    assert!(!lists_n(&probe));
    assert!(!probe.events.contains(&Event::LinkReleased(id("n"))));
    probe.wait(30);
    assert_eq!(state(&probe), NeighbourState::Up);
    assert_eq!(probe.router.held_until(&id("n")), None);
    assert!(lists_n(&probe) && probe.events.contains(&Event::LinkReleased(id("n"))));
}

#[test]
fn the_deadline_of_a_hold_is_named() {
    let mut probe = with_another_path();
    for _ in 0..3 {
        sync_process(&mut probe, 1);
        lose(&mut probe);
    }
    sync_process(&mut probe, 1);
    let mut reasons = Vec::new();
    let end = probe.now + Duration::from_secs(3);
    while let Some(deadline) = probe.router.poll_timeout().filter(|deadline| deadline.at <= end) {
        reasons.push(deadline.reason);
        probe.now = deadline.at;
        probe.wait(0);
    }
    assert!(reasons.contains(&DeadlineReason::LinkHold), "{reasons:?}");
}

#[test]
fn the_only_path_to_a_neighbour_is_never_held_back() {
    let mut probe = Probe::new();
    for _ in 0..8 {
        probe.sync("n");
        assert!(lists_n(&probe));
        lose(&mut probe);
        probe.wait(2_000);
    }
    assert_eq!(probe.router.counters().holds, 0);
}

#[test]
fn a_hold_ends_when_the_other_path_goes() {
    let mut probe = with_another_path();
    for _ in 0..7 {
        sync_process(&mut probe, 1);
        lose(&mut probe);
    }
    sync_process(&mut probe, 1);
    assert!(matches!(state(&probe), NeighbourState::Held(_)));
    probe.wait(3_000);
    probe.update("m", &record("m", (5, 2), &[("me", 1)]));
    probe.wait(50);
    assert_eq!(state(&probe), NeighbourState::Up);
    assert!(lists_n(&probe) && probe.events.contains(&Event::LinkReleased(id("n"))));
}

#[test]
fn a_path_through_a_node_without_transit_is_no_other_path() {
    let mut probe = with_another_path();
    let links = ["me", "n"].map(|peer| link(peer, LinkClass::Active, 1)).to_vec();
    let without_transit = Draft { transit: false, ..draft("m", (5, 2), links) };
    probe.update("m", &without_transit.seal().unwrap());
    for _ in 0..4 {
        sync_process(&mut probe, 1);
        lose(&mut probe);
    }
    sync_process(&mut probe, 1);
    assert_eq!(state(&probe), NeighbourState::Up);
}

#[test]
fn announced_leaves_do_not_count_as_flaps() {
    let mut probe = with_another_path();
    for turn in 0..8 {
        sync_process(&mut probe, 1);
        assert_eq!(state(&probe), NeighbourState::Up, "{turn}");
        if turn % 2 == 0 {
            probe.router.handle_leaving(&id("n"), probe.now);
            assert_eq!(state(&probe), NeighbourState::Leaving);
        } else {
            probe.update("n", &left((10 + 2 * turn, 1)));
            assert_eq!(state(&probe), NeighbourState::Leaving);
        }
        lose(&mut probe);
        probe.wait(20_000);
        probe.update("m", &record("n", (11 + 2 * turn, 1), &[("m", 1), ("me", 1)]));
    }
}

#[test]
fn restarts_do_not_count_as_flaps_seen_or_not() {
    let mut probe = with_another_path();
    for instance in 1..20 {
        // Every other end is seen only because the next process is there.
        sync_process(&mut probe, instance);
        assert_eq!(state(&probe), NeighbourState::Up, "{instance}");
        probe.wait(20);
        if instance % 2 == 0 {
            lose(&mut probe);
        }
    }
    assert_eq!(probe.router.sizes().flaps, 0);
}

#[test]
fn a_restart_clears_what_the_process_before_had_flapped() {
    let mut probe = with_another_path();
    for _ in 0..6 {
        sync_process(&mut probe, 1);
        lose(&mut probe);
    }
    sync_process(&mut probe, 2);
    assert_eq!((state(&probe), probe.router.sizes().flaps), (NeighbourState::Up, 0));
}

#[test]
fn the_memory_of_flaps_is_bounded_and_drops_the_oldest() {
    let limit = 8;
    let mut probe = Probe::tuned(|config| {
        config.limits = Limits { active_links: limit, ..Limits::default() };
    });
    probe.sync("m");
    for turn in 0..3 {
        for n in 0..20 {
            let name = if turn == 0 { format!("z{n:02}") } else { format!("y{n:02}") };
            probe.sync(&name);
            probe.router.handle_session_down(&id(&name), probe.now);
            assert!(probe.router.sizes().flaps <= limit);
        }
    }
    // The neighbour lost last is remembered: it is held back although its name sorts first.
    probe.update("m", &record("m", (5, 1), &[("me", 1), ("y19", 1)]));
    probe.update("m", &record("y19", (5, 1), &[("m", 1), ("me", 1)]));
    probe.sync("y19");
    probe.router.handle_session_down(&id("y19"), probe.now);
    probe.sync("y19");
    let held = probe.router.neighbours().find(|neighbour| neighbour.id == id("y19")).unwrap();
    assert!(matches!(held.state, NeighbourState::Held(_)), "{held:?}");
    // And what is remembered is forgotten in time.
    probe.wait(400_000);
    assert_eq!(probe.router.sizes().flaps, 0);
}
