//! A deterministic discrete-event world of routers.
//!
//! Sessions are ordered, with random latency; what is in flight when one ends is lost, and its two
//! ends may see the end at different times. Every message passes through its bytes. The same seed
//! gives the same world.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::id::Version;
use receptor_quic::router::{
    Config, DeadlineReason, Entry, Event, FloodMode, Message, NeighbourKind, NeighbourState,
    Record, Router, SessionError, SessionUp, Stamp,
};

use crate::converge::Waves;
use crate::notary::{LIFE, Plain};
use crate::rng::Rng;

mod faults;
mod journal;

pub(crate) use faults::Epoch;
use faults::Rough;
use journal::Journal;

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::try_from(name).unwrap()
}

thread_local! {
    static FLOOD: Cell<FloodMode> = const { Cell::new(FloodMode::Tree) };
}

/// Runs a test in every mode of flooding.
pub(crate) fn in_both_modes(test: impl Fn()) {
    for mode in [FloodMode::Full, FloodMode::Tree] {
        FLOOD.set(mode);
        let _mode = PrintMode(mode);
        test();
    }
}

/// Tells which mode failed.
struct PrintMode(FloodMode);

impl Drop for PrintMode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with flood mode {:?}", self.0);
        }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) payloads: u64,
    /// How many of the payloads were changes.
    pub(crate) deltas: u64,
    pub(crate) ids: u64,
    pub(crate) wants: u64,
    pub(crate) echoes: u64,
    pub(crate) bytes: u64,
}

/// Changes a configuration by draws.
type Vary = Box<dyn Fn(&mut Config, &mut Rng)>;

pub(crate) struct Sim {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) rng: Rng,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    actions: BTreeMap<(Instant, u64), Action>,
    counter: u64,
    trace: u64,
    pub(crate) messages: u64,
    pub(crate) sent: Sent,
    /// Bytes that each node was sent.
    pub(crate) received: BTreeMap<NodeId, u64>,
    /// Exchanges payloads and ids at random on the wire, where that is legal.
    pub(crate) random_eager: bool,
    /// What was asked for: it comes in full.
    wanted: BTreeSet<(NodeId, NodeId, NodeId)>,
    wire: Rng,
    flood: FloodMode,
    pub(crate) tune: fn(&mut Config),
    /// What else the configuration of a node differs in, drawn anew at each start.
    pub(crate) vary: Option<Vary>,
    /// How the embedder treats what is left of sessions that have ended.
    pub(crate) embedder: Embedder,
    journal: Option<Journal>,
    /// Latency of a message, in milliseconds.
    pub(crate) latency: (u64, u64),
    /// How long a stream needs to take a window, in milliseconds.
    pub(crate) drain: (u64, u64),
    pub(crate) events: Vec<(NodeId, Event)>,
    pub(crate) waves: Waves,
}

pub(crate) struct Node {
    /// The id on the wire: the node's name here, but for a twin.
    pub(crate) id: NodeId,
    pub(crate) router: Router,
    pub(crate) alive: bool,
    pub(crate) capabilities: Vec<u8>,
    pub(crate) transit: bool,
    pub(crate) stubs: BTreeMap<NodeId, Cost>,
    /// Whether it has a notary, and its stubs prove themselves.
    pub(crate) signed: bool,
    /// The newest epoch that the node remembers, if it remembers any.
    epoch: u64,
    /// The connection that carries the session with each neighbour.
    current: BTreeMap<NodeId, u64>,
    wake: Option<Instant>,
    last_wakes: (Option<Instant>, u32),
    stamps: BTreeMap<NodeId, Stamp>,
    writes: u64,
    reachable: BTreeSet<NodeId>,
}

pub(crate) struct Connection {
    pub(crate) ends: [NodeId; 2],
    pub(crate) costs: [u32; 2],
    /// The instances of the processes at both ends: a connection does not outlive either.
    instances: [u64; 2],
    pub(crate) broken: bool,
    rough: Rough,
    up_at: [Instant; 2],
    busy_until: [Instant; 2],
    /// Whether an end has been given messages that its stream has not taken yet.
    filling: [bool; 2],
}

enum Action {
    Up(u64, usize),
    Down(u64, usize),
    Deliver(u64, usize, Vec<u8>),
    Writable(u64, usize),
    Wake(NodeId),
    /// The connection ends now, unless it has ended before.
    Break(u64, Seen),
    /// The two nodes connect again, if both live and are not connected.
    Redial([NodeId; 2], [u32; 2]),
    /// A process that yielded its id ends its sessions.
    Quit(NodeId),
}

/// How the embedder treats what comes late from a session that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Embedder {
    /// What is in flight when a session ends is lost.
    #[default]
    Loses,
    /// It still comes to an end that has not seen the session end, and is dropped otherwise: what
    /// the router asks for.
    Drops,
    /// It comes even to an end that has a newer session by now, some of it twice: what the router
    /// asks not to do.
    Sloppy,
}

/// When the two ends of a session see that it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Now,
    /// Milliseconds later, each end at its own time.
    Within(u64),
    /// One end at once, the other after so many milliseconds.
    OneSided(u64),
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self::flooding(seed, FLOOD.get())
    }

    pub(crate) fn flooding(seed: u64, flood: FloodMode) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let start = Instant::now();
        Self {
            now: start,
            start,
            rng: Rng::new(seed),
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
            actions: BTreeMap::new(),
            counter: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            messages: 0,
            sent: Sent::default(),
            received: BTreeMap::new(),
            random_eager: false,
            wanted: BTreeSet::new(),
            wire: Rng::new(seed.rotate_left(32)),
            flood,
            tune: |_| {},
            vary: None,
            embedder: Embedder::default(),
            journal: None,
            latency: (1, 40),
            drain: (0, 5),
            events: Vec::new(),
            waves: Waves::default(),
        }
    }

    /// Starts the process of a node, the first or another one. Its clock is off by so many
    /// milliseconds.
    pub(crate) fn boot(&mut self, name: &str, clock: i64) {
        self.boot_with(name, Epoch::Clock(clock));
    }

    pub(crate) fn boot_with(&mut self, name: &str, epoch: Epoch) {
        self.boot_at(name, name, epoch);
    }

    /// As [`boot`](Self::boot), for a process that uses another one's id on the wire.
    pub(crate) fn boot_as(&mut self, name: &str, wire: &str, clock: i64) {
        self.boot_at(name, wire, Epoch::Clock(clock));
    }

    fn boot_at(&mut self, name: &str, wire: &str, epoch: Epoch) {
        let epoch = self.epoch_of(&id(name), epoch);
        let instance = self.rng.next();
        let (capabilities, transit, stubs) = match self.nodes.get(&id(name)) {
            Some(old) => (old.capabilities.clone(), old.transit, old.stubs.clone()),
            None => (Vec::new(), true, BTreeMap::new()),
        };
        let mut config = Config::new(id(wire), epoch, instance, self.rng.next());
        config.capabilities = capabilities.clone().into();
        config.transit = transit;
        config.flood = self.flood;
        (self.tune)(&mut config);
        if let Some(vary) = &self.vary {
            vary(&mut config, &mut self.rng);
        }
        let signed = config.notary.is_some();
        let mut router = Router::new(config, self.now);
        router.set_place(name);
        let node = Node {
            id: id(wire),
            router,
            alive: true,
            capabilities,
            transit,
            stubs: BTreeMap::new(),
            signed,
            epoch,
            current: BTreeMap::new(),
            wake: None,
            last_wakes: (None, 0),
            stamps: BTreeMap::new(),
            writes: 0,
            reachable: BTreeSet::new(),
        };
        self.nodes.insert(id(name), node);
        self.drain(&id(name));
        for (stub, cost) in stubs {
            self.attach(&id(name), stub, cost);
        }
    }

    pub(crate) fn boot_all(&mut self, names: impl IntoIterator<Item = String>) {
        names.into_iter().for_each(|name| self.boot(&name, 0));
    }

    pub(crate) fn connect(&mut self, a: &str, b: &str) -> u64 {
        self.connect_cost(a, b, 1, 1)
    }

    /// Brings up a session. Each end sees it at its own time; one that is up already is replaced.
    pub(crate) fn connect_cost(&mut self, a: &str, b: &str, cost_a: u32, cost_b: u32) -> u64 {
        let number = self.next_number();
        let ends = [id(a), id(b)];
        let instances = [self.instance(&ends[0]), self.instance(&ends[1])];
        let up_at = [0, 1].map(|_| self.now + self.rng.millis(0, 20));
        let costs = [cost_a, cost_b];
        // An end that never sees the new session up sees the old one end, some time.
        self.cut(&ends[0], &ends[1], Seen::Within(5_000));
        let connection = Connection {
            ends,
            costs,
            instances,
            broken: false,
            rough: Rough::new(self.now),
            up_at,
            busy_until: up_at,
            filling: [false; 2],
        };
        self.connections.insert(number, connection);
        (0..2).for_each(|end| self.schedule(up_at[end], Action::Up(number, end)));
        number
    }

    /// Ends the session between two nodes, if there is one.
    pub(crate) fn cut(&mut self, a: &NodeId, b: &NodeId, seen: Seen) {
        let numbers = self.connections.iter().filter(|(_, c)| !c.broken && c.joins(a, b));
        for number in numbers.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.break_connection(number, seen);
        }
    }

    /// The process is gone at once.
    pub(crate) fn kill(&mut self, name: &NodeId, seen: Seen) {
        self.nodes.get_mut(name).unwrap().alive = false;
        for number in self.connections_of(name) {
            self.break_connection(number, seen);
        }
    }

    /// Another process with the same id, which remembers nothing and connects as before. The
    /// neighbours may still hold the old sessions when the new ones come up.
    pub(crate) fn restart(&mut self, name: &NodeId, clock: i64, seen: Seen) {
        self.restart_with(name, Epoch::Clock(clock), seen);
    }

    pub(crate) fn restart_with(&mut self, name: &NodeId, epoch: Epoch, seen: Seen) {
        let old: Vec<([NodeId; 2], [u32; 2])> = self
            .connections_of(name)
            .into_iter()
            .map(|number| (self.connections[&number].ends.clone(), self.connections[&number].costs))
            .collect();
        self.kill(name, seen);
        self.boot_with(name.as_str(), epoch);
        for (ends, costs) in old {
            self.connect_cost(ends[0].as_str(), ends[1].as_str(), costs[0], costs[1]);
        }
    }

    /// Cuts every session between the nodes that `side` takes and the others. Gives what heals it.
    pub(crate) fn partition(
        &mut self,
        side: impl Fn(&NodeId) -> bool,
        seen: Seen,
    ) -> Vec<([NodeId; 2], [u32; 2])> {
        let crossing = self
            .connections
            .iter()
            .filter(|(_, c)| !c.broken && side(&c.ends[0]) != side(&c.ends[1]));
        let numbers: Vec<u64> = crossing.map(|(number, _)| *number).collect();
        let mut cut = Vec::new();
        for number in numbers {
            cut.push((self.connections[&number].ends.clone(), self.connections[&number].costs));
            self.break_connection(number, seen);
        }
        cut
    }

    pub(crate) fn heal(&mut self, cut: Vec<([NodeId; 2], [u32; 2])>) {
        for (ends, costs) in cut {
            if ends.iter().all(|end| self.nodes[end].alive) && !self.linked(&ends[0], &ends[1]) {
                self.connect_cost(ends[0].as_str(), ends[1].as_str(), costs[0], costs[1]);
            }
        }
    }

    pub(crate) fn attach(&mut self, owner: &NodeId, stub: NodeId, cost: Cost) {
        let instance = self.rng.next();
        let node = self.nodes.get_mut(owner).unwrap();
        node.stubs.insert(stub.clone(), cost);
        let up = SessionUp { neighbour: stub.clone(), instance, cost, kind: NeighbourKind::Stub };
        node.router.handle_session_up(up, self.now).unwrap();
        if node.signed {
            let epoch = (self.now - self.start).as_millis() as u64;
            let version = Version { epoch, sequence: 0, instance };
            let attachment = Plain::of(&stub.base()).attach(&stub, &node.id, version);
            // The stub would renew it in time. What other nodes know of it expires all the same.
            assert!(node.router.set_attachment(attachment, 1_000 * LIFE, self.now));
        }
        self.drain(owner);
    }

    pub(crate) fn detach(&mut self, owner: &NodeId, stub: &NodeId) {
        let node = self.nodes.get_mut(owner).unwrap();
        node.stubs.remove(stub);
        node.router.handle_session_down(stub, self.now);
        self.drain(owner);
    }

    /// Leaves in order: the sessions end when the last record had time to go out.
    pub(crate) fn leave(&mut self, name: &NodeId) {
        let now = self.now;
        self.command(name, |router| router.leave(now));
        self.run_for(Duration::from_millis(200));
        self.kill(name, Seen::Now);
    }

    /// Calls a process by its id on the wire, in place of one that is gone. Only to be looked at
    /// after that.
    pub(crate) fn rename(&mut self, name: &NodeId) {
        let node = self.nodes.remove(name).unwrap();
        let wire = node.id.clone();
        self.nodes.insert(wire.clone(), node);
        for connection in self.connections.values_mut().filter(|connection| !connection.broken) {
            for end in connection.ends.iter_mut().filter(|end| *end == name) {
                *end = wire.clone();
            }
        }
    }

    /// A command, and what follows from it.
    pub(crate) fn command(&mut self, name: &NodeId, command: impl FnOnce(&mut Router)) {
        command(&mut self.nodes.get_mut(name).unwrap().router);
        self.drain(name);
    }

    pub(crate) fn router(&self, name: &str) -> &Router {
        &self.nodes[&id(name)].router
    }

    pub(crate) fn linked(&self, a: &NodeId, b: &NodeId) -> bool {
        self.connections.values().any(|c| !c.broken && c.joins(a, b))
    }

    pub(crate) fn living(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(id, _)| id.clone()).collect()
    }

    /// A hash of all that was sent, to whom, and when.
    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.actions.first_entry()
            && entry.key().0 <= end
        {
            let ((at, number), action) = entry.remove_entry();
            self.now = at;
            self.act(number, action);
        }
        self.now = end;
    }

    /// Long enough for every hold, limiter and quiet comparison to end, short of the deletion of
    /// what is gone.
    pub(crate) fn settle(&mut self) {
        self.run_for(Duration::from_secs(200));
    }

    fn act(&mut self, scheduled: u64, action: Action) {
        self.note(|| journal::describe(&action));
        match action {
            Action::Up(number, end) => self.on_up(number, end),
            Action::Down(number, end) => self.on_down(number, end),
            Action::Deliver(number, end, frame) => self.on_deliver(scheduled, number, end, &frame),
            Action::Writable(number, end) => self.on_writable(number, end),
            Action::Wake(name) => self.on_wake(&name),
            Action::Break(number, seen) if !self.connections[&number].broken => {
                self.break_connection(number, seen);
            }
            Action::Break(..) => {}
            Action::Redial(ends, costs) => self.heal(vec![(ends, costs)]),
            Action::Quit(name) => self.kill(&name, Seen::Within(300)),
        }
    }

    fn on_up(&mut self, number: u64, end: usize) {
        let connection = &self.connections[&number];
        let (me, other) = (connection.ends[end].clone(), connection.ends[1 - end].clone());
        // A connection that broke before this end saw it up never was for it.
        if connection.broken || !self.runs(number, end) {
            return;
        }
        let other = self.nodes[&other].id.clone();
        let up = SessionUp {
            neighbour: other.clone(),
            instance: connection.instances[1 - end],
            cost: Cost::try_from(connection.costs[end]).unwrap(),
            kind: NeighbourKind::Full,
        };
        let node = self.nodes.get_mut(&me).unwrap();
        match node.router.handle_session_up(up, self.now) {
            Ok(()) => {
                node.current.insert(other, number);
            }
            Err(SessionError::Leaving | SessionError::Yielded) => {
                self.break_connection(number, Seen::Now)
            }
            Err(error) => panic!("{me} refuses {other}: {error}"),
        }
        self.drain(&me);
    }

    fn on_down(&mut self, number: u64, end: usize) {
        let connection = &self.connections[&number];
        let (me, other) = (connection.ends[end].clone(), connection.ends[1 - end].clone());
        if !self.runs(number, end) || !self.is_current(number, end) {
            return;
        }
        let other = self.nodes[&other].id.clone();
        let node = self.nodes.get_mut(&me).unwrap();
        node.current.remove(&other);
        node.router.handle_session_down(&other, self.now);
        self.drain(&me);
    }

    fn on_deliver(&mut self, scheduled: u64, number: u64, end: usize, frame: &[u8]) {
        if !self.takes(scheduled, number, end) {
            return;
        }
        let connection = &self.connections[&number];
        let (me, other) = (connection.ends[end].clone(), connection.ends[1 - end].clone());
        let other = self.nodes[&other].id.clone();
        let message = Message::decode(frame).unwrap().expect("a known type");
        assert!(frame.len() <= Message::max_len(message.frame_type()));
        let node = self.nodes.get_mut(&me).unwrap();
        let result = node.router.handle_message(&other, message, self.now);
        self.on_result(number, end, result);
        self.drain(&me);
    }

    fn on_writable(&mut self, number: u64, end: usize) {
        self.connections.get_mut(&number).unwrap().filling[end] = false;
        let connection = &self.connections[&number];
        if connection.broken || !self.runs(number, end) || !self.is_current(number, end) {
            return;
        }
        let (me, other) = (connection.ends[end].clone(), connection.ends[1 - end].clone());
        let other = self.nodes[&other].id.clone();
        self.nodes.get_mut(&me).unwrap().router.handle_writable(&other, self.now);
        self.drain(&me);
    }

    fn on_wake(&mut self, name: &NodeId) {
        let node = self.nodes.get_mut(name).unwrap();
        if !node.alive || node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        node.last_wakes = if node.last_wakes.0 == Some(self.now) {
            (Some(self.now), node.last_wakes.1 + 1)
        } else {
            (Some(self.now), 0)
        };
        assert!(node.last_wakes.1 < 100, "{name} spins: {:?}", node.router.poll_timeout());
        node.router.handle_timeout(self.now);
        self.drain(name);
    }

    /// The drain rule, and what must hold at every step.
    fn drain(&mut self, name: &NodeId) {
        let node = self.nodes.get_mut(name).unwrap();
        if !node.alive {
            return;
        }
        let mut transmits = Vec::new();
        while let Some(transmit) = node.router.poll_transmit() {
            transmits.push(transmit);
        }
        self.waves.look(&node.router, self.now);
        let (mut changed, mut quits) = (false, false);
        let mut stalled = Vec::new();
        while let Some(event) = node.router.poll_event() {
            match &event {
                Event::SyncStalled(neighbour) => stalled.push(neighbour.clone()),
                Event::TableChanged => changed = true,
                Event::NodeReachable(id) => assert!(node.reachable.insert(id.clone())),
                Event::NodeUnreachable(id) => assert!(node.reachable.remove(id)),
                Event::DuplicateId(duplicate) if duplicate.yields => {
                    quits = true;
                    self.events.push((name.clone(), event));
                }
                _ => {
                    self.waves.check(&node.router, &event);
                    self.events.push((name.clone(), event));
                }
            }
        }
        if changed {
            node.check_table();
        }
        node.check_versions();
        if quits {
            self.schedule(self.now + Duration::from_secs(1), Action::Quit(name.clone()));
        }
        let node = self.nodes.get_mut(name).unwrap();
        let deadline = node.router.poll_timeout();
        assert!(deadline.is_none_or(|deadline| deadline.reason != DeadlineReason::Output));
        let wake = deadline.map(|deadline| deadline.at.max(self.now));
        if let Some(at) = wake.filter(|_| wake != node.wake) {
            node.wake = Some(at);
            self.schedule(at, Action::Wake(name.clone()));
        } else {
            node.wake = wake;
        }
        for transmit in transmits {
            self.note(|| journal::sends(name, &transmit));
            for message in self.exchange(name, &transmit.to, transmit.message) {
                self.transmit(name, &transmit.to, &message);
            }
        }
        stalled.iter().for_each(|neighbour| self.on_stalled(name, neighbour));
    }

    /// Another choice of who gets payloads: any is right. Only what was asked for must come in
    /// full.
    fn exchange(&mut self, from: &NodeId, to: &NodeId, message: Message) -> Vec<Message> {
        if !self.random_eager {
            return vec![message];
        }
        match message {
            Message::Update(advertisement) => {
                let record = Record::decode(&advertisement).unwrap();
                let asked = self.wanted.remove(&(to.clone(), from.clone(), record.origin.clone()));
                let entry = Entry { origin: record.origin.clone(), stamp: record.stamp() };
                let as_id = !asked && self.wire.chance(50);
                vec![if as_id {
                    Message::Have(vec![entry])
                } else {
                    Message::Update(advertisement)
                }]
            }
            Message::Delta(delta) => {
                let entry = Entry { origin: delta.origin.clone(), stamp: delta.stamp() };
                vec![if self.wire.chance(50) {
                    Message::Have(vec![entry])
                } else {
                    Message::Delta(delta)
                }]
            }
            Message::Have(entries) => {
                let router = &self.nodes[from].router;
                let wire = &mut self.wire;
                let exchanged = entries.into_iter().map(|entry| {
                    let held = router
                        .database()
                        .find(|r| r.origin == entry.origin && r.stamp() == entry.stamp);
                    match held.filter(|_| wire.chance(50)) {
                        Some(record) => Message::Update(record.advertisement().clone()),
                        None => Message::Have(vec![entry]),
                    }
                });
                exchanged.collect()
            }
            Message::Want(origins) => {
                let asked = |origin: &NodeId| (from.clone(), to.clone(), origin.clone());
                self.wanted.extend(origins.iter().map(asked));
                vec![Message::Want(origins)]
            }
            other => vec![other],
        }
    }

    fn transmit(&mut self, from: &NodeId, to: &NodeId, message: &Message) {
        let number = self.nodes[from].current[to];
        let frame = message.encode();
        self.messages += 1;
        self.sent.bytes += frame.len() as u64;
        *self.received.entry(to.clone()).or_default() += frame.len() as u64;
        match message {
            Message::Update(_) => self.sent.payloads += 1,
            Message::Delta(_) => {
                self.sent.payloads += 1;
                self.sent.deltas += 1;
            }
            Message::Have(entries) | Message::Offer(entries) => {
                self.sent.ids += entries.len() as u64
            }
            Message::Want(origins) => self.sent.wants += origins.len() as u64,
            Message::Echo(_) => self.sent.echoes += 1,
            _ => {}
        }
        let time = (self.now - self.start).as_nanos() as u64;
        for byte in time
            .to_be_bytes()
            .iter()
            .chain(from.as_str().as_bytes())
            .chain(to.as_str().as_bytes())
            .chain(&frame)
        {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        let latency = self.wire.millis(self.latency.0, self.latency.1);
        let slow = self.connections[&number].rough.drain.unwrap_or(self.drain);
        let drain = self.wire.millis(slow.0, slow.1);
        let now = self.now;
        let connection = self.connections.get_mut(&number).unwrap();
        let end = usize::from(connection.ends[0] == *from);
        let free = connection.busy_until[end].max(connection.rough.stalled_until[end]);
        let at = (now + latency).max(free).max(connection.up_at[end]);
        connection.busy_until[end] = at;
        let fills = !std::mem::replace(&mut connection.filling[1 - end], true);
        self.schedule(at, Action::Deliver(number, end, frame));
        if fills {
            self.schedule(now + drain, Action::Writable(number, 1 - end));
        }
    }

    fn break_connection(&mut self, number: u64, seen: Seen) {
        let broken_at = self.next_number();
        let connection = self.connections.get_mut(&number).unwrap();
        connection.broken = true;
        connection.rough.broken_at = Some(broken_at);
        let first = if matches!(seen, Seen::OneSided(_)) { self.rng.below(2) as usize } else { 0 };
        for end in 0..2 {
            let delay = match seen {
                Seen::Now => Duration::ZERO,
                Seen::Within(millis) => self.rng.millis(0, millis),
                Seen::OneSided(_) if end == first => Duration::ZERO,
                Seen::OneSided(millis) => Duration::from_millis(millis),
            };
            self.schedule(self.now + delay, Action::Down(number, end));
        }
    }

    fn connections_of(&self, name: &NodeId) -> Vec<u64> {
        let of = self.connections.iter().filter(|(_, c)| !c.broken && c.ends.contains(name));
        of.map(|(number, _)| *number).collect()
    }

    /// Whether the process that had this end of the connection still runs.
    fn runs(&self, number: u64, end: usize) -> bool {
        let connection = &self.connections[&number];
        let node = &self.nodes[&connection.ends[end]];
        node.alive && node.router.version().instance == connection.instances[end]
    }

    fn is_current(&self, number: u64, end: usize) -> bool {
        let ends = &self.connections[&number].ends;
        self.nodes[&ends[end]].current.get(&self.nodes[&ends[1 - end]].id) == Some(&number)
    }

    fn instance(&self, name: &NodeId) -> u64 {
        self.nodes[name].router.version().instance
    }

    fn schedule(&mut self, at: Instant, action: Action) {
        let number = self.next_number();
        self.actions.insert((at, number), action);
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

impl Connection {
    fn joins(&self, a: &NodeId, b: &NodeId) -> bool {
        self.ends.contains(a) && self.ends.contains(b)
    }
}

impl Node {
    /// Traffic only ever goes over links that are up here, and that the other end lists too.
    fn check_table(&self) {
        let table = self.router.table();
        assert!(table.iter().map(|route| &route.id).eq(&self.reachable), "events and table differ");
        let up: BTreeSet<NodeId> = self
            .router
            .neighbours()
            .filter(|view| view.state == NeighbourState::Up)
            .filter(|view| {
                let record = self.router.database().find(|record| record.origin == view.id);
                view.kind == NeighbourKind::Stub
                    || record.is_some_and(|record| record.link(self.router.id()).is_some())
            })
            .map(|view| view.id)
            .collect();
        for route in table.iter() {
            assert!(
                !route.next_hops.is_empty()
                    && route.next_hops.is_sorted()
                    && route.next_hops.len() <= 8
            );
            assert!(route.next_hops.iter().all(|hop| up.contains(hop)), "{route:?} over {up:?}");
            assert_eq!(table.route_addr(route.addr), Some(route));
        }
    }

    /// What is stored of an origin only grows, but for deletion.
    fn check_versions(&mut self) {
        let counters = self.router.counters();
        let writes = counters.updates_accepted + counters.originations + counters.records_expired;
        if std::mem::replace(&mut self.writes, writes) == writes {
            return;
        }
        let stamps: BTreeMap<NodeId, Stamp> =
            self.router.database().map(|record| (record.origin.clone(), record.stamp())).collect();
        for (origin, stamp) in &stamps {
            assert!(self.stamps.get(origin).is_none_or(|old| old <= stamp), "{origin} went back");
        }
        self.stamps = stamps;
        let own = self.stamps.get(self.router.id()).map(|stamp| stamp.version);
        assert!(
            own.is_none_or(|own| own.instance == self.router.version().instance
                && own <= self.router.version())
        );
        assert_ne!(own, Some(Version::default()));
    }
}
