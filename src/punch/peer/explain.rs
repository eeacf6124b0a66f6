//! Why packets for a peer go directly or by relays.

use std::time::{Duration, Instant};

use super::attempt::{Attempt, Outcome};
use super::path::Path;
use crate::punch::gather::candidate::Candidate;
use crate::punch::gather::nat::NatClass;

/// What a puncher knows about the ways to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why packets go the way they go.
    pub why: Why,
    /// The path in use; `None` if packets are relayed.
    pub path: Option<Path>,
    /// Since when packets go the way they go.
    pub since: Instant,
    /// Other paths that are kept warm, the best first.
    pub spares: Vec<Path>,
    /// This node's NAT.
    pub mine: NatClass,
    /// The peer's, as it last announced.
    pub theirs: NatClass,
    /// This node's candidates as announced to peers, best first.
    pub my_candidates: Vec<Candidate>,
    /// The peer's candidates as they are probed in the newest round, those learned from probes
    /// included.
    pub their_candidates: Vec<Checked>,
    /// The last 16 rounds, the newest first.
    pub attempts: Vec<Attempt>,
    /// When the next round starts if packets flow then.
    pub next_round: Option<Instant>,
}

/// A candidate of the peer, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The candidate.
    pub candidate: Candidate,
    /// Probes sent there in the newest round.
    pub probes: u32,
    /// Its round trip, if one was answered.
    pub rtt: Option<Duration>,
}

/// Why packets for a peer go the way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Why {
    /// There is a direct path.
    Direct,
    /// Relayed: no packets flow, so that nothing was tried.
    Idle,
    /// Relayed: a round is on.
    Trying,
    /// Relayed: the last round ended so.
    Failed(Outcome),
}

impl Why {
    /// The name for programs: `direct`, `idle`, `trying`, or that of the outcome.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Idle => "idle",
            Self::Trying => "trying",
            Self::Failed(outcome) => outcome.as_str(),
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Direct => "a direct path answers probes",
            Self::Idle => "no packets flow, so that no direct path was looked for",
            Self::Trying => "a direct path is being looked for",
            Self::Failed(outcome) => outcome.reason(),
        }
    }
}
