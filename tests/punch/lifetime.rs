//! Paths after they are found: watched, left, found again, let go.

use std::time::Duration;

use receptor_quic::punch::{Cause, Event, Outcome, Why};

use crate::nat::{Behaviour, Filtering, Mapping};
use crate::world::{INTERNET, World, is_probe};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const HOME: Behaviour = Behaviour {
    mapping: Mapping::Independent,
    filtering: Filtering::Port,
    hairpin: false,
    remembers: false,
};

/// Two homes that talk directly. Each has its network and its end.
fn homes(seed: u64, loss: f64) -> (World, [usize; 2], [usize; 2]) {
    let mut world = World::new(seed);
    world.loss = loss;
    let realms = [0, 1].map(|n| world.behind(INTERNET, &format!("192.0.2.{}", n + 1), HOME));
    let ends = [0, 1].map(|n| {
        let end = world.end(["alice", "bob"][n]);
        world.interface(end, realms[n], &format!("10.0.{n}.2"));
        world.observe(end);
        end
    });
    world.connect(ends[0], ends[1]);
    world.talk(ends[0], ends[1]);
    world.talk(ends[1], ends[0]);
    assert!(world.run_for(SECONDS(3), |world| world.both_direct(ends[0], ends[1])), "seed {seed}");
    world.run(SECONDS(10));
    (world, realms, ends)
}

#[test]
fn a_path_lives_through_ten_percent_of_loss() {
    for seed in 0..20 {
        let (mut world, _, [a, b]) = homes(seed, 0.1);
        world.run(SECONDS(300));
        assert!(world.both_direct(a, b));
        let deaths: u64 = world.ends.iter().map(|end| end.punch.counters().paths_died).sum();
        assert_eq!(deaths, 0, "seed {seed}");
    }
}

#[test]
fn a_path_that_is_cut_is_left_within_five_seconds_and_found_again() {
    for seed in 0..50 {
        let (mut world, _, [a, b]) = homes(seed, 0.1);
        world.cut = true;
        let left = |world: &World| world.path(a, b).is_none() && world.path(b, a).is_none();
        assert!(world.run_for(SECONDS(5), left), "seed {seed}");
        let told = |(_, event): &(_, Event)| match event {
            Event::Path { path, .. } => Some(path.is_none()),
            _ => None,
        };
        assert_eq!(world.ends[a].events.iter().rev().find_map(told), Some(true), "seed {seed}");
        let failed = |world: &World| world.explain(a, b).why == Why::Failed(Outcome::NoAnswer);
        assert!(world.run_for(SECONDS(20), failed), "seed {seed}");
        world.cut = false;
        assert!(world.run_for(SECONDS(60), |world| world.both_direct(a, b)), "seed {seed}");
    }
}

#[test]
fn an_idle_path_that_is_cut_is_left_soon_after_packets_flow() {
    for seed in 0..50 {
        let (mut world, _, [a, b]) = homes(seed, 0.0);
        world.hush();
        world.run(SECONDS(20));
        world.cut = true;
        world.talk(a, b);
        assert!(world.run_for(SECONDS(5), |world| world.path(a, b).is_none()), "seed {seed}");
    }
}

#[test]
fn an_idle_pair_keeps_its_path_at_a_probe_in_five_seconds_and_lets_it_go_at_last() {
    let (mut world, _, [a, b]) = homes(1, 0.0);
    world.hush();
    world.run(SECONDS(10));
    world.sent.clear();
    world.run(SECONDS(100));
    assert!(world.both_direct(a, b));
    let probes = world.sent.iter().filter(|sent| is_probe(&sent.probe)).count();
    assert!((38..=42).contains(&probes), "{probes}");
    world.run(SECONDS(600));
    assert!(!world.both_direct(a, b));
    world.sent.clear();
    world.run(SECONDS(100));
    assert!(world.sent.is_empty());
    assert_eq!(world.explain(a, b).why, Why::Idle);
    world.talk(a, b);
    assert!(world.run_for(SECONDS(3), |world| world.both_direct(a, b)));
}

#[test]
fn a_nat_that_forgets_all_or_takes_another_address_costs_seconds() {
    for seed in 0..50 {
        let (mut world, realms, [a, b]) = homes(seed, 0.1);
        world.nat(realms[0]).renumber("192.0.2.77".parse().unwrap());
        world.observe(a);
        let at = world.now;
        let again = |world: &World| {
            world.both_direct(a, b)
                && world.path(b, a).is_some_and(|path| path.to.ip().to_string() == "192.0.2.77")
        };
        assert!(world.run_for(SECONDS(7), again), "seed {seed}: {:?}", world.now - at);
    }
}

#[test]
fn a_node_that_moves_is_direct_again_within_three_seconds() {
    for seed in 0..50 {
        let (mut world, _, [a, b]) = homes(seed, 0.1);
        let mobile = world.behind(INTERNET, "192.0.2.99", HOME);
        world.move_to(a, mobile, "10.9.9.9");
        let now = world.now;
        world.ends[a].punch.restart(now);
        let moved = |world: &World| {
            world.both_direct(a, b)
                && world.path(b, a).is_some_and(|path| path.to.ip().to_string() == "192.0.2.99")
                && world
                    .path(a, b)
                    .is_some_and(|path| path.from.is_none_or(|ip| ip.to_string() == "10.9.9.9"))
        };
        assert!(
            world.run_for(SECONDS(3), moved),
            "seed {seed}: {:#?} {:#?}",
            world.explain(a, b),
            world.explain(b, a)
        );
        world.run(SECONDS(1));
        let restarts = world
            .explain(a, b)
            .attempts
            .iter()
            .filter(|attempt| attempt.cause == Cause::Restart)
            .count();
        assert!(restarts >= 1);
    }
}

/// Either end, and whether it is told that its network has changed or finds only that its addresses
/// have.
const MOVES: [(usize, bool); 4] = [(0, false), (0, true), (1, false), (1, true)];

/// An end gets another address behind the same NAT, which makes another mapping for it.
fn readdress(world: &mut World, realm: usize, end: usize, told: bool) {
    world.move_to(end, realm, "10.0.9.9");
    if told {
        let now = world.now;
        world.ends[end].punch.restart(now);
    }
}

#[test]
fn a_node_whose_address_behind_the_nat_changes_is_sent_to_by_relays_until_it_is_direct_again() {
    for (seed, (moves, told)) in (0..80).zip(MOVES.into_iter().cycle()) {
        let (mut world, realms, ends) = homes(seed, 0.0);
        let (mobile, peer) = (ends[moves], ends[1 - moves]);
        let old = world.path(peer, mobile).unwrap().to;
        readdress(&mut world, realms[moves], mobile, told);
        assert_eq!(
            world.path(mobile, peer),
            None,
            "seed {seed}: it sends from an address that has gone"
        );
        // The wait for more changes, then three messages by relays at most.
        let left = |world: &World| world.path(peer, mobile).is_none_or(|path| path.to != old);
        assert!(world.run_for(Duration::from_millis(700), left), "seed {seed}");
        let at = world.now;
        assert!(world.run_for(SECONDS(1), |world| world.both_direct(mobile, peer)), "seed {seed}");
        world.run(SECONDS(10));
        assert!(world.both_direct(mobile, peer) && left(&world), "seed {seed}");
        for end in ends {
            let ways = world.ends[end].events.iter().filter(|(when, _)| *when > at);
            let relayed =
                ways.filter(|(_, event)| matches!(event, Event::Path { path: None, .. })).count();
            assert_eq!(relayed, 0, "seed {seed}: it goes to and fro");
        }
    }
}

#[test]
fn a_node_whose_address_behind_the_nat_changes_is_direct_again_within_three_seconds_of_loss() {
    for (seed, (moves, told)) in (0..80).zip(MOVES.into_iter().cycle()) {
        let (mut world, realms, ends) = homes(seed, 0.1);
        let (mobile, peer) = (ends[moves], ends[1 - moves]);
        let old = world.path(peer, mobile).unwrap().to;
        readdress(&mut world, realms[moves], mobile, told);
        let again = |world: &World| {
            world.both_direct(mobile, peer)
                && world.path(peer, mobile).is_some_and(|path| path.to != old)
        };
        assert!(world.run_for(SECONDS(3), again), "seed {seed}");
    }
}

#[test]
fn addresses_that_come_move_no_packets_off_a_path_that_answers() {
    for (seed, (moves, _)) in (0..20).zip(MOVES.into_iter().cycle()) {
        let (mut world, _, ends) = homes(seed, 0.0);
        let paths = |world: &World| {
            ends.map(|end| world.path(end, ends[usize::from(end == ends[0])]).unwrap().to)
        };
        let (before, at) = (paths(&world), world.now);
        let elsewhere = world.behind(INTERNET, "192.0.2.50", HOME);
        world.interface(ends[moves], elsewhere, "10.5.5.5");
        world.run(SECONDS(1));
        world.ends[ends[moves]]
            .punch
            .set_mapped(vec![crate::world::addr("192.0.2.60:9")], at + SECONDS(1));
        world.run(SECONDS(5));
        assert_eq!(paths(&world), before, "seed {seed}");
        for end in ends {
            let mut since = world.ends[end].events.iter().filter(|(when, _)| *when > at);
            assert!(!since.any(|(_, event)| matches!(event, Event::Path { .. })), "seed {seed}");
        }
    }
}

#[test]
fn a_better_way_is_taken_when_it_comes_and_the_next_best_when_it_goes() {
    for seed in 0..20 {
        let (mut world, realms, [a, b]) = homes(seed, 0.0);
        // Both come into one network.
        world.interface(b, realms[0], "10.0.0.3");
        let near = |world: &World| {
            world.path(a, b).is_some_and(|path| path.to.ip().to_string() == "10.0.0.3")
        };
        assert!(world.run_for(SECONDS(3), near), "seed {seed}");
        world.run(SECONDS(10));
        assert!(!world.explain(a, b).spares.is_empty());
        world.blocked.insert("10.0.0.3".parse().unwrap());
        world.blocked.insert("10.0.0.2".parse().unwrap());
        let far = |world: &World| {
            world.path(a, b).is_some_and(|path| path.to.ip().to_string() == "192.0.2.2")
        };
        let at = world.now;
        assert!(world.run_for(SECONDS(3), far), "seed {seed}");
        let none = world.ends[a].events.iter().filter(|(when, _)| *when >= at);
        assert!(
            !none.clone().any(|(_, event)| matches!(event, Event::Path { path: None, .. })),
            "seed {seed}"
        );
    }
}

#[test]
fn the_end_of_the_peer_connection_ends_the_paths_and_a_new_one_begins_anew() {
    let (mut world, _, [a, b]) = homes(1, 0.0);
    let cookie = world.ends[b].punch.cookie(&world.ends[a].id);
    let (peer, now) = (world.ends[b].id.clone(), world.now);
    world.ends[a].punch.disconnected(&peer, now);
    assert!(world.ends[a].punch.explain(&peer).is_none());
    assert_eq!(world.ends[a].punch.rounds().count(), 0);
    assert_eq!(
        world.ends[a].punch.poll_event(),
        Some(Event::Path { peer: peer.clone(), path: None })
    );
    world.connect(a, b);
    assert!(world.ends[b].punch.cookie(&world.ends[a].id) != cookie);
    assert!(world.run_for(SECONDS(4), |world| world.both_direct(a, b)));
}

#[test]
fn the_same_seeds_give_the_same_history() {
    let history = |seed| {
        let (world, ..) = homes(seed, 0.1);
        world.sent.iter().map(|sent| (sent.at, sent.by, sent.probe.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5), history(6));
}

#[test]
fn outcomes_are_counted_by_the_classes_of_the_pair() {
    let (world, _, [a, b]) = homes(2, 0.0);
    for end in [a, b] {
        let counters = world.ends[end].punch.counters();
        let attempts: u64 = counters.pairs.iter().flatten().map(|pair| pair.attempts).sum();
        let direct: u64 = counters.pairs.iter().flatten().map(|pair| pair.direct).sum();
        assert_eq!((attempts, direct), (1, 1));
        assert_eq!(counters.outcomes[Outcome::Direct as usize], 1);
        assert!(counters.time_to_direct > Duration::ZERO);
    }
}
