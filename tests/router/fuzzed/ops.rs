//! Any bytes as the history of a small mesh: sessions, deliveries, damaged frames, time, changes,
//! restarts.
//!
//! Frames of a session come in order, or not at all. A session is known at each end apart: one end
//! may see it begin or end long before the other. Nothing here is drawn at random, so the same
//! bytes give the same history.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{
    Config, Event, Message, NeighbourKind, NeighbourState, Record, Router, SessionUp,
};

use super::drained::drained;

const NODES: usize = 4;
/// All pairs of nodes; the first ones make a line.
const PAIRS: [[usize; 2]; 6] = [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]];
/// Longer inputs say nothing that shorter ones do not.
const MAX_INPUT: usize = 1024;
/// Time until all nodes agree, in seconds: together 10 minutes.
const PATIENCE: [u64; 4] = [3, 17, 100, 480];
/// Virtual time after which a history waits at most a second at a time.
const LONG_HISTORY: Duration = Duration::from_secs(1_500);
/// A router that wants to be woken more often than this within one step of time spins.
const MAX_WAKES: usize = 20_000;

/// Plays the history, connects all, waits, and asserts that all agree.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(&bytes[..bytes.len().min(MAX_INPUT)]);
    let mut world = World::new(input.next());
    while !input.0.is_empty() {
        world.step(&mut input);
    }
    world.connect_all();
    // Most histories end in agreement within seconds. Playing the rest of the time costs more than
    // all of the history.
    for seconds in PATIENCE {
        world.pass(Duration::from_secs(seconds), true);
        // A node that believes lies of records has nothing to agree on.
        if world.lied || world.agreement().is_ok() {
            return;
        }
    }
    world.agreement().expect("all nodes agree");
}

/// Bytes, then zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }
}

struct World {
    began: Instant,
    now: Instant,
    routers: Vec<Router>,
    starts: u64,
    stubs: [Option<Cost>; NODES],
    sessions: [Session; PAIRS.len()],
    /// A damaged frame was taken for a message.
    lied: bool,
    tune: u8,
}

/// The newest session of a pair. An end that has not seen it may still hold an older one: what it
/// sends is lost.
#[derive(Default)]
struct Session {
    /// Whether it has begun, and not ended.
    live: bool,
    ends: [End; 2],
    /// A damaged frame came over it: the ends may find each other at fault.
    tainted: bool,
}

#[derive(Default)]
struct End {
    /// Whether this end is on this session.
    on: bool,
    /// Whether the router holds this session or an older one.
    up: bool,
    /// What is on its way to this end.
    queue: VecDeque<Frame>,
    /// What it costs to send from here.
    cost: u8,
}

struct Frame {
    bytes: Vec<u8>,
    damaged: bool,
}

impl World {
    fn new(tune: u8) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let now = Instant::now();
        let mut world = Self {
            began: now,
            now,
            routers: Vec::new(),
            starts: 0,
            stubs: [None; NODES],
            sessions: Default::default(),
            lied: false,
            tune,
        };
        for node in 0..NODES {
            let router = world.boot(node, 0);
            world.routers.push(router);
        }
        world
    }

    fn boot(&mut self, node: usize, clock: u64) -> Router {
        self.starts += 1;
        let mut config = Config::new(name(node), 1_000 + clock, self.starts, self.starts);
        if self.tune & 1 != 0 {
            // Changes in place of records wherever possible.
            (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000);
        }
        if self.tune & 2 != 0 {
            config.limits.whole_summary = 1;
        }
        if self.tune & 4 != 0 {
            config.limits.window_messages = 1;
        }
        if self.tune & 8 != 0 {
            config.timers.withhold = Duration::from_millis(1_500);
            config.timers.delete = Duration::from_secs(4);
            config.timers.tombstone = Duration::from_millis(1_500);
        }
        Router::new(config, self.now)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0 | 1 => {
                let (pair, how) = (input.below(PAIRS.len()), input.next());
                self.begin(pair, how);
            }
            2 => {
                let (pair, end) = (input.below(PAIRS.len()), input.below(2));
                self.see(pair, end);
            }
            3 => {
                let (pair, seen) = (input.below(PAIRS.len()), input.below(4));
                self.end(pair, [seen & 1 == 0, seen & 2 == 0]);
            }
            4..=6 => {
                let (pair, end, count) =
                    (input.below(PAIRS.len()), input.below(2), 1 + input.below(8));
                (0..count).for_each(|_| _ = self.deliver(pair, end));
            }
            7 => _ = self.deliver_all(),
            8 => {
                let (pair, end) = (input.below(PAIRS.len()), input.below(2));
                self.writable(pair, end);
            }
            9 | 10 => {
                let time = [0, 1, 20, 150, 1_000, 6_000, 65_000, 1_000_000][input.below(8)];
                let carry = input.below(2) == 1;
                // Hours of refreshes say nothing that one of them does not, and take most of the
                // time.
                let long = self.now.duration_since(self.began) > LONG_HISTORY;
                self.pass(Duration::from_millis(if long { time.min(1_000) } else { time }), carry);
            }
            11 => {
                let (pair, end, cost) = (input.below(PAIRS.len()), input.below(2), input.next());
                self.sessions[pair].ends[end].cost = cost;
                let [from, to] = ends(pair, end);
                self.routers[from].set_cost(&name(to), costs(cost), self.now);
                self.drain(from);
            }
            12 => {
                let (node, what) = (input.below(NODES), input.next());
                match what & 1 {
                    0 => self.routers[node]
                        .set_capabilities(vec![what; usize::from(what)].into(), self.now),
                    _ => self.routers[node].set_transit(what & 2 == 0, self.now),
                }
                self.drain(node);
            }
            13 => {
                let (node, clock, seen) = (input.below(NODES), input.next(), input.next());
                self.restart(node, u64::from(clock), seen);
            }
            14 => {
                let (pair, end) = (input.below(PAIRS.len()), input.below(2));
                let (at, by) = (input.below(256), input.next());
                self.damage(pair, end, at, by);
            }
            _ => {
                let (node, cost) = (input.below(NODES), input.next());
                self.stub(node, (cost != 0).then(|| costs(cost)));
            }
        }
    }

    /// A new session, in place of what there was. Each end may see it later.
    fn begin(&mut self, pair: usize, how: u8) {
        let old = std::mem::take(&mut self.sessions[pair]);
        let session = &mut self.sessions[pair];
        session.live = true;
        for (end, old) in session.ends.iter_mut().zip(old.ends) {
            (end.up, end.cost) = (old.up, how >> 2);
        }
        (0..2).filter(|end| how & (1 << end) == 0).for_each(|end| self.see(pair, end));
    }

    /// An end sees what became of the session.
    fn see(&mut self, pair: usize, end: usize) {
        let [node, other] = ends(pair, end);
        let session = &mut self.sessions[pair];
        let (live, here) = (session.live, &mut session.ends[end]);
        if live && !here.on {
            (here.on, here.up) = (true, true);
            let up = SessionUp {
                neighbour: name(other),
                instance: self.routers[other].version().instance,
                cost: costs(here.cost),
                kind: NeighbourKind::Full,
            };
            self.routers[node]
                .handle_session_up(up, self.now)
                .expect("honest nodes link to each other");
        } else if !live && here.up {
            *here = End::default();
            self.routers[node].handle_session_down(&name(other), self.now);
        }
        self.drain(node);
    }

    /// The session ends. An end that does not see it yet may still get what is on its way.
    fn end(&mut self, pair: usize, seen: [bool; 2]) {
        self.sessions[pair].live = false;
        (0..2).filter(|end| seen[*end]).for_each(|end| self.see(pair, end));
    }

    /// Another process of the same name: the old one's sessions are gone with it.
    fn restart(&mut self, node: usize, clock: u64, seen: u8) {
        self.routers[node] = self.boot(node, clock);
        for (pair, ends) in PAIRS.iter().enumerate() {
            let Some(end) = ends.iter().position(|other| *other == node) else { continue };
            self.sessions[pair].live = false;
            self.sessions[pair].ends[end] = End::default();
            if seen & (1 << pair) == 0 {
                self.see(pair, 1 - end);
            }
        }
        self.drain(node);
        let stub = self.stubs[node].take();
        self.stub(node, stub);
    }

    fn stub(&mut self, node: usize, cost: Option<Cost>) {
        let (neighbour, instance) = (stub_name(node), 1_000_000);
        self.stubs[node] = cost;
        match cost {
            Some(cost) => {
                let up = SessionUp { neighbour, instance, cost, kind: NeighbourKind::Stub };
                self.routers[node].handle_session_up(up, self.now).expect("a stub is taken");
            }
            None => self.routers[node].handle_session_down(&neighbour, self.now),
        }
        self.drain(node);
    }

    /// Changes a byte of the first frame on its way to this end.
    fn damage(&mut self, pair: usize, end: usize, at: usize, by: u8) {
        let Some(frame) = self.sessions[pair].ends[end].queue.front_mut() else { return };
        if by == 0 {
            frame.bytes.truncate(at % frame.bytes.len().max(1));
        } else if let Some(byte) = frame.bytes.get_mut(at) {
            *byte ^= by;
        } else {
            frame.bytes.push(by);
        }
        frame.damaged = true;
    }

    /// Hands an end the next frame, if there is one and the end is there to take it.
    fn deliver(&mut self, pair: usize, end: usize) -> bool {
        let [node, other] = ends(pair, end);
        let session = &mut self.sessions[pair];
        if !session.ends[end].on {
            return false;
        }
        let Some(frame) = session.ends[end].queue.pop_front() else { return false };
        session.tainted |= frame.damaged;
        let message = match Message::decode(&frame.bytes) {
            Ok(Some(message)) => message,
            Ok(None) if frame.damaged => return true,
            Err(_) if frame.damaged => {
                self.end(pair, [true; 2]);
                return true;
            }
            refused => panic!("{} to {}: {refused:?}", name(other), name(node)),
        };
        self.lied |= frame.damaged;
        let tainted = session.tainted;
        let result = self.routers[node].handle_message(&name(other), message, self.now);
        self.drain(node);
        if let Err(error) = result {
            assert!(tainted, "{} finds {} at fault: {error}", name(node), name(other));
            self.end(pair, [true; 2]);
        }
        true
    }

    fn deliver_all(&mut self) -> bool {
        let mut any = false;
        for (pair, end) in (0..PAIRS.len()).flat_map(|pair| [(pair, 0), (pair, 1)]) {
            // What is sent meanwhile waits for the next round.
            for _ in 0..self.sessions[pair].ends[end].queue.len() {
                any |= self.deliver(pair, end);
            }
            self.writable(pair, end);
        }
        any
    }

    fn writable(&mut self, pair: usize, end: usize) {
        let [node, other] = ends(pair, end);
        if self.sessions[pair].ends[end].on {
            self.routers[node].handle_writable(&name(other), self.now);
            self.drain(node);
        }
    }

    /// Lets time pass, with every deadline in it; `carry`: and all frames delivered.
    fn pass(&mut self, time: Duration, carry: bool) {
        let until = self.now + time;
        for _ in 0..MAX_WAKES {
            if carry && self.deliver_all() {
                continue;
            }
            let deadlines = self.routers.iter().enumerate().filter_map(|(node, router)| {
                router.poll_timeout().map(|deadline| (deadline.at, node))
            });
            match deadlines.min().filter(|(at, _)| *at <= until) {
                Some((at, node)) => {
                    self.now = self.now.max(at);
                    self.routers[node].handle_timeout(self.now);
                    self.drain(node);
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
                    Event::DuplicateId(_) => assert!(self.lied, "{event:?}"),
                    _ => {}
                }
            }
            for transmit in transmits {
                let bytes = transmit.message.encode();
                assert!(bytes.len() <= Message::max_len(transmit.message.frame_type()));
                let (pair, end) = place(node, &transmit.to);
                let session = &mut self.sessions[pair];
                assert!(session.ends[end].up, "a message for one who is not there");
                if session.live && session.ends[end].on {
                    session.ends[1 - end].queue.push_back(Frame { bytes, damaged: false });
                }
            }
            if stalled.is_empty() {
                return;
            }
            for neighbour in stalled {
                let (pair, end) = place(node, &neighbour);
                self.sessions[pair].live = false;
                self.sessions[pair].ends[end] = End::default();
                self.routers[node].handle_session_down(&neighbour, self.now);
            }
        }
    }

    /// Every session is seen as it is by both ends, and a line links all.
    fn connect_all(&mut self) {
        for pair in 0..PAIRS.len() {
            let damaged = self.sessions[pair]
                .ends
                .iter()
                .flat_map(|end| &end.queue)
                .any(|frame| frame.damaged);
            if damaged || self.sessions[pair].tainted {
                self.end(pair, [true; 2]);
            }
            (0..2).for_each(|end| self.see(pair, end));
            if pair < NODES - 1 && !self.sessions[pair].live {
                self.begin(pair, 0);
            }
        }
        for node in 0..NODES {
            self.routers[node].set_transit(true, self.now);
            self.drain(node);
        }
    }

    /// All hold the same records, and each reaches all the others and their stubs; or what is
    /// missing.
    fn agreement(&self) -> Result<(), String> {
        let database = |router: &Router| -> Vec<Record> {
            let here = |record: &&Record| (0..NODES).any(|node| name(node) == record.origin);
            router.database().filter(here).cloned().collect()
        };
        let first = database(&self.routers[0]);
        must(first.len() == NODES, || format!("{} records", first.len()))?;
        for (at, router) in self.routers.iter().enumerate() {
            must(database(router) == first, || {
                format!("{} has other records than {}", name(at), name(0))
            })?;
            let own = first.iter().find(|record| record.origin == name(at));
            let current = own.map(|record| record.version) == Some(router.version());
            must(current, || format!("the record of {} is not its own newest", name(at)))?;
            for view in router.neighbours() {
                let idle = (view.state, view.backlog) == (NeighbourState::Up, 0);
                must(idle, || {
                    format!("{} to {}: {:?}, {}", name(at), view.id, view.state, view.backlog)
                })?;
            }
            let table = router.table();
            for node in 0..NODES {
                let reached = node == at || table.route(&name(node)).is_some();
                must(reached, || format!("{} from {}", name(node), name(at)))?;
                let attached =
                    table.route(&stub_name(node)).is_some() == self.stubs[node].is_some();
                must(attached, || format!("stub of {} from {}", name(node), name(at)))?;
            }
        }
        Ok(())
    }
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// This end's node, then the other's.
fn ends(pair: usize, end: usize) -> [usize; 2] {
    [PAIRS[pair][end], PAIRS[pair][1 - end]]
}

/// The pair, and the end of `node` in it.
fn place(node: usize, other: &NodeId) -> (usize, usize) {
    let found = (0..PAIRS.len()).flat_map(|pair| [(pair, 0), (pair, 1)]).find(|(pair, end)| {
        let [from, to] = ends(*pair, *end);
        from == node && name(to) == *other
    });
    found.expect("every two nodes are a pair")
}

fn costs(byte: u8) -> Cost {
    Cost::try_from(1 + u32::from(byte)).expect("a cost from 1 to 256")
}

fn name(node: usize) -> NodeId {
    NodeId::try_from(["a", "b", "c", "d"][node]).expect("a valid name")
}

fn stub_name(node: usize) -> NodeId {
    NodeId::try_from(["s-a", "s-b", "s-c", "s-d"][node]).expect("a valid name")
}
