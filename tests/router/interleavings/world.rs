//! Routers, and what can happen to each of them next.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{
    Config, Event, FloodMode, Message, NeighbourKind, NeighbourState, Record, Router, SessionUp,
};

use crate::sim::id;

pub(super) struct World {
    now: Instant,
    start: Instant,
    mode: FloodMode,
    nodes: Vec<Node>,
    names: Vec<NodeId>,
    /// What is on its way to a node, by session.
    frames: BTreeMap<(usize, Session), VecDeque<Vec<u8>>>,
    sessions: Session,
    /// How often time may still pass although something else could happen.
    waits: usize,
}

type Session = u64;

struct Node {
    router: Router,
    instance: u64,
    /// How many processes there were before.
    lives: u64,
    capabilities: Bytes,
    /// What the node sees of its sessions with each neighbour, in this order.
    sights: BTreeMap<usize, VecDeque<Sight>>,
    /// The session with each neighbour that is up at this end.
    current: BTreeMap<usize, Session>,
    /// The newest session with each neighbour that has ended at this end.
    ended: BTreeMap<usize, Session>,
    /// What the node itself does, in this order.
    plan: VecDeque<Step>,
}

#[derive(Clone, Copy)]
enum Sight {
    Up { session: Session, instance: u64 },
    Down,
}

/// What a node does by itself.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// It changes its capabilities.
    Change,
    /// Its process is replaced by another one, of an older clock. Its neighbours see the sessions
    /// end before they see new ones, or new ones only.
    Restart { seen: bool },
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// The node takes the next message from another one.
    Take(usize, usize),
    /// The node sees a session with another one come up or end. What was on its way in one that
    /// ended is lost.
    See(usize, usize),
    /// The node goes on with its plan.
    Do(usize),
    /// Time passes to the next deadline, and all else waits.
    Wait,
}

impl Action {
    /// What happens at different nodes at one instant gives the same in either order: a node only
    /// adds to the end of what is on its way to another one.
    pub(super) fn commutes(self, other: Self) -> bool {
        self.node().zip(other.node()).is_some_and(|(a, b)| a != b)
    }

    fn node(self) -> Option<usize> {
        match self {
            Self::Take(node, _) | Self::See(node, _) | Self::Do(node) => Some(node),
            Self::Wait => None,
        }
    }
}

impl World {
    pub(super) fn new(nodes: usize, mode: FloodMode, waits: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let start = Instant::now();
        let names = (0..nodes).map(name).collect();
        let nodes =
            (0..nodes).map(|node| Node::new(node, 0, mode, Bytes::new(), start, start)).collect();
        Self { now: start, start, mode, nodes, names, frames: BTreeMap::new(), sessions: 0, waits }
    }

    /// A session is there. Each end sees it when it is its turn.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        self.sessions += 1;
        for (me, other) in [(a, b), (b, a)] {
            let instance = self.nodes[other].instance;
            self.see_later(me, other, Sight::Up { session: self.sessions, instance });
        }
    }

    /// The session is gone; only the ends that are named see that before they see another one.
    pub(super) fn cut(&mut self, a: usize, b: usize, seen: [bool; 2]) {
        for ((me, other), seen) in [(a, b), (b, a)].into_iter().zip(seen) {
            if seen {
                self.see_later(me, other, Sight::Down);
            }
        }
    }

    pub(super) fn plan(&mut self, node: usize, step: Step) {
        self.nodes[node].plan.push_back(step);
    }

    /// All that can happen now, in a fixed order.
    pub(super) fn enabled(&self) -> Vec<Action> {
        let mut actions: Vec<Action> =
            (0..self.nodes.len()).flat_map(|node| self.enabled_at(node)).collect();
        if !actions.is_empty()
            && self.waits > 0
            && self.next_timeout(Duration::from_secs(2)).is_some()
        {
            actions.push(Action::Wait);
        }
        actions
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Take(node, from) => {
                self.take(node, from);
                self.drain(node);
            }
            Action::See(node, other) => {
                self.see(node, other);
                self.drain(node);
            }
            Action::Do(node) => {
                self.go_on(node);
                self.drain(node);
            }
            Action::Wait => {
                self.waits -= 1;
                self.pass(Duration::from_secs(2));
            }
        }
    }

    /// Time passes to the next deadline, if there is one within this time.
    pub(super) fn pass(&mut self, within: Duration) -> bool {
        let Some(at) = self.next_timeout(within) else { return false };
        self.now = self.now.max(at);
        (0..self.nodes.len()).for_each(|node| self.drain(node));
        true
    }

    /// Plays on for so long, in a fixed order: time passes when there is nothing else.
    pub(super) fn play(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let mut acted = false;
            for node in 0..self.nodes.len() {
                for action in self.enabled_at(node) {
                    // What was on its way may have been lost since.
                    if self.is_enabled(action) {
                        self.act(action);
                        acted = true;
                    }
                }
            }
            if !acted && !self.pass(end.saturating_duration_since(self.now)) {
                break;
            }
        }
        self.now = end;
    }

    /// All nodes hold the same records, each of which is its origin's own and names its links, and
    /// each node reaches all.
    pub(super) fn assert_agreed(&self) {
        let records: Vec<&Record> = self.nodes[0].router.database().collect();
        assert_eq!(records.len(), self.nodes.len());
        for node in &self.nodes {
            let me = node.router.id();
            assert!(node.router.database().eq(records.iter().copied()), "{me} holds other records");
            assert!(
                node.router.neighbours().all(|view| view.state == NeighbourState::Up),
                "links of {me}"
            );
            let own = records.iter().find(|record| record.origin == *me).unwrap();
            assert_eq!(own.version, node.router.version(), "{me}");
            assert_eq!(own.capabilities, node.capabilities, "{me}");
            assert!(
                own.links.iter().map(|link| &link.peer).eq(&node.linked()),
                "{me}: {:?}",
                own.links
            );
            assert_eq!(node.router.table().len(), self.nodes.len() - 1, "{me} reaches all");
        }
    }

    /// Nothing is left of what happened.
    pub(super) fn assert_nothing_waits(&self) {
        for node in &self.nodes {
            let sizes = node.router.sizes();
            let waits =
                [sizes.owed, sizes.pulls, sizes.parked, sizes.unproven, sizes.events, sizes.waves];
            assert_eq!((waits, sizes.flaps), ([0; 6], 0), "{}: {sizes:?}", node.router.id());
            assert_eq!(sizes.sessions, node.current.len());
        }
        assert!(self.frames.values().all(VecDeque::is_empty));
    }

    fn enabled_at(&self, me: usize) -> Vec<Action> {
        let node = &self.nodes[me];
        let sees = node.sights.iter().filter(|(_, sights)| !sights.is_empty());
        let takes = node.current.iter().filter(|(_, session)| {
            self.frames.get(&(me, **session)).is_some_and(|frames| !frames.is_empty())
        });
        let does = (!node.plan.is_empty()).then_some(Action::Do(me));
        sees.map(|(other, _)| Action::See(me, *other))
            .chain(takes.map(|(from, _)| Action::Take(me, *from)))
            .chain(does)
            .collect()
    }

    fn is_enabled(&self, action: Action) -> bool {
        let Action::Take(me, from) = action else { return true };
        let session = self.nodes[me].current.get(&from);
        session
            .and_then(|session| self.frames.get(&(me, *session)))
            .is_some_and(|frames| !frames.is_empty())
    }

    fn next_timeout(&self, within: Duration) -> Option<Instant> {
        let deadlines = self.nodes.iter().filter_map(|node| node.router.poll_timeout());
        deadlines.map(|deadline| deadline.at).min().filter(|at| *at <= self.now + within)
    }

    fn see_later(&mut self, me: usize, other: usize, sight: Sight) {
        self.nodes[me].sights.entry(other).or_default().push_back(sight);
    }

    fn take(&mut self, me: usize, from: usize) {
        let session = self.nodes[me].current[&from];
        let frame = self.frames.get_mut(&(me, session)).and_then(VecDeque::pop_front).unwrap();
        let message = Message::decode(&frame).unwrap().expect("a known type");
        self.nodes[me].router.handle_message(&self.names[from], message, self.now).unwrap();
    }

    fn see(&mut self, me: usize, other: usize) {
        let node = &mut self.nodes[me];
        let sight = node.sights.get_mut(&other).and_then(VecDeque::pop_front).unwrap();
        let old = match sight {
            Sight::Up { session, instance } => {
                let up = SessionUp {
                    neighbour: self.names[other].clone(),
                    instance,
                    cost: Cost::DEFAULT,
                    kind: NeighbourKind::Full,
                };
                node.router.handle_session_up(up, self.now).unwrap();
                node.current.insert(other, session)
            }
            Sight::Down => {
                node.router.handle_session_down(&self.names[other], self.now);
                node.current.remove(&other)
            }
        };
        if let Some(old) = old {
            node.ended.insert(other, old);
            self.frames.remove(&(me, old));
        }
    }

    fn go_on(&mut self, me: usize) {
        match self.nodes[me].plan.pop_front().unwrap() {
            Step::Change => {
                let node = &mut self.nodes[me];
                node.capabilities = b"changed".as_slice().into();
                node.router.set_capabilities(node.capabilities.clone(), self.now);
            }
            Step::Restart { seen } => self.restart(me, seen),
        }
    }

    fn restart(&mut self, me: usize, seen: bool) {
        let mut others: Vec<usize> = self.nodes[me].current.keys().copied().collect();
        others.extend(self.nodes[me].sights.keys());
        others.sort_unstable();
        others.dedup();
        let old = &self.nodes[me];
        let (lives, plan) = (old.lives + 1, old.plan.clone());
        let mut node =
            Node::new(me, lives, self.mode, old.capabilities.clone(), self.start, self.now);
        node.plan = plan;
        node.ended = others.iter().map(|other| (*other, self.sessions)).collect();
        self.nodes[me] = node;
        for other in others {
            if seen {
                self.see_later(other, me, Sight::Down);
            }
            self.connect(me, other);
        }
    }

    /// The drain rule, and all that is due.
    fn drain(&mut self, me: usize) {
        let mut sent = Vec::new();
        let node = &mut self.nodes[me];
        for turn in 0.. {
            assert!(turn < 100, "{} spins: {:?}", name(me), node.router.poll_timeout());
            while let Some(event) = node.router.poll_event() {
                let fault = matches!(
                    event,
                    Event::Violation { .. }
                        | Event::SyncStalled(_)
                        | Event::DuplicateId(_)
                        | Event::LimitHit(_)
                        | Event::AddressCollision { .. }
                );
                assert!(!fault, "{}: {event:?}", node.router.id());
            }
            while let Some(transmit) = node.router.poll_transmit() {
                node.router.handle_writable(&transmit.to, self.now);
                let to = index(&transmit.to);
                let session = node.current[&to];
                sent.push((to, session, transmit.message.encode()));
            }
            if node.router.poll_timeout().is_none_or(|deadline| deadline.at > self.now) {
                break;
            }
            node.router.handle_timeout(self.now);
        }
        for (to, session, frame) in sent {
            // An end that has seen the session end takes nothing from it any more.
            if self.nodes[to].ended.get(&me).is_none_or(|ended| *ended < session) {
                self.frames.entry((to, session)).or_default().push_back(frame);
            }
        }
    }
}

impl Node {
    fn new(
        node: usize,
        lives: u64,
        mode: FloodMode,
        capabilities: Bytes,
        start: Instant,
        now: Instant,
    ) -> Self {
        let instance = node as u64 * 1_000 + lives + 1;
        let clock = 1_800_000_000_000 + (now - start).as_millis() as u64 - lives * 3_600_000;
        let mut config = Config::new(name(node), clock, instance, instance);
        config.flood = mode;
        config.capabilities = capabilities.clone();
        (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000);
        Self {
            router: Router::new(config, now),
            instance,
            lives,
            capabilities,
            sights: BTreeMap::new(),
            current: BTreeMap::new(),
            ended: BTreeMap::new(),
            plan: VecDeque::new(),
        }
    }

    fn linked(&self) -> Vec<NodeId> {
        self.current.keys().map(|other| name(*other)).collect()
    }
}

fn name(node: usize) -> NodeId {
    id(&format!("n{node:04}"))
}

fn index(name: &NodeId) -> usize {
    name.as_str()[1..].parse().unwrap()
}
