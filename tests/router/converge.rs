//! Knowing that the mesh includes a node: what a wave takes, what it finds out, and that it never
//! says yes too early.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Version;
use receptor_quic::router::{
    ConvergeError, ConvergeRequest, Echo, Event, FloodMode, Limits, Message, NeighbourKind, Router,
};

use crate::cold_start::cold;
use crate::flood::{difference, shapes};
use crate::fuzz::{PrintSeed, history_of, provoke};
use crate::probe::{Probe, entry, record};
use crate::rng::Rng;
use crate::sim::{Seen, Sent, Sim, id, in_both_modes};
use crate::topologies;

/// Watches over all requests of a world.
#[derive(Default)]
pub(crate) struct Waves {
    /// Histories are to ask for convergence before every step.
    pub(crate) often: bool,
    /// By node and instance of its process: when it was asked.
    open: BTreeMap<(NodeId, u64, ConvergeRequest), Instant>,
    /// The newest wave of each origin: how many it made, and what it reached then.
    started: BTreeMap<(NodeId, u64), (u64, BTreeSet<NodeId>)>,
    /// The newest version of an origin (first) to which a node (second) had a route, and when it
    /// had one last.
    installed: BTreeMap<(NodeId, NodeId), (Version, Instant)>,
    pub(crate) successes: u32,
    pub(crate) partials: u32,
}

impl Waves {
    /// Looks at what a router has installed, after each of its inputs.
    pub(crate) fn look(&mut self, router: &Router, now: Instant) {
        let me = router.id();
        if self.open.is_empty() {
            return;
        }
        let waves = router.counters().waves;
        if self.started.get(&process(router)).is_none_or(|started| started.0 != waves) {
            self.started.insert(process(router), (waves, reached(router)));
        }
        let origins: BTreeSet<NodeId> =
            self.open.keys().map(|(origin, _, _)| origin.clone()).collect();
        let held = |origin: &NodeId| router.database().find(|record| record.origin == *origin);
        for origin in origins.into_iter().filter(|origin| router.table().route(origin).is_some()) {
            if let Some(record) = held(&origin) {
                self.installed.insert((origin, me.clone()), (record.version, now));
            }
        }
    }

    /// What the router says must be true, as far as all routers can tell together.
    pub(crate) fn check(&mut self, router: &Router, event: &Event) {
        let (origin, instance) = process(router);
        match event {
            Event::Converged { request, count } => {
                let asked_at = self.open.remove(&(origin.clone(), instance, *request)).unwrap();
                let now = reached(router);
                let before = &self
                    .started
                    .get(&(origin.clone(), instance))
                    .map(|started| &started.1)
                    .unwrap_or(&now);
                for node in before.intersection(&now).filter(|node| **node != origin) {
                    let installed = self.installed.get(&(origin.clone(), node.clone()));
                    assert!(
                        installed.is_some_and(
                            |(version, at)| *version >= router.version() && *at >= asked_at
                        ),
                        "{origin} is told that {node} has its route: {installed:?}"
                    );
                }
                assert!(*count >= before.intersection(&now).count() as u64);
                self.successes += 1;
            }
            Event::Partial { request, count, expected } => {
                assert!(self.open.remove(&(origin.clone(), instance, *request)).is_some());
                assert!(count <= expected);
                self.partials += 1;
            }
            _ => {}
        }
    }
}

/// A process has its own waves and requests.
fn process(router: &Router) -> (NodeId, u64) {
    (router.id().clone(), router.version().instance)
}

fn reached(router: &Router) -> BTreeSet<NodeId> {
    let table = router.table();
    let nodes = table.iter().filter(|route| !route.stub).map(|route| route.id.clone());
    nodes.chain([router.id().clone()]).collect()
}

impl Sim {
    pub(crate) fn converge(&mut self, name: &NodeId, millis: u64) -> Option<ConvergeRequest> {
        let (now, mut request) = (self.now, None);
        let router = &mut self.nodes.get_mut(name).unwrap().router;
        if let Ok(taken) = router.converge(now + Duration::from_millis(millis), now) {
            let (node, instance) = process(router);
            self.waves.open.insert((node, instance, taken), now);
            request = Some(taken);
        }
        self.command(name, |_| ());
        request
    }

    /// Runs until the request has ended. Gives how, and how long it took.
    fn answer(&mut self, name: &NodeId, request: ConvergeRequest) -> (Event, Duration) {
        let start = self.now;
        loop {
            let of = |event: &Event| match event {
                Event::Converged { request: of, .. } | Event::Partial { request: of, .. } => {
                    *of == request
                }
                _ => false,
            };
            if let Some((_, event)) =
                self.events.iter().find(|(node, event)| node == name && of(event))
            {
                return (event.clone(), self.now - start);
            }
            self.run_for(Duration::from_micros(500));
        }
    }

    fn wave(&mut self, name: &NodeId) -> (Event, Duration, Sent) {
        let before = self.sent;
        let request = self.converge(name, 60_000).unwrap();
        let (event, time) = self.answer(name, request);
        (event, time, difference(self.sent, before))
    }

    /// How long one update of a node takes to reach all.
    fn flood_time(&mut self, name: &NodeId) -> Duration {
        let (now, text) =
            (self.now, self.now.duration_since(self.start).as_nanos().to_be_bytes().to_vec());
        self.nodes.get_mut(name).unwrap().capabilities = text.clone();
        self.command(name, |router| router.set_capabilities(text.into(), now));
        let version = self.nodes[name].router.version();
        let held =
            |router: &Router| router.database().any(|r| r.origin == *name && r.version == version);
        while !self.nodes.values().all(|node| held(&node.router)) {
            self.run_for(Duration::from_micros(500));
        }
        self.now - now
    }
}

#[test]
fn in_a_quiet_mesh_of_any_shape_a_wave_finds_all_nodes_with_two_messages_a_link() {
    in_both_modes(|| {
        for (name, edges) in shapes() {
            let mut sim = cold(1, &edges);
            (sim.latency, sim.drain) = ((5, 5), (0, 0));
            let (nodes, links) =
                (sim.nodes.len() as u64, sim.connections.values().filter(|c| !c.broken).count());
            for origin in sim.living().into_iter().take(6) {
                sim.run_for(Duration::from_secs(5));
                let (event, time, sent) = sim.wave(&origin);
                assert!(
                    matches!(event, Event::Converged { count, .. } if count == nodes),
                    "{name}: {event:?}"
                );
                let messages = sent.payloads + sent.ids + sent.wants + sent.echoes;
                assert_eq!(
                    (messages, sent.echoes),
                    (2 * links as u64, nodes - 1),
                    "{name}: {sent:?}"
                );
                // Down, once across, and up again.
                let depth =
                    sim.nodes[&origin].router.table().iter().map(|route| route.hops).max().unwrap();
                assert!(
                    time <= Duration::from_millis(5) * (2 * depth + 1) + Duration::from_millis(1),
                    "{name}: {time:?}"
                );
            }
        }
    });
}

#[test]
fn over_links_of_many_latencies_a_wave_takes_hardly_more_than_twice_the_flood() {
    let (mut flood, mut wave, mut messages, mut links) = (Duration::ZERO, Duration::ZERO, 0, 0);
    for seed in 0..3 {
        let _seed = PrintSeed(seed);
        let mut rng = Rng::new(seed);
        let edges = topologies::random_mesh(80, &mut rng);
        let mut sim = cold(seed, &edges);
        sim.latency = (5, 50);
        for _ in 0..5 {
            let origin = rng.pick(&sim.living()).cloned().unwrap();
            sim.run_for(Duration::from_secs(5));
            flood += sim.flood_time(&origin);
            sim.run_for(Duration::from_secs(5));
            let (event, time, sent) = sim.wave(&origin);
            assert!(matches!(event, Event::Converged { count: 80, .. }), "{event:?}");
            wave += time;
            messages += sent.payloads + sent.ids + sent.wants + sent.echoes;
            links += edges.len() as u64;
        }
    }
    println!("flood {flood:?}, wave {wave:?}, {messages} messages over {links} links");
    assert!(wave * 10 <= flood * 23, "flood {flood:?}, wave {wave:?}");
    assert!(messages * 100 <= links * 205, "{messages} messages over {links} links");
}

#[test]
fn a_node_alone_is_all_of_its_mesh_and_stubs_are_not_counted() {
    let mut sim = Sim::new(1);
    sim.boot("n00", 0);
    let request = sim.converge(&id("n00"), 1_000).unwrap();
    assert_eq!(sim.events, [(id("n00"), Event::Converged { request, count: 1 })]);
    sim.boot("n01", 0);
    sim.connect("n00", "n01");
    sim.attach(&id("n01"), id("leaf"), receptor_quic::id::Cost::DEFAULT);
    sim.run_for(Duration::from_millis(20));
    let (event, _, _) = sim.wave(&id("n00"));
    assert!(matches!(event, Event::Converged { count: 2, .. }), "{event:?}");
    sim.settle();
    crate::reference::assert_converged(&sim);
}

#[test]
fn a_wave_with_the_news_of_a_stub_completes_though_no_path_changes() {
    in_both_modes(|| {
        for seed in 0..5 {
            let _seed = PrintSeed(seed);
            let mut sim = cold(seed, &topologies::irregular_13());
            sim.attach(&id("node4"), id("leaf"), receptor_quic::id::Cost::DEFAULT);
            let (event, _, _) = sim.wave(&id("node4"));
            assert!(matches!(event, Event::Converged { count: 13, .. }), "{event:?}");
            assert!(
                sim.nodes.values().all(|node| node.router.table().route(&id("leaf")).is_some())
            );
        }
    });
}

#[test]
fn a_joiner_that_asks_at_once_is_told_when_all_have_its_route() {
    in_both_modes(|| {
        for seed in 0..20 {
            let _seed = PrintSeed(seed);
            let mut sim = cold(seed, &topologies::irregular_13());
            sim.boot("young", 0);
            sim.connect("young", "node7");
            sim.connect("young", "node12");
            // Alone it would have its answer at once.
            while sim.router("young").neighbours().next().is_none() {
                sim.run_for(Duration::from_micros(100));
            }
            let (event, _, _) = sim.wave(&id("young"));
            assert!(matches!(event, Event::Converged { count: 14, .. }), "{event:?}");
            assert!(
                sim.nodes.values().all(|n| n.router.id() == &id("young")
                    || n.router.table().route(&id("young")).is_some())
            );
        }
    });
}

#[test]
fn nodes_that_refuse_transit_are_counted_and_those_behind_them_are_not() {
    in_both_modes(|| {
        let mut sim = cold(3, &topologies::line(4));
        let now = sim.now;
        sim.nodes.get_mut(&id("n01")).unwrap().transit = false;
        sim.command(&id("n01"), |router| router.set_transit(false, now));
        sim.run_for(Duration::from_secs(5));
        for (name, count) in [("n00", 2), ("n01", 4), ("n03", 3)] {
            let (event, _, _) = sim.wave(&id(name));
            assert!(
                matches!(event, Event::Converged { count: all, .. } if all == count),
                "{name}: {event:?}"
            );
        }
    });
}

#[test]
fn while_a_loss_is_not_seen_the_answer_is_partial_and_once_it_is_seen_the_rest_is_all() {
    in_both_modes(|| {
        for seed in 0..5 {
            let _seed = PrintSeed(seed);
            let mut sim = cold(seed, &topologies::irregular_13());
            // Dead, and nobody sees it for five seconds or more.
            let dead = id("node4");
            sim.nodes.get_mut(&dead).unwrap().alive = false;
            let short = sim.converge(&id("controller"), 3_000).unwrap();
            let long = sim.converge(&id("controller"), 60_000).unwrap();
            let (event, time) = sim.answer(&id("controller"), short);
            assert!(
                matches!(event, Event::Partial { count, expected: 13, .. } if count < 13),
                "{event:?}"
            );
            assert!(time >= Duration::from_secs(3), "{time:?}");
            sim.kill(&dead, Seen::Within(300));
            let (event, _) = sim.answer(&id("controller"), long);
            assert!(matches!(event, Event::Converged { count: 12, .. }), "{event:?}");
            assert!(sim.router("controller").counters().waves <= 6, "waves are paced");
        }
    });
}

#[test]
fn a_crash_in_the_middle_of_a_wave_costs_a_retry_at_most() {
    in_both_modes(|| {
        for seed in 0..10 {
            let _seed = PrintSeed(seed);
            let mut sim = cold(seed, &topologies::grid(5));
            let request = sim.converge(&id("n00"), 30_000).unwrap();
            let mut rng = Rng::new(seed);
            let pause = rng.millis(0, 150);
            sim.run_for(pause);
            sim.kill(&id("n12"), Seen::Within(300));
            let (event, _) = sim.answer(&id("n00"), request);
            assert!(matches!(event, Event::Converged { count: 24 | 25, .. }), "{event:?}");
        }
    });
}

#[test]
fn while_links_come_and_go_most_requests_are_answered_by_the_first_wave() {
    for (per_second, least) in [(1, 20), (4, 14)] {
        let mut first = 0;
        let mut sim = cold(5, &degree_of_six(30));
        sim.latency = (5, 50);
        let mut rng = Rng::new(per_second);
        for _ in 0..25 {
            let origin = rng.pick(&sim.living()).cloned().unwrap();
            let mut request = None;
            for turn in 0..per_second.max(2) {
                let live: Vec<_> = sim
                    .connections
                    .values()
                    .filter(|c| !c.broken)
                    .map(|c| c.ends.clone())
                    .collect();
                let [a, b] = rng.pick(&live).cloned().unwrap();
                sim.cut(&a, &b, Seen::Within(50));
                let pause = rng.millis(0, 1_000 / per_second);
                sim.run_for(pause);
                if turn == 0 {
                    request = sim
                        .converge(&origin, 60_000)
                        .map(|it| (it, sim.router(origin.as_str()).counters().waves));
                }
                sim.run_for(Duration::from_millis(1_000 / per_second) - pause);
                sim.connect(a.as_str(), b.as_str());
            }
            let (request, before) = request.unwrap();
            let (event, _) = sim.answer(&origin, request);
            assert!(matches!(event, Event::Converged { .. }), "{event:?}");
            first += u64::from(sim.router(origin.as_str()).counters().waves == before);
        }
        println!("{first} of 25 at the first wave with {per_second} links lost a second");
        assert!(first >= least, "{first} of 25 with {per_second} a second");
    }
}

#[test]
fn no_wave_says_yes_too_early_whatever_happens() {
    let mut totals = (0, 0);
    let seeds = std::env::var("RECEPTOR_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    for mode in [FloodMode::Full, FloodMode::Tree] {
        for seed in 10_000..10_000 + seeds {
            let mut sim = Sim::flooding(seed, mode);
            sim.waves.often = true;
            sim.random_eager = seed % 3 == 0;
            let sim = history_of(sim, seed, provoke);
            totals = (totals.0 + sim.waves.successes, totals.1 + sim.waves.partials);
            let of_the_dead = sim.waves.open.len();
            assert!(of_the_dead <= 25, "{of_the_dead} requests without an answer");
        }
    }
    println!("{} converged, {} partial", totals.0, totals.1);
    assert!(totals.0 > 1_000 && totals.1 > 50, "{totals:?}");
}

#[test]
fn the_same_seed_gives_the_same_waves() {
    in_both_modes(|| {
        for seed in 0..5 {
            let run = || {
                let mut sim = Sim::new(seed);
                sim.waves.often = true;
                let sim = history_of(sim, seed, provoke);
                (sim.trace(), sim.waves.successes)
            };
            assert_eq!(run(), run());
        }
    });
}

#[test]
fn requests_share_waves_but_none_that_began_before_them() {
    let mut sim = cold(1, &topologies::ring(6));
    sim.latency = (5, 5);
    let node = id("n00");
    let together: Vec<_> = (0..10).map(|_| sim.converge(&node, 10_000).unwrap()).collect();
    sim.run_for(Duration::from_millis(12));
    let late = sim.converge(&node, 10_000).unwrap();
    let gone = sim.converge(&node, 10_000).unwrap();
    let now = sim.now;
    sim.command(&node, |router| router.cancel_converge(gone, now));
    for request in together.into_iter().chain([late]) {
        assert!(matches!(sim.answer(&node, request).0, Event::Converged { count: 6, .. }));
    }
    assert!(sim.router("n00").counters().waves <= 3);
    sim.run_for(Duration::from_secs(30));
    assert!(
        !sim.events.iter().any(
            |(_, event)| matches!(event, Event::Converged { request, .. } if *request == gone)
        )
    );
}

#[test]
fn requests_are_bounded_and_paced_and_end_when_the_node_leaves() {
    let mut sim = cold(1, &topologies::line(3));
    let node = id("n00");
    let before = sim.router("n00").counters();
    for _ in 0..20 {
        let (event, _, _) = sim.wave(&node);
        assert!(matches!(event, Event::Converged { .. }), "{event:?}");
    }
    let took = sim.router("n00").counters().originations - before.originations;
    assert_eq!(took, 20, "one record each");
    // Ten at once, then one in two seconds.
    assert!(sim.now - sim.start >= Duration::from_secs(22 + 18), "{:?}", sim.now - sim.start);

    let now = sim.now;
    let router = &mut sim.nodes.get_mut(&node).unwrap().router;
    let deadline = now + Duration::from_secs(60);
    let mut taken = (0..2_000).map(|_| router.converge(deadline, now));
    let max = Limits::MAX_CONVERGE_REQUESTS;
    assert_eq!(taken.by_ref().take(max).filter(Result::is_ok).count(), max);
    assert!(taken.all(|result| result == Err(ConvergeError::TooMany { max })));
    router.leave(now);
    let mut partials = 0;
    while let Some(event) = router.poll_event() {
        partials += usize::from(matches!(event, Event::Partial { count: 1, .. }));
    }
    assert_eq!(partials, max);
    assert_eq!(router.converge(deadline, now), Err(ConvergeError::Leaving));
}

#[test]
fn a_wave_over_records_that_come_too_fast_completes_when_they_are_accepted() {
    // One update of an origin is taken every half second: the second wave waits for that.
    let mut sim = Sim::new(1);
    sim.tune = |config| config.limits.accept_burst = 1;
    sim.boot_all(topologies::names(6));
    for (a, b) in topologies::ring(6) {
        sim.connect(&a, &b);
    }
    sim.run_for(Duration::from_secs(20));
    for _ in 0..3 {
        let (event, _, _) = sim.wave(&id("n02"));
        assert!(matches!(event, Event::Converged { count: 6, .. }), "{event:?}");
    }
    let delayed: u64 = sim.nodes.values().map(|node| node.router.counters().updates_delayed).sum();
    assert!(delayed > 0);
    assert_eq!(sim.router("n02").counters().partials, 0);
}

#[test]
fn an_answer_waits_for_the_neighbours_and_for_the_route() {
    let mut probe = Probe::new();
    for name in ["p", "q", "r"] {
        probe.sync(name);
        probe.update(name, &record(name, (5, 1), &[("me", 1)]));
    }
    probe.wait(100);
    probe.sent.clear();
    let wave = echo_record("far", &[("p", 1)]);
    probe.tell("p", update(&wave)).unwrap();
    // At once, to all but the one that it came from; in full to who hangs nowhere in the tree.
    assert!(probe.sent_to("p").is_empty());
    for name in ["q", "r"] {
        assert!(probe.sent_to(name).iter().any(|message| match message {
            Message::Have(entries) => entries.contains(&entry(&wave)),
            Message::Update(advertisement) => advertisement == wave.advertisement(),
            _ => false,
        }));
    }
    probe.tell("q", Message::Have(vec![entry(&wave)])).unwrap();
    let echo =
        |count, sum| Message::Echo(Echo { origin: id("far"), version: wave.version, count, sum });
    probe.tell("r", echo(7, 1_000)).unwrap();
    probe.wait(10);
    assert!(echoes(&mut probe, "p").is_empty(), "the route is not there");
    // The far end lists the link: now there is a route.
    probe.update("p", &record("p", (5, 2), &[("me", 1), ("far", 1)]));
    let me = u64::from_be_bytes(id("me").addr().0);
    let expected =
        Echo { origin: id("far"), version: wave.version, count: 8, sum: me.wrapping_add(1_000) };
    assert_eq!(echoes(&mut probe, "p"), [expected]);
    // Late, twice, or of nothing: nobody minds.
    probe.tell("r", echo(u64::MAX, 0)).unwrap();
    probe.tell("q", echo(u64::MAX, 0)).unwrap();
    assert_eq!(probe.router.counters().echoes_ignored, 2);
    assert!(echoes(&mut probe, "p").is_empty());
}

#[test]
fn a_wave_is_given_up_when_the_session_it_came_over_ends_or_a_newer_one_comes_or_time_passes() {
    let wave = echo_record("far", &[("p", 1)]);
    let begin = || {
        let mut probe = Probe::new();
        for name in ["p", "q"] {
            probe.sync(name);
        }
        probe.update("p", &record("p", (5, 1), &[("me", 1), ("far", 1)]));
        probe.wait(100);
        probe.tell("p", update(&wave)).unwrap();
        probe.sent.clear();
        probe
    };
    let answer = |probe: &mut Probe| {
        probe.tell("q", Message::Have(vec![entry(&wave)])).unwrap();
        probe.wait(10);
        echoes(probe, "p").len()
    };
    assert_eq!(answer(&mut begin()), 1);

    let mut probe = begin();
    probe.router.handle_session_down(&id("p"), probe.now);
    probe.sync("p");
    assert_eq!(answer(&mut probe), 0, "another session");

    let mut probe = begin();
    probe.update("p", &record("far", (5, 9), &[("p", 1)]));
    assert_eq!(answer(&mut probe), 0, "superseded");

    let mut probe = begin();
    probe.wait(61_000);
    assert_eq!(answer(&mut probe), 0, "forgotten");

    let mut probe = begin();
    probe.router.handle_session_down(&id("q"), probe.now);
    probe.wait(10);
    assert_eq!(echoes(&mut probe, "p").len(), 1, "nobody is left to wait for");
}

#[test]
fn a_record_with_a_wave_that_comes_with_the_sync_is_not_answered() {
    let mut probe = Probe::new();
    probe.up("p", NeighbourKind::Full).unwrap();
    let digest = receptor_quic::router::Digest(1);
    probe.tell("p", Message::Digest { digest, count: 1 }).unwrap();
    probe.tell("p", update(&echo_record("p", &[("me", 1)]))).unwrap();
    probe
        .tell("p", Message::Summary { after: None, entries: vec![], last: true, buckets: None })
        .unwrap();
    probe.tell("p", Message::SyncEnd).unwrap();
    probe.wait(100);
    assert!(probe.cost("p").is_some() && echoes(&mut probe, "p").is_empty());
}

#[test]
fn a_stub_that_sends_an_echo_breaks_the_protocol() {
    let mut probe = Probe::new();
    probe.up("leaf", NeighbourKind::Stub).unwrap();
    let version = Version::default();
    let echo = Echo { origin: id("me"), version, count: 1, sum: 1 };
    assert!(probe.tell("leaf", Message::Echo(echo)).is_err());
}

#[test]
fn false_counts_make_no_answer_true() {
    let mut probe = Probe::new();
    probe.sync("p");
    probe.update("p", &record("p", (5, 1), &[("me", 1)]));
    probe.wait(100);
    let request = probe.router.converge(probe.now + Duration::from_secs(1), probe.now).unwrap();
    probe.wait(20);
    let version = probe.router.version();
    probe
        .tell("p", Message::Echo(Echo { origin: id("me"), version, count: u64::MAX, sum: 77 }))
        .unwrap();
    probe.wait(5_000);
    let ends: Vec<_> = probe
        .events
        .iter()
        .filter(|e| matches!(e, Event::Converged { .. } | Event::Partial { .. }))
        .collect();
    assert_eq!(ends, [&Event::Partial { request, count: 2, expected: 2 }]);
}

/// A ring with so many chords that no link is missed much.
fn degree_of_six(count: usize) -> topologies::Edges {
    let (names, mut edges, mut rng) =
        (topologies::names(count), topologies::ring(count), Rng::new(6));
    while edges.len() < 3 * count {
        let (a, b) = (rng.pick(&names).unwrap(), rng.pick(&names).unwrap());
        let joins =
            |edge: &(String, String)| [&edge.0, &edge.1] == [a, b] || [&edge.1, &edge.0] == [a, b];
        if a != b && !edges.iter().any(joins) {
            edges.push((a.clone(), b.clone()));
        }
    }
    edges
}

fn echo_record(origin: &str, links: &[(&str, u32)]) -> receptor_quic::router::Record {
    let plain = record(origin, (5, 2), links);
    receptor_quic::router::Draft { echo: true, ..(*plain).clone() }.seal().unwrap()
}

fn update(record: &receptor_quic::router::Record) -> Message {
    Message::Update(record.advertisement().clone())
}

fn echoes(probe: &mut Probe, to: &str) -> Vec<Echo> {
    let echoes = probe.sent_to(to).into_iter().filter_map(|message| match message {
        Message::Echo(echo) => Some(echo),
        _ => None,
    });
    echoes.collect()
}
