//! What a puncher reports.

use std::time::Instant;

use super::peer::attempt::Attempt;
use super::peer::path::Path;
use crate::id::NodeId;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Packets to the peer take this path from now on; `None` means relays. Emitted when the path's
    /// addresses or cookie change, not when its round trip does.
    Path {
        /// The peer.
        peer: NodeId,
        /// The way.
        path: Option<Path>,
    },
    /// A round has ended, or got its path.
    Round {
        /// The peer.
        peer: NodeId,
        /// What became of it.
        attempt: Attempt,
    },
    /// Open up to so many UDP ports beside the node's own, any that are free, on IPv4, and report
    /// them with [`Puncher::ports_opened`](super::Puncher::ports_opened) at once: none is an
    /// answer, too.
    OpenPorts {
        /// The peer that they are for.
        peer: NodeId,
        /// How many.
        count: usize,
    },
    /// Close one of these ports.
    ClosePort {
        /// The port.
        port: u16,
    },
    /// [`Puncher::rounds`](super::Puncher::rounds) gives other ids than before.
    RoundsChanged,
}

/// When [`Puncher::handle_timeout`](super::Puncher::handle_timeout) is to be called, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: DeadlineReason,
}

/// Why a puncher wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeadlineReason {
    /// Messages, probes or events wait to be polled.
    Output,
    /// This node's candidates have changed and are announced to peers.
    Candidates,
    /// A probe is due.
    Probe,
    /// A round of a peer starts or ends, or one of its paths is missed.
    Peer,
}
