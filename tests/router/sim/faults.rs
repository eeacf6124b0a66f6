//! What else goes wrong on the way: links that stall or swallow everything, slow readers, late
//! frames, wrong clocks.

use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::router::PeerError;

use super::{Action, Connection, Embedder, Seen, Sim};

/// Where a process that starts has its epoch from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Epoch {
    /// The clock alone, off by so many milliseconds.
    Clock(i64),
    /// One more than the one before, or the clock, off by so many milliseconds: whatever is larger.
    Persisted(i64),
    /// The one of the process before.
    Same,
}

/// How a connection is worse than the others.
pub(crate) struct Rough {
    /// How long its streams need to take a window, in milliseconds.
    pub(super) drain: Option<(u64, u64)>,
    /// Nothing reaches this end before. What was sent comes then, in order.
    pub(super) stalled_until: [Instant; 2],
    /// Nothing reaches this end any more, and nobody has noticed yet.
    pub(super) swallows: [bool; 2],
    /// What was scheduled later was sent after the connection had ended.
    pub(super) broken_at: Option<u64>,
}

impl Rough {
    pub(super) fn new(now: Instant) -> Self {
        Self { drain: None, stalled_until: [now; 2], swallows: [false; 2], broken_at: None }
    }
}

impl Sim {
    /// Everything that is sent over the connection from now on waits for so long. The connection
    /// lives on.
    pub(crate) fn stall(&mut self, number: u64, time: Duration) {
        let until = self.now + time;
        let connection = self.connections.get_mut(&number).unwrap();
        connection.rough.stalled_until = connection.rough.stalled_until.map(|at| at.max(until));
    }

    /// The connection swallows what is sent to the ends that are named, until both ends see that it
    /// has ended.
    pub(crate) fn swallow(&mut self, number: u64, ends: [bool; 2], after: Duration, seen: Seen) {
        let swallows = &mut self.connections.get_mut(&number).unwrap().rough.swallows;
        // A stream has no gaps: what is lost once is lost until the session ends.
        (0..2).for_each(|end| swallows[end] |= ends[end]);
        self.schedule(self.now + after, Action::Break(number, seen));
    }

    /// The streams of the connection take a window only after so many milliseconds; `None`: as
    /// others do.
    pub(crate) fn slow_down(&mut self, number: u64, drain: Option<(u64, u64)>) {
        self.connections.get_mut(&number).unwrap().rough.drain = drain;
    }

    /// The live connections.
    pub(crate) fn live(&self) -> Vec<u64> {
        self.connections.iter().filter(|(_, c)| !c.broken).map(|(number, _)| *number).collect()
    }

    pub(super) fn epoch_of(&self, name: &NodeId, epoch: Epoch) -> u64 {
        let before = self.nodes.get(name).map_or(0, |node| node.epoch);
        let clock = |off: i64| {
            let millis = 1_800_000_000_000 + (self.now - self.start).as_millis() as i64 + off;
            millis.max(0) as u64
        };
        match epoch {
            Epoch::Clock(off) => clock(off),
            Epoch::Persisted(off) => clock(off).max(before + 1),
            Epoch::Same => before.max(1),
        }
    }

    /// Whether this end of the connection takes a frame that was scheduled then.
    pub(super) fn takes(&self, scheduled: u64, number: u64, end: usize) -> bool {
        let connection = &self.connections[&number];
        if !self.runs(number, end) || connection.rough.swallows[end] {
            return false;
        }
        let in_flight = connection.rough.broken_at.is_none_or(|broken_at| scheduled < broken_at);
        match self.embedder {
            Embedder::Loses => !connection.broken && self.is_current(number, end),
            Embedder::Drops => in_flight && self.is_current(number, end),
            Embedder::Sloppy => in_flight && self.has_session(number, end),
        }
    }

    /// What a neighbour breaks the protocol with ends its session. Only a sloppy embedder makes
    /// honest ones do so.
    pub(super) fn on_result(&mut self, number: u64, end: usize, result: Result<(), PeerError>) {
        let Err(error) = result else { return };
        assert_eq!(self.embedder, Embedder::Sloppy, "{error}");
        let ends = &self.connections[&number].ends;
        let current = self.nodes[&ends[end]].current[&self.nodes[&ends[1 - end]].id];
        self.redial(current);
    }

    /// A session that makes no progress is ended, too.
    pub(super) fn on_stalled(&mut self, me: &NodeId, neighbour: &NodeId) {
        assert_eq!(self.embedder, Embedder::Sloppy, "{me} waits for {neighbour}");
        let current = self.nodes[me].current[neighbour];
        self.redial(current);
    }

    /// Ends the session, and begins another one soon.
    fn redial(&mut self, number: u64) {
        let Connection { ends, costs, broken: false, .. } = &self.connections[&number] else {
            return;
        };
        let (ends, costs) = (ends.clone(), *costs);
        self.break_connection(number, Seen::Now);
        let later = self.rng.millis(10, 1_000);
        self.schedule(self.now + later, Action::Redial(ends, costs));
    }

    fn has_session(&self, number: u64, end: usize) -> bool {
        let ends = &self.connections[&number].ends;
        self.nodes[&ends[end]].current.contains_key(&self.nodes[&ends[1 - end]].id)
    }
}
