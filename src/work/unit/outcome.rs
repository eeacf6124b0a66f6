//! Where a unit stands, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::work::unit::machine::time::UnitTime;

/// The stage that a unit has reached, as one end reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub(crate) enum ReportState {
    /// Stored at the submitter; the executor does not know it.
    Queued,
    /// The submitter has begun to offer it. The executor may have accepted it.
    Handing,
    /// The executor is receiving the payload.
    Receiving {
        /// Bytes of the payload that the executor has stored.
        offset: u64,
    },
    /// The executor has the payload on disk, and will start the unit when its turn comes.
    Accepted,
    /// A supervisor is being started.
    Starting,
    /// The command or handler runs.
    Running,
    /// It has ended.
    Final(Outcome),
}

/// How a unit ended. Absorbing: nothing changes it afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The command exited with status 0, or the handler succeeded.
    Succeeded,
    /// It ran and failed, or could not be started.
    Failed(Failure),
    /// It was cancelled, before its start or while it ran.
    Cancelled,
    /// It was not started within the time given by the submitter, and never will be.
    Expired,
    /// The executor rejected it. It was not started.
    Refused(UnitRefusal),
    /// It was started, and its end cannot be known: its host lost power, its supervisor was
    /// killed, or the executor lost its data directory. It is not run again unless its spec says
    /// that it is idempotent.
    Lost,
}

impl Outcome {
    /// The command's exit status: 0 if it succeeded. `None` if it did not exit by itself.
    #[must_use]
    pub const fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Succeeded => Some(0),
            Self::Failed(Failure::Exit(status)) => Some(*status),
            _ => None,
        }
    }

    /// The signal that ended the command. `None` if none did, or if it was cancelled.
    #[must_use]
    pub const fn signal(&self) -> Option<i32> {
        match self {
            Self::Failed(Failure::Signal(signal)) => Some(*signal),
            _ => None,
        }
    }

    /// One word, as in the JSON of a status: `succeeded`, `failed`, `cancelled`, `expired`,
    /// `refused` or `lost`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Failed(failure) => write!(f, ": {failure}"),
            Self::Refused(refusal) => write!(f, ": {refusal}"),
            _ => Ok(()),
        }
    }
}

/// Why a unit failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Failure {
    /// The command exited with this status, which is not 0.
    Exit(i32),
    /// A signal ended the command.
    Signal(i32),
    /// It ran longer than its spec or the executor allows.
    RunTime,
    /// It wrote more output than the executor allows.
    OutputLimit,
    /// It could not be started; the text says why.
    NotStarted(String),
    /// The handler returned an error, or panicked.
    Handler(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::RunTime => f.write_str("it ran longer than it may"),
            Self::OutputLimit => f.write_str("it wrote more output than it may"),
            Self::NotStarted(text) => write!(f, "not started: {text}"),
            Self::Handler(text) => write!(f, "the handler failed: {text}"),
        }
    }
}

/// Why an executor rejected a unit. None of these goes away by offering the unit again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnitRefusal {
    /// The executor takes no units, or has no data directory to keep them in.
    NoUnits,
    /// The executor has no such directive.
    UnknownDirective,
    /// The submitter may not do that.
    NotAllowed,
    /// The payload is longer than the executor allows.
    PayloadTooLarge,
    /// The times in the spec are longer than the executor keeps anything.
    TooLong,
    /// The key is in use for a unit with another spec or payload.
    Conflict,
    /// A unit with this key was released before.
    Released,
}

impl fmt::Display for UnitRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUnits => "the node takes no units",
            Self::UnknownDirective => "the node has no such directive",
            Self::NotAllowed => "not allowed",
            Self::PayloadTooLarge => "the payload is larger than the node allows",
            Self::TooLong => "the unit would live longer than the node allows",
            Self::Conflict => "the key belongs to a unit with another spec or payload",
            Self::Released => "the unit with this key was released",
        })
    }
}

/// What the executor reports about a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Grows with each change, so that an older status that arrives late is recognised.
    pub(crate) version: u64,
    /// The stage.
    pub(crate) state: ReportState,
    /// Whether the command may have been executed: an attempt was begun and not proven void.
    pub(crate) started: bool,
    /// When the state was entered, by the executor's clock. For people; no decision depends on it.
    pub(crate) since: UnitTime,
}

impl Report {
    /// How it ended. `None` while it has not.
    #[must_use]
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            ReportState::Final(outcome) => Some(outcome),
            _ => None,
        }
    }
}
