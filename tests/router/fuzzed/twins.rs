//! Any bytes as the history of two processes with one id, each linked to one of two other nodes.
//!
//! ```text
//!   a ── b ── c ── a
//! ```
//!
//! Links come and go, frames are delivered early or late, `b` and `c` restart. Nothing here is
//! drawn at random, so the same bytes give the same history.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{Config, Event, Message, NeighbourKind, Router, SessionUp};

use super::drained::drained;

/// The two with one name are the first and the last.
const NAMES: [&str; 4] = ["a", "b", "c", "a"];
const LINKS: [[usize; 2]; 3] = [[0, 1], [1, 2], [2, 3]];
/// Longer inputs say nothing that shorter ones do not.
const MAX_INPUT: usize = 512;
/// A router that wants to be woken more often than this within one step of time spins.
const MAX_WAKES: usize = 20_000;
/// How long a node that yields keeps its links, for its last record.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time until one has yielded, in seconds: together 10 minutes.
const PATIENCE: [u64; 4] = [3, 17, 100, 480];

/// Plays the history, links all, and asserts that exactly one of the two yields.
pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied().take(MAX_INPUT);
    let mut next = || bytes.next();
    let mut world = World::new(next().unwrap_or(0), next().unwrap_or(0));
    while let Some(what) = next() {
        let [which, how] = [next().unwrap_or(0), next().unwrap_or(0)];
        world.step(what, usize::from(which), how);
    }
    (0..LINKS.len()).for_each(|link| world.link(link));
    for seconds in PATIENCE {
        world.pass(Duration::from_secs(seconds), true);
        if world.agreement().is_ok() {
            return;
        }
    }
    world.agreement().expect("exactly one yields, and all know the other");
}

struct World {
    now: Instant,
    routers: Vec<Router>,
    /// When a process that yields is gone; `None` while it lives.
    gone: [Option<Instant>; 4],
    links: [Option<Link>; LINKS.len()],
    starts: u64,
}

/// Frames on their way to each end of a link.
#[derive(Default)]
struct Link {
    queues: [VecDeque<Vec<u8>>; 2],
}

impl World {
    fn new(tune: u8, clocks: u8) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let now = Instant::now();
        let instance =
            |node: usize| if tune & 1 == 0 { 10 + node as u64 } else { 20 - node as u64 };
        let clock = |node: usize| match node {
            0 => u64::from(clocks & 15),
            3 => u64::from(clocks >> 4),
            _ => 0,
        };
        let routers = (0..NAMES.len())
            .map(|node| boot(node, 1_000 + clock(node), instance(node), now))
            .collect();
        Self { now, routers, gone: [None; 4], links: Default::default(), starts: 100 }
    }

    fn step(&mut self, what: u8, which: usize, how: u8) {
        let link = which % LINKS.len();
        match what % 8 {
            0 | 1 => self.link(link),
            2 => self.unlink(link),
            3 => (0..=how % 8).for_each(|_| _ = self.deliver(link, usize::from(how >> 7))),
            4 => _ = self.deliver_all(),
            5 => {
                let millis = [0, 1, 20, 150, 1_000, 6_000, 65_000, 1_000_000][usize::from(how % 8)];
                self.pass(Duration::from_millis(millis), how & 8 != 0);
            }
            6 => {
                let node = which % NAMES.len();
                self.routers[node].set_capabilities(vec![how; usize::from(how)].into(), self.now);
                self.drain(node);
            }
            _ => self.restart(1 + which % 2),
        }
    }

    fn lives(&self, node: usize) -> bool {
        self.gone[node].is_none_or(|at| self.now < at)
    }

    fn link(&mut self, link: usize) {
        let [one, other] = LINKS[link];
        if self.links[link].is_some() || !self.lives(one) || !self.lives(other) {
            return;
        }
        self.links[link] = Some(Link::default());
        for [node, peer] in [[one, other], [other, one]] {
            let instance = self.routers[peer].version().instance;
            let (neighbour, cost, kind) = (name(peer), Cost::DEFAULT, NeighbourKind::Full);
            let up = SessionUp { neighbour, instance, cost, kind };
            // A process that has yielded accepts no links.
            if self.routers[node].handle_session_up(up, self.now).is_err() {
                assert!(self.gone[node].is_some(), "an honest node is refused");
                self.links[link] = None;
                if node == other {
                    self.routers[one].handle_session_down(&name(other), self.now);
                    self.drain(one);
                }
                return;
            }
            self.drain(node);
        }
    }

    fn unlink(&mut self, link: usize) {
        if self.links[link].take().is_none() {
            return;
        }
        let [one, other] = LINKS[link];
        for [node, peer] in [[one, other], [other, one]] {
            self.routers[node].handle_session_down(&name(peer), self.now);
            self.drain(node);
        }
    }

    /// Another process takes the place of `b` or `c`.
    fn restart(&mut self, node: usize) {
        (0..LINKS.len())
            .filter(|link| LINKS[*link].contains(&node))
            .for_each(|link| self.unlink(link));
        self.starts += 1;
        self.routers[node] = boot(node, 1_000 + self.starts, self.starts, self.now);
        self.drain(node);
    }

    /// Gives an end the next frame, if there is one.
    fn deliver(&mut self, link: usize, end: usize) -> bool {
        let Some(frame) = self.links[link].as_mut().and_then(|link| link.queues[end].pop_front())
        else {
            return false;
        };
        let (node, from) = (LINKS[link][end], LINKS[link][1 - end]);
        let message = Message::decode(&frame).expect("frames are honest").expect("and known");
        let result = self.routers[node].handle_message(&name(from), message, self.now);
        assert!(result.is_ok(), "{} finds {} at fault: {result:?}", NAMES[node], NAMES[from]);
        self.drain(node);
        true
    }

    fn deliver_all(&mut self) -> bool {
        let mut any = false;
        for (link, end) in (0..LINKS.len()).flat_map(|link| [(link, 0), (link, 1)]) {
            let waiting = self.links[link].as_ref().map_or(0, |link| link.queues[end].len());
            for _ in 0..waiting {
                any |= self.deliver(link, end);
            }
            if self.links[link].is_some() {
                let (node, peer) = (LINKS[link][end], LINKS[link][1 - end]);
                self.routers[node].handle_writable(&name(peer), self.now);
                self.drain(node);
            }
        }
        any
    }

    /// Lets time pass, with every deadline in it; `carry`: and all frames delivered.
    fn pass(&mut self, time: Duration, carry: bool) {
        let until = self.now + time;
        for _ in 0..MAX_WAKES {
            for node in [0, 3] {
                if !self.lives(node) {
                    (0..LINKS.len())
                        .filter(|link| LINKS[*link].contains(&node))
                        .for_each(|link| self.unlink(link));
                }
            }
            if carry && self.deliver_all() {
                continue;
            }
            let wakes = (0..NAMES.len())
                .filter(|node| self.lives(*node))
                .filter_map(|node| Some((self.routers[node].poll_timeout()?.at, node)));
            let leaves = self
                .gone
                .into_iter()
                .flatten()
                .filter(|at| *at > self.now)
                .map(|at| (at, NAMES.len()));
            match wakes.chain(leaves).min().filter(|(at, _)| *at <= until) {
                Some((at, node)) => {
                    self.now = self.now.max(at);
                    if node < NAMES.len() {
                        self.routers[node].handle_timeout(self.now);
                        self.drain(node);
                    }
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        let deadlines: Vec<_> = self.routers.iter().map(Router::poll_timeout).collect();
        panic!("no rest in {time:?}: {deadlines:?}");
    }

    /// Acts on what the router reports, and puts what it sends on its way.
    fn drain(&mut self, node: usize) {
        loop {
            let (events, transmits) = drained(&mut self.routers[node]);
            let mut stalled = Vec::new();
            for event in events {
                match event {
                    Event::SyncStalled(neighbour) => stalled.push(neighbour),
                    Event::DuplicateId(duplicate) => {
                        assert!(node == 0 || node == 3, "there is one {}", NAMES[node]);
                        if duplicate.yields && self.gone[node].is_none() {
                            self.gone[node] = Some(self.now + FAREWELL);
                        }
                    }
                    _ => {}
                }
            }
            for transmit in transmits {
                let bytes = transmit.message.encode();
                let (link, end) = place(node, &transmit.to);
                if let Some(link) = &mut self.links[link] {
                    link.queues[1 - end].push_back(bytes);
                }
            }
            if stalled.is_empty() {
                return;
            }
            for neighbour in stalled {
                let (link, _) = place(node, &neighbour);
                self.unlink(link);
            }
        }
    }

    /// One of the two has yielded, the other has not, and all have the record of the other.
    fn agreement(&self) -> Result<(), String> {
        let yielded = [0, 3].map(|node| self.gone[node].is_some());
        if yielded[0] == yielded[1] || self.lives(0) == self.lives(3) {
            return Err(format!("yielded: {yielded:?}"));
        }
        let keeper = if yielded[0] { 3 } else { 0 };
        let version = self.routers[keeper].version();
        for node in [1, 2, keeper] {
            let held = self.routers[node].database().find(|record| record.origin == name(keeper));
            let held = held.map(|record| record.version);
            if held != Some(version) {
                return Err(format!("{} has {held:?} of {version:?}", NAMES[node]));
            }
        }
        Ok(())
    }
}

fn boot(node: usize, clock: u64, instance: u64, now: Instant) -> Router {
    let config = Config {
        transit: node == 1 || node == 2,
        ..Config::new(name(node), clock, instance, instance)
    };
    Router::new(config, now)
}

/// The link, and the end of `node` in it.
fn place(node: usize, other: &NodeId) -> (usize, usize) {
    let found = (0..LINKS.len())
        .flat_map(|link| [(link, 0), (link, 1)])
        .find(|(link, end)| LINKS[*link][*end] == node && name(LINKS[*link][1 - *end]) == *other);
    found.expect("the two are linked")
}

fn name(node: usize) -> NodeId {
    NodeId::try_from(NAMES[node]).expect("a valid name")
}
