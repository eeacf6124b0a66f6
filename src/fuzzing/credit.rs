//! Any bytes as the history of the streams that one end of a connection opens at the other.

use std::collections::VecDeque;

use crate::mesh::services::credit::CreditGate;
use crate::mesh::services::usage::{StreamLease, Usage};
use crate::transport::settings::{FIRST_STREAMS, MAX_INCOMING_STREAMS, MAX_STREAMS, STREAM_CREDIT};

/// Operations of one history. Longer ones say nothing that shorter ones do not.
const MAX_OPS: usize = 300;

/// Streams open, are accepted, and end at either end in any order. Once everything has arrived, an
/// opener waits for credit only if nearly all of it is in use.
pub(super) fn run(bytes: &[u8]) {
    let mut world = World::new();
    for op in bytes.chunks_exact(2).take(MAX_OPS) {
        world.step(op[0], usize::from(op[1]));
        world.check();
    }
    world.end();
}

/// A stream that uses credit.
#[derive(Debug)]
struct Stream {
    /// Whether its header asks for more credit.
    wants_credit: bool,
    /// Whether QUIC has accepted it at the other end.
    accepted: bool,
    /// Whether its header has arrived there.
    header: bool,
    opener: Option<StreamLease>,
    acceptor: Option<StreamLease>,
}

impl Stream {
    fn is_over(&self) -> bool {
        self.accepted && self.header && self.opener.is_none() && self.acceptor.is_none()
    }
}

struct World {
    opener: Usage,
    acceptor: Usage,
    gate: CreditGate,
    /// Streams that QUIC permits at a time.
    window: u64,
    /// Streams that the opener knows it may open, since the connection began.
    permitted: u64,
    opened: u64,
    /// Streams that both ends are done with.
    over: u64,
    streams: VecDeque<Stream>,
}

impl World {
    fn new() -> Self {
        let window = u64::from(FIRST_STREAMS);
        Self {
            opener: Usage::default(),
            acceptor: Usage::default(),
            gate: CreditGate::default(),
            window,
            permitted: window,
            opened: 0,
            over: 0,
            streams: VecDeque::new(),
        }
    }

    fn step(&mut self, what: u8, how: usize) {
        let at = how % self.streams.len().max(1);
        match what % 8 {
            0 | 1 => (0..=how).for_each(|_| self.open()),
            2 | 3 => (0..=how).for_each(|_| self.accept_next()),
            4 => self.header(at),
            5 | 6 => {
                let Some(stream) = self.streams.get_mut(at) else { return };
                if what % 8 == 5 {
                    stream.opener = None;
                } else {
                    stream.acceptor = None;
                }
            }
            // One end is done with many.
            _ => self.streams.iter_mut().skip(at).step_by(2).for_each(|stream| match what & 8 {
                0 => stream.opener = None,
                _ => stream.acceptor = None,
            }),
        }
        self.reap();
    }

    /// The application opens a stream, if it has a place and QUIC permits it.
    fn open(&mut self) {
        if self.opened == self.permitted {
            return;
        }
        let Some(lease) = self.opener.try_open() else { return };
        self.opened += 1;
        let wants_credit = lease.wants_credit();
        let (opener, acceptor) = (Some(lease), None);
        self.streams.push_back(Stream {
            wants_credit,
            accepted: false,
            header: false,
            opener,
            acceptor,
        });
    }

    /// QUIC accepts streams in order.
    fn accept_next(&mut self) {
        let Some(stream) = self.streams.iter_mut().find(|stream| !stream.accepted) else { return };
        stream.accepted = true;
        if self.acceptor.incoming_streams() < MAX_INCOMING_STREAMS {
            stream.acceptor = Some(self.acceptor.incoming());
        }
        if self.gate.accepted(self.acceptor.incoming_streams()) {
            self.raise();
        }
    }

    /// Headers arrive in any order.
    fn header(&mut self, at: usize) {
        let Some(stream) = self.streams.get_mut(at).filter(|stream| stream.accepted) else {
            return;
        };
        if !std::mem::replace(&mut stream.header, true) && stream.wants_credit && self.gate.wanted()
        {
            self.raise();
        }
    }

    fn raise(&mut self) {
        assert_eq!(self.window, u64::from(FIRST_STREAMS), "credit is raised once");
        self.window = u64::from(STREAM_CREDIT);
        self.permitted = self.over + self.window;
    }

    /// Streams that are over give credit back, which QUIC announces by the eighth.
    fn reap(&mut self) {
        let before = self.streams.len();
        self.streams.retain(|stream| !stream.is_over());
        self.over += (before - self.streams.len()) as u64;
        let more = self.over + self.window - self.permitted;
        if more > self.window / 8 {
            self.permitted += more;
        }
    }

    fn check(&self) {
        assert!(self.opener.opened_streams() <= MAX_STREAMS);
        assert!(self.acceptor.incoming_streams() <= MAX_INCOMING_STREAMS);
        assert_eq!(self.opened - self.over, self.streams.len() as u64);
        let held = self.streams.iter().filter(|stream| stream.opener.is_some()).count();
        assert_eq!(self.opener.opened_streams(), held);
    }

    /// Everything arrives.
    fn end(&mut self) {
        while self.streams.iter().any(|stream| !stream.accepted) {
            self.accept_next();
        }
        (0..self.streams.len()).for_each(|at| self.header(at));
        self.reap();
        self.check();
        if self.opened == self.permitted {
            let used = self.streams.len();
            let enough = (STREAM_CREDIT - STREAM_CREDIT / 8) as usize;
            assert!(used >= enough, "{used} streams use all the credit of {}", self.window);
            assert!(self.opener.opened_streams() + self.acceptor.incoming_streams() >= enough);
        }
    }
}
