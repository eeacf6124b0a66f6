//! What a node reports about a unit.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::busy::BusyReason;
use super::super::outcome::Outcome;
use super::id::UnitId;
use crate::id::{Directive, NodeId};

/// A unit at one moment.
///
/// Times are milliseconds since the Unix epoch, by the clock of the node that reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnitStatus {
    /// The unit.
    pub id: UnitId,
    /// The node that executes it.
    pub node: NodeId,
    /// The node that submitted it.
    pub submitter: NodeId,
    /// What it asks for.
    pub directive: Directive,
    /// The stage that it has reached.
    pub state: UnitState,
    /// How it ended. `None` before that.
    pub outcome: Option<Outcome>,
    /// Whether the command may have been executed: an attempt was begun and not proven void.
    pub started: bool,
    /// When it was submitted or, at the executor, offered.
    pub created_ms: u64,
    /// When it was started. `None` if it was not, or if the submitter has restarted since.
    pub started_ms: Option<u64>,
    /// When it ended. `None` before that.
    pub ended_ms: Option<u64>,
    /// The length of the payload, in bytes.
    pub payload_len: u64,
    /// Bytes of the payload that the executor has stored.
    pub payload_handed: u64,
    /// Bytes of stdout so far. `None` if the executor was not asked since this node started.
    pub stdout_len: Option<u64>,
    /// Bytes of stderr so far. `None` if the executor was not asked since this node started.
    pub stderr_len: Option<u64>,
    /// The labels of its submitter.
    pub labels: BTreeMap<String, String>,
    /// Whether its release was asked for, and is not complete.
    pub releasing: bool,
    /// Whether this node has removed it.
    pub removed: bool,
    /// Why the executor did not accept it when it was last asked, or did not carry out its
    /// cancellation or release. `None` if it did, or has not been asked since this node started.
    #[serde(default)]
    pub busy: Option<BusyReason>,
    /// Grows with each change.
    pub version: u64,
}

/// The stage that a unit has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnitState {
    /// It waits at its submitter until the executor can be reached.
    Queued,
    /// Its payload is on the way to the executor.
    Handing,
    /// The executor has it on disk, and starts it when its turn comes.
    Accepted,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It has ended; [`UnitStatus::outcome`] says how.
    Ended,
}

impl UnitState {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Handing, Self::Accepted, Self::Starting, Self::Running, Self::Ended];

    /// One word, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Handing => "handing",
            Self::Accepted => "accepted",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl UnitStatus {
    /// One word: the outcome if it has ended, and otherwise the state.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.outcome.as_ref().map_or_else(|| self.state.name(), Outcome::name)
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.outcome.is_some()
    }
}
