//! What stands in while a link is gone and new paths are not computed yet.

use std::collections::BTreeSet;

use receptor_quic::NodeId;
use receptor_quic::router::{DeadlineReason, Event, LinkClass, NeighbourKind};
use receptor_quic::switch::{Cookie, ForwardingTable, NextHop, Routes};

use crate::fuzz::PrintSeed;
use crate::probe::{Probe, draft, link, names, record};
use crate::reference::assert_converged;
use crate::rng::Rng;
use crate::sim::{Sim, id};
use crate::topologies;

#[test]
fn after_the_loss_of_any_link_alternates_lead_to_the_target_or_nowhere_and_never_in_a_loop() {
    let (mut saved, mut held) = (0, 0);
    for seed in 0..40 {
        let _seed = PrintSeed(seed);
        let sim = random_mesh(seed, 1 + seed % 4, seed % 3 == 0);
        for connection in sim.connections.values() {
            for from in sim.nodes.keys() {
                for route in sim.nodes[from].router.table().iter() {
                    let walk = Walk { sim: &sim, lost: &connection.ends, target: &route.id };
                    walk.on(from, None, &mut BTreeSet::new(), &mut saved, &mut held);
                }
            }
        }
    }
    assert!(saved > 500, "{saved} ways over alternates, {held} without one");
}

#[test]
fn the_table_goes_out_without_alternates_first_and_only_what_differs_is_an_event() {
    let mut probe = square();
    let tables = |probe: &mut Probe| {
        let events = std::mem::take(&mut probe.events);
        events.iter().filter(|event| **event == Event::TableChanged).count()
    };
    tables(&mut probe);
    assert_eq!(alternates(&probe, "far"), names(&["m"]));
    // A link that no path uses becomes dearer: paths are computed, and the routes and their
    // alternates are the same.
    probe.update("m", &record("m", (5, 2), &[("me", 1), ("far", 2), ("other", 1)]));
    probe.update("n", &record("far", (5, 2), &[("n", 1), ("m", 2), ("other", 9)]));
    probe.update("m", &record("other", (5, 1), &[("m", 1), ("far", 9)]));
    probe.wait(100);
    let before = (tables(&mut probe) > 0, probe.router.counters());
    probe.update("m", &record("other", (5, 2), &[("m", 1), ("far", 10)]));
    probe.wait(100);
    let after = (tables(&mut probe) > 0, probe.router.counters());
    assert_eq!((before.0, after.0), (true, false));
    assert_eq!(after.1.path_runs, before.1.path_runs + 1);
    assert!(after.1.alternate_runs > before.1.alternate_runs);
    // A farther target: the new route comes first, and its alternate after it.
    probe.update("n", &record("far", (5, 3), &[("n", 1), ("m", 2), ("farther", 1)]));
    let update = receptor_quic::router::Message::Update(
        record("farther", (5, 1), &[("far", 1)]).advertisement().clone(),
    );
    probe.tell("n", update).unwrap();
    let mut seen = Vec::new();
    while let Some(deadline) = probe.router.poll_timeout().filter(|d| {
        matches!(
            d.reason,
            DeadlineReason::ShortestPaths
                | DeadlineReason::Alternates
                | DeadlineReason::Announce
                | DeadlineReason::Output
        )
    }) {
        probe.now = probe.now.max(deadline.at);
        probe.router.handle_timeout(probe.now);
        probe.wait(0);
        if tables(&mut probe) > 0 {
            seen.push(alternates(&probe, "farther"));
        }
    }
    assert_eq!(seen, [names(&[]), names(&["m"])]);
}

#[test]
fn while_new_paths_are_put_off_the_alternate_serves_at_once() {
    let mut probe = square();
    // The paths have just been computed, and are not again at this very moment.
    probe.router.set_transit(false, probe.now);
    probe.router.set_transit(true, probe.now);
    probe.router.handle_session_down(&id("n"), probe.now);
    assert_eq!(
        probe.router.poll_timeout().map(|deadline| deadline.reason),
        Some(DeadlineReason::Output)
    );
    let table = probe.router.table();
    let far = table.route(&id("far")).unwrap();
    assert_eq!((far.next_hops.to_vec(), far.alternates.to_vec()), (names(&["n"]), names(&["m"])));
    let mut routes = Routes::default();
    let next_hops: Vec<_> = far.next_hops.iter().map(|hop| routes.place(hop.addr())).collect();
    let alternates: Vec<_> = far.alternates.iter().map(|hop| routes.place(hop.addr())).collect();
    routes.insert(far.addr, next_hops, alternates, 12);
    let mut switch = ForwardingTable::new(id("me").addr(), true, routes.into());
    let hop = |name| NextHop {
        neighbour: id(name).addr(),
        to: "192.0.2.1:9".parse().unwrap(),
        from: None,
        local_port: None,
        cookie: Cookie([1; 8]),
    };
    switch.link(hop("m"));
    assert_eq!(switch.originate(far.addr), Some((hop("m"), 12)));
}

#[test]
fn a_node_with_one_neighbour_searches_for_nothing() {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("far", 1)]));
    probe.update("n", &record("far", (5, 1), &[("n", 1)]));
    probe.wait(1_000);
    assert_eq!(probe.router.counters().alternate_runs, 0);
}

#[test]
fn a_stub_has_the_alternates_of_the_node_that_it_is_attached_to() {
    let mut sim = Sim::new(1);
    sim.boot_all(topologies::names(4));
    for (a, b, cost) in [("n00", "n01", 1), ("n00", "n02", 1), ("n01", "n03", 1), ("n02", "n03", 2)]
    {
        sim.connect_cost(a, b, cost, cost);
    }
    sim.attach(&id("n03"), id("stub"), receptor_quic::id::Cost::DEFAULT);
    sim.attach(&id("n00"), id("own"), receptor_quic::id::Cost::DEFAULT);
    sim.settle();
    let table = sim.router("n00").table();
    let route = table.route(&id("stub")).unwrap();
    assert_eq!(
        (route.next_hops.to_vec(), route.alternates.to_vec()),
        (names(&["n01"]), names(&["n02"]))
    );
    assert!(table.route(&id("own")).unwrap().alternates.is_empty());
}

#[test]
fn a_stub_that_attaches_elsewhere_gets_the_alternates_that_there_are_and_no_search_is_made() {
    let mut probe = square();
    let searches = |probe: &Probe| {
        let counters = probe.router.counters();
        (counters.path_runs, counters.alternate_runs)
    };
    let before = searches(&probe);
    let active = [link("n", LinkClass::Active, 1), link("m", LinkClass::Active, 2)];
    let with_stub = [&active[..], &[link("phone", LinkClass::Stub, 1)]].concat();
    probe.update("n", &draft("far", (5, 2), with_stub).seal().unwrap());
    probe.wait(1_000);
    let table = probe.router.table();
    let (phone, far) = (table.route(&id("phone")).unwrap(), table.route(&id("far")).unwrap());
    assert_eq!((&phone.next_hops, &phone.alternates), (&far.next_hops, &far.alternates));
    assert_eq!(phone.alternates.to_vec(), names(&["m"]));
    probe.update("n", &draft("far", (5, 3), active.to_vec()).seal().unwrap());
    probe.wait(1_000);
    assert!(probe.router.table().route(&id("phone")).is_none());
    assert_eq!(alternates(&probe, "far"), names(&["m"]));
    assert_eq!(searches(&probe), before);
}

/// me - n - far and, dearer, me - m - far.
fn square() -> Probe {
    let mut probe = Probe::new();
    probe.sync("n");
    probe.sync("m");
    probe.update("n", &record("n", (5, 1), &[("me", 1), ("far", 1)]));
    probe.update("m", &record("m", (5, 1), &[("me", 1), ("far", 2)]));
    probe.update("n", &record("far", (5, 1), &[("n", 1), ("m", 2)]));
    probe.up("leaf", NeighbourKind::Stub).unwrap();
    probe.wait(1_000);
    assert_eq!(alternates(&probe, "far"), names(&["m"]));
    probe
}

fn alternates(probe: &Probe, to: &str) -> Vec<NodeId> {
    probe.router.table().route(&id(to)).map_or_else(Vec::new, |route| route.alternates.to_vec())
}

/// Up to nine nodes, connected, with costs up to `most`; the fewer costs, the more ties.
fn random_mesh(seed: u64, most: u64, refusals: bool) -> Sim {
    let mut rng = Rng::new(seed);
    let names = topologies::names(4 + rng.below(6) as usize);
    let mut sim = Sim::new(seed);
    sim.boot_all(names.clone());
    let mut edges = BTreeSet::new();
    for n in 1..names.len() {
        edges.insert((rng.below(n as u64) as usize, n));
    }
    for _ in 0..names.len() {
        let (a, b) =
            (rng.below(names.len() as u64) as usize, rng.below(names.len() as u64) as usize);
        if a < b {
            edges.insert((a, b));
        }
    }
    for (a, b) in edges {
        let mut cost = || 1 + rng.below(most) as u32;
        let (ab, ba) = (cost(), cost());
        sim.connect_cost(&names[a], &names[b], ab, ba);
    }
    for name in names.iter().filter(|_| refusals && rng.chance(25)) {
        let now = sim.now;
        sim.nodes.get_mut(&id(name)).unwrap().transit = false;
        sim.command(&id(name), |router| router.set_transit(false, now));
    }
    sim.settle();
    assert_converged(&sim);
    sim
}

/// The ways of packets to a target while a link is gone and only its two ends know.
struct Walk<'a> {
    sim: &'a Sim,
    lost: &'a [NodeId; 2],
    target: &'a NodeId,
}

impl Walk<'_> {
    /// Follows every choice that the switch could make.
    fn on(
        &self,
        at: &NodeId,
        ingress: Option<&NodeId>,
        visited: &mut BTreeSet<NodeId>,
        saved: &mut u32,
        held: &mut u32,
    ) {
        if at == self.target {
            return;
        }
        assert!(
            visited.insert(at.clone()),
            "a loop at {at} to {} without {:?}",
            self.target,
            self.lost
        );
        let table = self.sim.nodes[at].router.table();
        let route = table.route(self.target).unwrap_or_else(|| panic!("{at} lost {}", self.target));
        let usable = |hop: &&NodeId| {
            Some(*hop) != ingress && !(self.lost.contains(at) && self.lost.contains(hop))
        };
        let next_hops: Vec<&NodeId> = route.next_hops.iter().filter(usable).collect();
        let alternate = route.alternates.iter().find(usable).filter(|_| next_hops.is_empty());
        assert!(
            !next_hops.is_empty() || self.lost.contains(at),
            "{at} has no way to {}",
            self.target
        );
        match (next_hops.is_empty(), alternate) {
            (true, None) => *held += 1,
            (true, Some(_)) => *saved += 1,
            (false, _) => {}
        }
        for hop in next_hops.into_iter().chain(alternate) {
            self.on(hop, Some(at), visited, saved, held);
        }
        visited.remove(at);
    }
}
