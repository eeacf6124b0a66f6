//! Rounds as they are remembered: what they were begun for, and what became of them.

use std::time::{Duration, Instant};

use crate::punch::gather::nat::NatClass;

/// A round that has ended, or got its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it started.
    pub at: Instant,
    /// Time until the outcome.
    pub took: Duration,
    /// Why it was begun, as far as this node knows.
    pub cause: Cause,
    /// What became of it.
    pub outcome: Outcome,
    /// This node's NAT.
    pub mine: NatClass,
    /// The peer's, as it announced.
    pub theirs: NatClass,
    /// Probes that this node sent.
    pub probes: u32,
}

/// What became of a round, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A probe was answered: there is a direct path.
    Direct,
    /// Both NATs give every endpoint another port, so that neither end can know where to send.
    BothEndpointDependent,
    /// One NAT gives every endpoint another port, and the other lets only packets in from where
    /// some were sent to. Ports are not guessed.
    PortGuessingNeeded,
    /// There was no address to probe.
    NoCandidates,
    /// No probe was answered, though the NATs would not have stood in the way: a firewall, or UDP
    /// is blocked.
    NoAnswer,
    /// The peer did not answer two offers: its version is too old, direct paths are disabled there,
    /// or relays lost both.
    PeerSilent,
    /// Another round started before this one ended.
    Superseded,
}

impl Outcome {
    /// All of them, in the order of [`Counters::outcomes`](crate::punch::Counters::outcomes).
    pub const ALL: [Self; 7] = [
        Self::Direct,
        Self::BothEndpointDependent,
        Self::PortGuessingNeeded,
        Self::NoCandidates,
        Self::NoAnswer,
        Self::PeerSilent,
        Self::Superseded,
    ];

    /// The name in JSON, such as `direct` or `both-endpoint-dependent`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::BothEndpointDependent => "both-endpoint-dependent",
            Self::PortGuessingNeeded => "port-guessing-needed",
            Self::NoCandidates => "no-candidates",
            Self::NoAnswer => "no-answer",
            Self::PeerSilent => "peer-silent",
            Self::Superseded => "superseded",
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Direct => "a probe was answered",
            Self::BothEndpointDependent => "both NATs use another port for every endpoint",
            Self::PortGuessingNeeded => {
                "one NAT uses another port for every endpoint, and the other lets in only what was asked for"
            }
            Self::NoCandidates => "there was no address to probe",
            Self::NoAnswer => "no probe was answered: a firewall, or UDP is blocked",
            Self::PeerSilent => {
                "the peer was asked twice and did not answer: its version is too old, direct paths are off there, or relays lost both"
            }
            Self::Superseded => "a newer round took its place",
        }
    }
}

/// Why a round was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Packets flow without a path.
    Traffic,
    /// The same, after a round had failed.
    Retry,
    /// This node's candidates had changed.
    Candidates,
    /// A path had died.
    PathDied,
    /// The network had changed.
    Restart,
    /// The peer wanted it.
    Peer,
}

impl Cause {
    /// The name in JSON, such as `traffic` or `path-died`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Retry => "retry",
            Self::Candidates => "candidates",
            Self::PathDied => "path-died",
            Self::Restart => "restart",
            Self::Peer => "peer",
        }
    }
}
