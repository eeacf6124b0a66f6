//! Restarts, partitions, and clocks that are wrong.

use std::time::Duration;

use receptor_quic::router::{Draft, Event};

use crate::cold_start::cold;
use crate::fuzz::PrintSeed;
use crate::probe::{Probe, draft, record};
use crate::reference::assert_converged;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

#[test]
fn a_clock_set_back_by_an_hour_costs_one_resync() {
    in_both_modes(|| {
        let mut sim = cold(1, &topologies::ring_with_chord());
        let before = sim.router("n03").version();
        sim.restart(&id("n03"), -3_600_000, Seen::Within(300));
        sim.settle();
        assert_converged(&sim);
        assert!(sim.router("n03").version() > before);
        assert!(sim.events.contains(&(id("n03"), Event::Resynced { seen: before })));
        assert_eq!(sim.router("n03").counters().resyncs, 1);
    });
}

#[test]
fn a_restarted_node_learns_its_old_version_before_it_speaks() {
    in_both_modes(|| {
        for seed in 0..50 {
            let _seed = PrintSeed(seed);
            let mut sim = cold(seed, &topologies::line(5));
            let before = sim.router("n02").version();
            sim.restart(&id("n02"), -30_000, Seen::Now);
            while sim.router("n02").counters().originations == 0 {
                sim.run_for(Duration::from_micros(10));
            }
            let first = sim.router("n02").version();
            assert_eq!((first.epoch, first.sequence), (before.epoch, before.sequence + 1));
            sim.settle();
            assert_converged(&sim);
        }
    });
}

#[test]
fn every_cut_of_a_small_graph_heals() {
    in_both_modes(|| {
        let edges = topologies::ring_with_chord();
        for side in 1u32..32 {
            let mut sim = cold(u64::from(side), &edges);
            let far = |node: &receptor_quic::NodeId| {
                side >> node.as_str()[1..].parse::<u32>().unwrap() & 1 == 1
            };
            let healing = sim.partition(far, Seen::Now);
            sim.run_for(Duration::from_secs(5));
            assert_converged_apart(&sim);
            sim.heal(healing);
            sim.settle();
            assert_converged(&sim);
        }
    });
}

#[test]
fn a_node_that_left_is_forgotten_and_can_come_back() {
    in_both_modes(|| {
        let mut sim = cold(3, &topologies::ring_with_chord());
        sim.leave(&id("n01"));
        assert!(sim.events.iter().any(|(_, event)| *event == Event::NodeLeft(id("n01"))));
        sim.run_for(Duration::from_secs(2));
        assert_converged_apart(&sim);
        sim.run_for(Duration::from_secs(70));
        let holders = sim.living().into_iter().filter(|node| {
            sim.nodes[node].router.database().any(|record| record.origin == id("n01"))
        });
        assert_eq!(holders.count(), 0, "the tombstone is gone after a minute");
        sim.boot("n01", -10_000);
        sim.connect("n00", "n01");
        sim.settle();
        assert_converged(&sim);
    });
}

#[test]
fn a_link_that_flaps_is_held_back_longer_and_longer_and_comes_back() {
    in_both_modes(|| {
        let mut sim = cold(9, &topologies::ring(4));
        for _ in 0..6 {
            sim.cut(&id("n00"), &id("n01"), Seen::Now);
            sim.run_for(Duration::from_millis(500));
            sim.connect("n00", "n01");
            sim.run_for(Duration::from_millis(500));
        }
        let heard = sim.router("n02").database().find(|record| record.origin == id("n00")).unwrap();
        assert!(heard.link(&id("n01")).is_none(), "the link is held back now");
        sim.settle();
        assert_converged(&sim);
    });
}

/// Components hold by themselves what they hold together; timers of comparison may still run.
pub(crate) fn assert_converged_apart(sim: &Sim) {
    let reference = crate::reference::Reference::of(sim);
    for node in sim.living() {
        let component = reference.component(&node);
        let reached = sim.nodes[&node]
            .router
            .table()
            .iter()
            .map(|route| route.id.clone())
            .collect::<Vec<_>>();
        assert!(
            reached.iter().eq(component.iter().filter(|other| **other != node)),
            "{node}: {reached:?}"
        );
    }
}

#[test]
fn a_leave_is_accepted_at_once_however_fast_its_origin_spoke() {
    let mut probe = Probe::tuned(|config| config.limits.accept_burst = 1);
    probe.sync("n");
    let farewell = |epoch, sequence| {
        Draft { leaving: true, ..draft("edge", (epoch, sequence), Vec::new()) }.seal().unwrap()
    };
    probe.update("n", &record("edge", (1, 1), &[("n", 1)]));
    probe.update("n", &record("edge", (2, 1), &[("n", 1)]));
    assert_eq!(probe.held("edge").unwrap().version.epoch, 1, "the next process waits for its time");
    probe.update("n", &farewell(2, 2));
    assert!(probe.held("edge").unwrap().leaving);
    assert_eq!(probe.router.counters().updates_delayed, 1);
    // What follows is paced again, farewells of processes that nobody saw among it.
    for epoch in 3..9 {
        probe.update("n", &record("edge", (epoch, 1), &[("n", 1)]));
        probe.update("n", &farewell(epoch, 2));
    }
    assert_eq!(probe.held("edge").unwrap().version.epoch, 2);
    probe.wait(501);
    assert_eq!(probe.held("edge").unwrap().version.epoch, 8);
    let counters = probe.router.counters();
    assert_eq!(counters.updates_delayed, 13);
}
