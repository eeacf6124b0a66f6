//! Small meshes in every order in which things can happen, as far as a bound on the choices goes.
//!
//! A schedule is a list of choices: which node takes what next. Routers cannot be copied, so each
//! schedule is played from the start, depth first. What happens at different nodes at one instant
//! commutes; of the schedules that differ in nothing else, sleep sets leave one (Godefroid 1996).
//! Beyond the bound, the first thing that can happen happens.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use receptor_quic::router::{FloodMode, Message, Record, Route};

use crate::fuzz::PrintSeed;
use crate::probe::{Probe, record};
use crate::rng::Rng;
use world::{Action, Step, World};

mod world;

const MODES: [FloodMode; 2] = [FloodMode::Full, FloodMode::Tree];
const LINE_3: &[Edge] = &[(0, 1), (1, 2)];
const TRIANGLE: &[Edge] = &[(0, 1), (1, 2), (0, 2)];
const LINE_4: &[Edge] = &[(0, 1), (1, 2), (2, 3)];
const STAR_4: &[Edge] = &[(0, 1), (0, 2), (0, 3)];
const SQUARE: &[Edge] = &[(0, 1), (1, 2), (2, 3), (0, 3)];

/// Two nodes by index that are linked.
type Edge = (usize, usize);

#[test]
fn a_link_of_two_comes_up_in_every_order() {
    explore(&Case::cold(&[(0, 1)], |_| {}), 300);
    explore(&Case::cold(&[(0, 1)], |_| {}).waits(2), 300);
}

#[test]
fn a_link_of_two_comes_up_while_both_change_in_every_order() {
    let change = |world: &mut World| (0..2).for_each(|node| world.plan(node, Step::Change));
    explore(&Case::cold(&[(0, 1)], change), 300);
    explore(&Case::warm(&[(0, 1)], change).waits(2), 300);
}

#[test]
fn a_link_of_two_goes_down_and_comes_back_in_every_order() {
    let bounce = |world: &mut World| {
        world.cut(0, 1, [true; 2]);
        world.connect(0, 1);
    };
    explore(&Case::cold(&[(0, 1)], bounce), 300);
    explore(&Case::warm(&[(0, 1)], bounce).waits(2), 300);
}

#[test]
fn a_session_that_one_end_sees_replaced_and_the_other_lost_comes_back_in_every_order() {
    for seen in [[true, false], [false, true], [false, false]] {
        let replace = move |world: &mut World| {
            world.cut(0, 1, seen);
            world.connect(0, 1);
            world.plan(0, Step::Change);
        };
        explore(&Case::cold(&[(0, 1)], replace), 300);
        explore(&Case::warm(&[(0, 1)], replace).waits(1), 300);
    }
}

#[test]
fn three_nodes_come_up_change_part_and_restart_in_every_order() {
    for edges in [LINE_3, TRIANGLE] {
        every_kind_of_change(edges, 150);
    }
}

#[test]
fn four_nodes_come_up_change_part_and_restart_in_every_order() {
    for edges in [LINE_4, STAR_4, SQUARE] {
        every_kind_of_change(edges, 100);
    }
}

fn every_kind_of_change(edges: &'static [Edge], at_least: usize) {
    explore(&Case::cold(edges, |_| {}), at_least);
    explore(&Case::cold(edges, |world| world.plan(1, Step::Change)).waits(1), at_least);
    let changes = |world: &mut World| (0..2).for_each(|node| world.plan(node, Step::Change));
    explore(&Case::warm(edges, changes).waits(1), at_least);
    let bounce = |world: &mut World| {
        world.cut(0, 1, [true; 2]);
        world.connect(0, 1);
    };
    explore(&Case::warm(edges, bounce), at_least);
    explore(&Case::warm(edges, |world| world.plan(1, Step::Restart { seen: true })), at_least);
    explore(&Case::warm(edges, |world| world.plan(0, Step::Restart { seen: false })), at_least);
}

#[test]
fn a_hub_restarts_under_three_hundred_leaves() {
    for mode in MODES {
        let mut world = World::new(301, mode, 0);
        (1..=300).for_each(|leaf| world.connect(0, leaf));
        world.play(Duration::from_secs(20));
        world.assert_agreed();
        world.plan(0, Step::Restart { seen: true });
        world.play(Duration::from_secs(400));
        world.assert_agreed();
        world.assert_nothing_waits();
    }
}

#[test]
fn updates_over_four_neighbours_in_any_order_give_the_same_records_and_routes() {
    for mode in MODES {
        for case in 0..20 {
            let arrivals = Arrivals::draw(&mut Rng::new(case));
            let first = arrivals.play(mode, &mut Rng::new(0));
            assert_eq!(first.1.len(), 4 + ORIGINS, "all are reached: {:?}", first.1);
            for seed in 1..30 {
                let _seed = PrintSeed(case << 32 | seed);
                assert_eq!(arrivals.play(mode, &mut Rng::new(seed)), first, "{mode:?}");
            }
        }
    }
}

/// What is explored.
struct Case {
    edges: &'static [Edge],
    /// Whether the links have long been up when what happens happens.
    warm: bool,
    happens: Box<dyn Fn(&mut World)>,
    /// How often time may pass although something else could happen.
    waits: usize,
}

impl Case {
    fn cold(edges: &'static [Edge], happens: impl Fn(&mut World) + 'static) -> Self {
        Self { edges, warm: false, happens: Box::new(happens), waits: 0 }
    }

    fn warm(edges: &'static [Edge], happens: impl Fn(&mut World) + 'static) -> Self {
        Self { warm: true, ..Self::cold(edges, happens) }
    }

    fn waits(self, waits: usize) -> Self {
        Self { waits, ..self }
    }

    fn world(&self, mode: FloodMode) -> World {
        let nodes = self.edges.iter().map(|(a, b)| a.max(b) + 1).max().unwrap_or(0);
        let mut world = World::new(nodes, mode, self.waits);
        self.edges.iter().for_each(|&(a, b)| world.connect(a, b));
        if self.warm {
            world.play(Duration::from_secs(10));
        }
        (self.happens)(&mut world);
        world
    }
}

/// A state of several choices, and the one that is being explored.
struct Point {
    choices: Vec<Action>,
    at: usize,
}

/// Explores ever more choices in all ways, until all schedules were played or so many at least, in
/// each mode.
fn explore(case: &Case, at_least: usize) {
    for mode in MODES {
        let mut explored = (1..100).map(|bound| (bound, explore_in(case, mode, bound)));
        let enough = |explored: &Explored| explored.all || explored.schedules >= at_least;
        let (bound, explored) = explored.find(|(_, explored)| enough(explored)).unwrap();
        println!("{mode:?}, {bound} choices: {explored:?}");
    }
}

#[derive(Debug)]
struct Explored {
    schedules: usize,
    /// Whether there are no others.
    all: bool,
}

fn explore_in(case: &Case, mode: FloodMode, bound: usize) -> Explored {
    let mut points: Vec<Point> = Vec::new();
    let mut explored = Explored { schedules: 0, all: true };
    loop {
        let mut schedule = PrintSchedule(mode, Vec::new());
        if let Some((mut world, ended)) = play(case, mode, bound, &mut points, &mut schedule.1) {
            world.play(Duration::from_secs(400));
            world.assert_agreed();
            world.assert_nothing_waits();
            explored.schedules += 1;
            explored.all &= ended;
        }
        while points.last_mut().is_some_and(|point| {
            point.at += 1;
            point.at == point.choices.len()
        }) {
            points.pop();
        }
        if points.is_empty() {
            return explored;
        }
    }
}

/// Plays the schedule that the points tell, and adds to them what they do not tell yet. Nothing
/// comes of a schedule that is another one but for the order of what commutes. Tells whether it
/// ended within the bound.
fn play(
    case: &Case,
    mode: FloodMode,
    bound: usize,
    points: &mut Vec<Point>,
    taken: &mut Vec<Action>,
) -> Option<(World, bool)> {
    let mut world = case.world(mode);
    let mut asleep: BTreeSet<Action> = BTreeSet::new();
    let mut depth = 0;
    while depth < bound {
        let enabled = world.enabled();
        if enabled.is_empty() {
            if !world.pass(Duration::from_secs(5)) {
                return Some((world, true));
            }
            continue;
        }
        let choices: Vec<Action> =
            enabled.into_iter().filter(|action| !asleep.contains(action)).collect();
        let action = match choices[..] {
            [] => return None,
            [only] => only,
            _ => {
                if depth == points.len() {
                    points.push(Point { choices, at: 0 });
                }
                let Point { choices, at } = &points[depth];
                asleep.extend(&choices[..*at]);
                depth += 1;
                choices[*at]
            }
        };
        asleep.retain(|other| other.commutes(action));
        taken.push(action);
        world.act(action);
    }
    Some((world, false))
}

/// Tells which schedule failed.
struct PrintSchedule(FloodMode, Vec<Action>);

impl Drop for PrintSchedule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with flood mode {:?} after the choices {:?}", self.0, self.1);
        }
    }
}

const ORIGINS: usize = 6;
const NEIGHBOURS: [&str; 4] = ["a", "b", "c", "d"];

/// What each of four neighbours tells, in its order: no origin's older record after a newer one.
struct Arrivals(Vec<VecDeque<Record>>);

impl Arrivals {
    /// Each origin is linked to some of the neighbours, and each neighbour to the router. Every
    /// neighbour tells some of the versions, one of them the newest.
    fn draw(rng: &mut Rng) -> Self {
        let mut told: Vec<Vec<(u64, Record)>> = vec![Vec::new(); NEIGHBOURS.len()];
        for (at, neighbour) in NEIGHBOURS.into_iter().enumerate() {
            let links: Vec<String> = (0..ORIGINS).map(|n| format!("x{n}")).collect();
            let mut links: Vec<(&str, u32)> = links.iter().map(|link| (link.as_str(), 1)).collect();
            links.push(("me", 1 + rng.below(3) as u32));
            told[at].push((rng.below(100), record(neighbour, (5, 1), &links)));
        }
        for origin in 0..ORIGINS {
            let newest = 1 + rng.below(3);
            let witness = rng.below(NEIGHBOURS.len() as u64) as usize;
            for version in 1..=newest {
                let kept = |rng: &mut Rng| {
                    NEIGHBOURS.into_iter().filter(|_| rng.chance(70)).collect::<Vec<_>>()
                };
                let mut links: Vec<(&str, u32)> = kept(rng).into_iter().map(|to| (to, 2)).collect();
                if links.is_empty() {
                    links.push((NEIGHBOURS[witness], 1));
                }
                let record = record(&format!("x{origin}"), (5, version), &links);
                for (at, told) in told.iter_mut().enumerate() {
                    if rng.chance(60) || at == witness && version == newest {
                        told.push((version * 100 + rng.below(100), record.clone()));
                    }
                }
            }
        }
        told.iter_mut().for_each(|told| told.sort_by_key(|(at, _)| *at));
        Self(
            told.into_iter()
                .map(|told| told.into_iter().map(|(_, record)| record).collect())
                .collect(),
        )
    }

    /// What a router holds, and where it sends what, when all of it has come in a random order
    /// across the neighbours.
    fn play(&self, mode: FloodMode, rng: &mut Rng) -> (Vec<Record>, Vec<Route>) {
        let mut probe = Probe::tuned(|config| config.flood = mode);
        NEIGHBOURS.into_iter().for_each(|neighbour| probe.sync(neighbour));
        probe.wait(1_000);
        let mut left = self.0.clone();
        while left.iter().any(|told| !told.is_empty()) {
            let at = rng.below(left.len() as u64) as usize;
            if let Some(record) = left[at].pop_front() {
                probe
                    .tell(NEIGHBOURS[at], Message::Update(record.advertisement().clone()))
                    .unwrap();
                if rng.chance(30) {
                    probe.wait(rng.below(200));
                }
            }
        }
        probe.wait(10_000);
        (probe.router.database().cloned().collect(), probe.router.table().iter().cloned().collect())
    }
}
