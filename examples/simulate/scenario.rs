//! What happens to the mesh: a cold start, then one event after the other, each measured and
//! checked.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::args::Args;
use crate::checks::{self, Findings};
use crate::measure::{Answer, Measured};
use crate::world::World;

/// By then, in virtual time, the mesh must be at rest: more than the longest hold, less than
/// records are kept.
const REST: Duration = Duration::from_secs(600);
/// After that, routers have forgotten that a link was lost, and hold it back no more.
const FORGET: Duration = Duration::from_secs(301);
/// How long a request of convergence may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two events under churn, which never rests.
const PACE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    LinkDown,
    Crash,
    Restart,
    PartitionHeal,
    Join,
    Converge,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "update" => Self::Update,
            "link-down" => Self::LinkDown,
            "crash" => Self::Crash,
            "restart" => Self::Restart,
            "partition-heal" => Self::PartitionHeal,
            "join" => Self::Join,
            "converge" => Self::Converge,
            _ => return Err(format!("{text:?} is no event; allowed: {ALL}")),
        })
    }
}

const ALL: &str = "update, link-down, crash, restart, partition-heal, join, converge";

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::LinkDown => "link-down",
            Self::Crash => "crash",
            Self::Restart => "restart",
            Self::PartitionHeal => "partition-heal",
            Self::Join => "join",
            Self::Converge => "converge",
        }
    }

    pub(crate) fn story(self) -> &'static str {
        match self {
            Self::Update => "a node says something new about itself, and all others learn it",
            Self::LinkDown => "a link goes down, and both its ends say so",
            Self::Crash => "a node dies, and all its neighbours say so",
            Self::Restart => {
                "a node starts again, remembers nothing, has a wrong clock, and overtakes its old record"
            }
            Self::PartitionHeal => {
                "two halves changed apart from each other, and every link between them returns"
            }
            Self::Join => "a new node links to the mesh",
            Self::Converge => {
                "a node asks all others whether they have its route, and waits until all have answered"
            }
        }
    }

    pub(crate) fn least_nodes(self) -> usize {
        match self {
            Self::Update | Self::Join | Self::Converge => 1,
            Self::LinkDown | Self::Crash | Self::Restart | Self::PartitionHeal => 2,
        }
    }
}

/// How the run went.
pub(crate) struct Outcome {
    pub(crate) cold_start: Measured,
    pub(crate) cold_wall: Duration,
    pub(crate) events: Vec<Measured>,
    /// Where the first event happened.
    pub(crate) scene: Vec<usize>,
    /// How the mesh was linked before the first event, for drawings.
    pub(crate) drawn_links: Vec<(usize, usize)>,
    /// Of the last check.
    pub(crate) findings: Findings,
}

/// What brings the mesh back to its shape after an event.
enum Repair {
    Nothing,
    Link(usize, usize),
    Node(usize, Vec<usize>),
}

pub(crate) struct Scenario<'a> {
    pub(crate) args: &'a Args,
    pub(crate) world: World,
    said: u32,
}

impl<'a> Scenario<'a> {
    pub(crate) fn new(args: &'a Args) -> Self {
        let most = args.nodes + if args.event == Kind::Join { args.events } else { 0 };
        Self { args, world: World::new(args.seed, args.flood, args.signed, most), said: 0 }
    }

    pub(crate) fn run(&mut self) -> Outcome {
        let cold_start = self.cold_start();
        let cold_wall = self.world.journal.wall();
        let mut drawn_links: Vec<(usize, usize)> = self.world.links().collect();
        let (mut events, mut scene) = (Vec::new(), Vec::new());
        let mut findings = self.check();
        self.world.swallow = self.args.swallow;
        if self.args.churn > 0.0 {
            self.world.start_churn(self.args.churn);
        }
        for turn in 0..self.args.events {
            if !findings.is_fine() {
                break;
            }
            let cut = if self.args.event == Kind::PartitionHeal { self.part() } else { Vec::new() };
            let before = self.world.meter.totals;
            self.world.meter.start(self.world.nodes.len(), true, self.world.now);
            let (place, repair) = self.happen(cut);
            self.rest();
            let measured = self.world.meter.stop(before);
            events.extend(measured.map(|measured| Measured { answer: self.answer(), ..measured }));
            if turn == 0 {
                scene = place;
                drawn_links.extend(self.world.links());
            }
            if self.args.churn == 0.0 {
                findings = self.check();
            }
            if findings.is_fine() {
                self.repair(repair);
                if self.args.churn == 0.0 {
                    self.world.run_for(FORGET);
                }
            }
        }
        if findings.is_fine() {
            self.world.stop_churn();
            self.world.settle(REST);
            findings = self.check();
        }
        drawn_links.sort_unstable();
        drawn_links.dedup();
        Outcome { cold_start, cold_wall, events, scene, drawn_links, findings }
    }

    /// All nodes start at once, over links without latency, however slow they are later: this is
    /// the cheapest way to get there.
    fn cold_start(&mut self) -> Measured {
        let world = &mut self.world;
        world.meter.start(self.args.nodes, false, world.now);
        for _ in 0..self.args.nodes {
            world.add();
        }
        for (a, b) in self.args.topology.links(self.args.nodes, self.args.degree, &mut world.rng) {
            world.open(a, b);
        }
        world.settle(REST);
        world.latency = self.args.latency;
        world.meter.stop(Default::default()).expect("it was started")
    }

    fn happen(&mut self, cut: Vec<(usize, usize)>) -> (Vec<usize>, Repair) {
        let world = &mut self.world;
        let living: Vec<usize> = world.living().collect();
        let node = living[world.rng.below(living.len())];
        match self.args.event {
            Kind::Update => {
                self.update(node);
                (vec![node], Repair::Nothing)
            }
            Kind::LinkDown => {
                let links: Vec<(usize, usize)> = world.links().collect();
                let Some(&(a, b)) = links.get(world.rng.below(links.len())) else {
                    return (Vec::new(), Repair::Nothing);
                };
                world.cut((a, b));
                (vec![a, b], Repair::Link(a, b))
            }
            Kind::Crash => {
                let peers = world.kill(node);
                (vec![node], Repair::Node(node, peers))
            }
            Kind::Restart => {
                let peers = world.kill(node);
                self.boot(node, &peers);
                (vec![node], Repair::Nothing)
            }
            Kind::PartitionHeal => {
                cut.iter().for_each(|&(a, b)| world.connect(a, b));
                (cut.into_iter().flat_map(<[usize; 2]>::from).collect(), Repair::Nothing)
            }
            Kind::Converge => {
                self.world.ask(node, PATIENCE);
                (vec![node], Repair::Nothing)
            }
            Kind::Join => {
                let number = world.add();
                for peer in self.args.topology.joins(number, &mut world.rng) {
                    world.connect(number, peer);
                }
                (vec![number], Repair::Nothing)
            }
        }
    }

    /// How the request of the event ended. Without churn it must end well.
    fn answer(&mut self) -> Option<Answer> {
        if self.args.event != Kind::Converge {
            return None;
        }
        let answer = self.world.answer.take();
        if self.args.churn == 0.0
            && answer.is_none_or(|answer| answer.waves != 1 || !answer.converged)
        {
            self.world
                .journal
                .fail(format!("in a quiet mesh the answer to converge was {answer:?}"));
        }
        answer
    }

    fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Nothing => return,
            Repair::Link(a, b) => self.world.connect(a, b),
            Repair::Node(node, peers) => self.boot(node, &peers),
        }
        self.rest();
    }

    /// Half of the nodes, next to each other, lose all links to the others. Both sides change.
    /// Gives the lost links.
    fn part(&mut self) -> Vec<(usize, usize)> {
        let world = &mut self.world;
        let links: Vec<(usize, usize)> = world.links().collect();
        let start = world.rng.below(world.nodes.len());
        let near = checks::near(world.nodes.len(), &links, start, world.nodes.len() / 2);
        let cut: Vec<_> = links.into_iter().filter(|(a, b)| near[*a] != near[*b]).collect();
        cut.iter().for_each(|link| world.cut(*link));
        self.rest();
        for _ in 0..=self.world.nodes.len() / 20 {
            let node = self.world.rng.below(self.world.nodes.len());
            self.update(node);
        }
        self.rest();
        cut
    }

    fn update(&mut self, node: usize) {
        self.said += 1;
        let news = Bytes::copy_from_slice(&self.said.to_be_bytes());
        self.world.command(node, |router, now| router.set_capabilities(news, now));
    }

    /// A new process, with its clock off by up to a minute either way.
    fn boot(&mut self, node: usize, peers: &[usize]) {
        let clock = self.world.rng.below(120_001) as i64 - 60_000;
        self.world.boot(node, clock);
        peers.iter().for_each(|&peer| self.world.connect(node, peer));
    }

    fn rest(&mut self) {
        if self.args.churn > 0.0 {
            self.world.run_for(PACE);
            while self.world.is_asking() {
                self.world.run_for(PACE);
            }
        } else {
            self.world.settle(REST);
        }
    }

    fn check(&self) -> Findings {
        checks::check(&self.world)
    }
}
