//! Virtual time: a queue of what happens next, the routers, and the sessions between them.
//!
//! Sessions are ordered, with random latency; what is in flight when one ends is lost, and its two
//! ends see the end each at its own time. Streams take whatever they are given at once. Every
//! message passes through its bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::router::{Config, ConvergeRequest, FloodMode, Message, Router};

use crate::journal::Journal;
use crate::measure::{Answer, Meter};
use crate::notary::Notional;
use crate::rng::Rng;
use post::Post;

mod post;
mod run;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) meter: Meter,
    pub(crate) journal: Journal,
    pub(crate) latency: (Duration, Duration),
    /// Loses one message of so many.
    pub(crate) swallow: Option<usize>,
    /// How the last request of convergence ended.
    pub(crate) answer: Option<Answer>,
    asking: Option<Asking>,
    /// Links that go down each second.
    churn: f64,
    post: Post,
    sessions: Vec<Session>,
    queue: BinaryHeap<Reverse<Entry>>,
    counter: u64,
    /// Entries of the queue that are no wake-ups.
    in_flight: usize,
    /// Living nodes with something to do.
    busy: usize,
    flood: FloodMode,
    signed: bool,
    name_width: usize,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) router: Router,
    pub(crate) alive: bool,
    /// The session that is up with each neighbour.
    current: BTreeMap<usize, usize>,
    wake: Option<Instant>,
    busy: bool,
}

/// A request of convergence that is open.
struct Asking {
    number: usize,
    request: ConvergeRequest,
    since: Instant,
    waves: u64,
}

struct Session {
    ends: [usize; 2],
    /// The processes at both ends: a session does not outlive either.
    instances: [u64; 2],
    broken: bool,
    /// What is on its way to each end. Only the first of it is in the queue of the world.
    ways: [Way; 2],
}

struct Way {
    frames: VecDeque<(Instant, u64, Message)>,
    /// When the last message arrives, or did.
    last: Instant,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    /// First come, first served.
    number: u64,
    action: Action,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Up { session: usize, end: usize },
    Down { session: usize, end: usize },
    Deliver { session: usize, end: usize },
    Return { link: (usize, usize) },
    Churn,
    Wake(usize),
}

impl World {
    pub(crate) fn new(seed: u64, flood: FloodMode, signed: bool, most_nodes: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let now = Instant::now();
        Self {
            now,
            rng: Rng::new(seed),
            nodes: Vec::new(),
            meter: Meter::default(),
            journal: Journal::new(now),
            latency: (Duration::ZERO, Duration::ZERO),
            swallow: None,
            answer: None,
            asking: None,
            churn: 0.0,
            post: Post::default(),
            sessions: Vec::new(),
            queue: BinaryHeap::new(),
            counter: 0,
            in_flight: 0,
            busy: 0,
            flood,
            signed,
            name_width: most_nodes.saturating_sub(1).to_string().len(),
        }
    }

    /// Starts one more node. Gives its number.
    pub(crate) fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let name = format!("n{number:0width$}", width = self.name_width);
        let id = NodeId::try_from(name).expect("a letter and digits make a name");
        let router = self.router(&id, 0);
        let current = BTreeMap::new();
        self.nodes.push(Node { id, router, alive: true, current, wake: None, busy: false });
        number
    }

    fn router(&mut self, id: &NodeId, clock: i64) -> Router {
        // Some time in 2027, give or take what the node's clock is off by.
        let epoch = 1_800_000_000_000 + self.journal.age(self.now).as_millis() as i64 + clock;
        let mut config = Config::new(id.clone(), epoch as u64, self.rng.next(), self.rng.next());
        config.flood = self.flood;
        if self.signed {
            config.notary = Some(Arc::new(Notional::of(id)));
        }
        Router::new(config, self.now)
    }

    /// Another process with the same id, which remembers nothing, without sessions. Its clock is
    /// off by milliseconds.
    pub(crate) fn boot(&mut self, number: usize, clock: i64) {
        let id = self.nodes[number].id.clone();
        self.nodes[number].router = self.router(&id, clock);
        self.nodes[number].alive = true;
        self.journal.note(self.now, || format!("{id} starts"));
        self.drain(number);
    }

    /// The process is gone at once. Gives the nodes that it was linked to, each of which notices at
    /// its own time.
    pub(crate) fn kill(&mut self, number: usize) -> Vec<usize> {
        self.journal.note(self.now, || format!("{} dies", self.nodes[number].id));
        let sessions: Vec<usize> =
            self.live_sessions().filter(|at| self.sessions[*at].has(number)).collect();
        let peers = sessions.iter().map(|at| self.sessions[*at].other(number)).collect();
        sessions.into_iter().for_each(|session| self.end(session));
        let node = &mut self.nodes[number];
        self.busy -= usize::from(std::mem::take(&mut node.busy));
        (node.alive, node.wake) = (false, None);
        node.current.clear();
        peers
    }

    /// Brings up a session between living nodes that have none.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let linked =
            self.live_sessions().any(|at| self.sessions[at].has(a) && self.sessions[at].has(b));
        if linked || !self.nodes[a].alive || !self.nodes[b].alive {
            return;
        }
        self.open(a, b);
    }

    /// The same, for nodes that are known to have none.
    pub(crate) fn open(&mut self, a: usize, b: usize) {
        let up_at = [0, 1].map(|_| self.now + self.rng.within(self.latency));
        let instances = [a, b].map(|number| self.nodes[number].router.version().instance);
        let session = self.sessions.len();
        let ways = up_at.map(|last| Way { frames: VecDeque::new(), last });
        self.sessions.push(Session { ends: [a, b], instances, broken: false, ways });
        (0..2).for_each(|end| self.schedule(up_at[end], Action::Up { session, end }));
    }

    /// Ends the session between two nodes, if there is one.
    pub(crate) fn cut(&mut self, (a, b): (usize, usize)) {
        let found =
            self.live_sessions().find(|at| self.sessions[*at].has(a) && self.sessions[*at].has(b));
        if let Some(session) = found {
            self.journal.note(self.now, || {
                format!("link {}-{} goes down", self.nodes[a].id, self.nodes[b].id)
            });
            self.end(session);
        }
    }

    fn end(&mut self, session: usize) {
        self.sessions[session].broken = true;
        for end in 0..2 {
            let at = self.now + self.rng.within(self.latency);
            self.schedule(at, Action::Down { session, end });
        }
    }

    /// A command to the router of a node, and what follows from it.
    pub(crate) fn command(&mut self, number: usize, command: impl FnOnce(&mut Router, Instant)) {
        command(&mut self.nodes[number].router, self.now);
        self.drain(number);
    }

    /// Has a node ask whether all others have its route.
    pub(crate) fn ask(&mut self, number: usize, patience: Duration) {
        let (router, now) = (&mut self.nodes[number].router, self.now);
        let waves = router.counters().waves;
        match router.converge(now + patience, now) {
            Ok(request) => self.asking = Some(Asking { number, request, since: now, waves }),
            Err(error) => self.journal.fail(format!("{}: {error}", self.nodes[number].id)),
        }
        self.drain(number);
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    fn on_answer(&mut self, number: usize, answered: ConvergeRequest, converged: bool) {
        if let Some(asking) =
            self.asking.take_if(|ask| (ask.number, ask.request) == (number, answered))
        {
            let waves = self.nodes[number].router.counters().waves - asking.waves;
            self.answer =
                Some(Answer { after: self.now - asking.since, waves: waves.max(1), converged });
        }
    }

    pub(crate) fn start_churn(&mut self, rate: f64) {
        self.churn = rate;
        self.schedule_churn();
    }

    pub(crate) fn stop_churn(&mut self) {
        self.churn = 0.0;
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].alive)
    }

    /// The true links.
    pub(crate) fn links(&self) -> impl Iterator<Item = (usize, usize)> {
        self.live_sessions().map(|at| self.sessions[at].ends.into())
    }

    fn live_sessions(&self) -> impl Iterator<Item = usize> {
        (0..self.sessions.len()).filter(|at| !self.sessions[*at].broken)
    }

    pub(crate) fn number_of(id: &NodeId) -> usize {
        id.as_str()[1..].parse().expect("names are a letter and a number")
    }
}

impl Session {
    fn has(&self, number: usize) -> bool {
        self.ends.contains(&number)
    }

    fn other(&self, number: usize) -> usize {
        if self.ends[0] == number { self.ends[1] } else { self.ends[0] }
    }
}

impl Action {
    /// Whether the world is not at rest before this was done.
    fn counts(&self) -> bool {
        !matches!(self, Self::Wake(_) | Self::Churn)
    }
}
