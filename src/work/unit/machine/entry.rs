//! What the journals of both ends hold, and what a machine asks its caller to do.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::time::UnitTime;
use crate::id::NodeId;
use crate::work::unit::outcome::{Outcome, Report, UnitRefusal};
use crate::work::unit::spec::UnitSpec;

/// Identifies a data directory of an executor: drawn when the directory is made.
///
/// An executor that lost its directory does not know what it has started. Its new directory has
/// another id, by which a submitter recognises that a unit must not be offered there a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StoreId(pub(crate) Uuid);

/// An entry of the executor's journal for one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecutorEntry {
    pub(crate) at: UnitTime,
    pub(crate) change: ExecutorChange,
}

/// What changed at the executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExecutorChange {
    /// The unit was offered. The first entry of each journal, and there alone.
    Offered {
        spec: UnitSpec,
        /// By this executor's clock.
        start_by: UnitTime,
    },
    /// The whole payload is on disk and has the digest in the spec.
    Accepted,
    /// A supervisor may be started. Attempts count from 1.
    Starting { attempt: u32 },
    /// The supervisor of the attempt has created its `run` file.
    Running { attempt: u32 },
    /// The submitter wants the unit cancelled.
    CancelWanted { grace_ms: u64 },
    /// The submitter wants the unit removed once it has ended.
    ReleaseWanted,
    /// It has ended.
    Final { outcome: Outcome, started: bool },
    /// The attempt is run by a handler of this process, which may have been called: what the `run`
    /// file says of a command.
    Called { attempt: u32 },
    /// The handler was not called after all.
    NotCalled { attempt: u32 },
}

/// An entry of a journal.
pub(crate) trait JournalEntry: Serialize {
    /// Whether the entry has to be on disk before anything follows from it. One that has not is
    /// written at once, so that it survives the process, and synced with the next one that has.
    fn is_promise(&self) -> bool;
}

impl JournalEntry for ExecutorEntry {
    fn is_promise(&self) -> bool {
        match self.change {
            // The supervisor syncs `run` before it executes the command. After a power failure this
            // file says that the attempt was begun, whatever the journal says.
            ExecutorChange::Starting { .. } | ExecutorChange::Running { .. } => false,
            ExecutorChange::Offered { .. }
            | ExecutorChange::Accepted
            | ExecutorChange::CancelWanted { .. }
            | ExecutorChange::ReleaseWanted
            | ExecutorChange::Final { .. }
            | ExecutorChange::Called { .. }
            | ExecutorChange::NotCalled { .. } => true,
        }
    }
}

/// An entry of the submitter's journal for one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubmitterEntry {
    pub(crate) at: UnitTime,
    pub(crate) change: SubmitterChange,
}

/// What changed at the submitter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SubmitterChange {
    /// The spec and the whole payload are on disk. The first entry of each journal, and there
    /// alone.
    Queued {
        /// The node that is to execute it.
        node: NodeId,
        spec: UnitSpec,
    },
    /// The payload may be finished, so that this store of the executor may accept the unit.
    Handing { store: StoreId },
    /// The executor has accepted it.
    Accepted,
    /// The user wants the unit cancelled.
    CancelWanted { grace_ms: u64 },
    /// The user wants the unit removed at both ends.
    ReleaseWanted { force: bool },
    /// It has ended.
    Final { outcome: Outcome, started: bool },
}

impl JournalEntry for SubmitterEntry {
    fn is_promise(&self) -> bool {
        match self.change {
            // A submitter that has lost it offers the unit again, and the executor has it on
            // record.
            SubmitterChange::Accepted => false,
            SubmitterChange::Queued { .. }
            | SubmitterChange::Handing { .. }
            | SubmitterChange::CancelWanted { .. }
            | SubmitterChange::ReleaseWanted { .. }
            | SubmitterChange::Final { .. } => true,
        }
    }
}

/// What follows an input: entries to append to the unit's journal, then effects.
///
/// The caller appends all entries in one write, syncs them to disk if one of them [is a
/// promise](JournalEntry::is_promise), and then performs the effects in order. If the write fails
/// it drops the machine, which is ahead of the disk, and replays the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the entries must be journalled before the effects are performed"]
pub(crate) struct Step<Entry, Effect> {
    pub(crate) entries: Vec<Entry>,
    pub(crate) effects: Vec<Effect>,
}

impl<Entry, Effect> Default for Step<Entry, Effect> {
    fn default() -> Self {
        Self { entries: Vec::new(), effects: Vec::new() }
    }
}

/// What an executor answers. Each answer travels with the [`StoreId`] that it speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send the payload from this offset, and finish it.
    Have { offset: u64 },
    /// The unit is known, and this is where it stands. The first one that is past `Receiving` is
    /// ACCEPTED.
    Status(Report),
    /// The unit was rejected for good.
    Refused(UnitRefusal),
    /// There is no room now. Offer it again later.
    Busy,
    /// The unit is not known. Nothing was recorded.
    Unknown,
    /// The unit was not known when it was cancelled. This store will never accept it.
    NeverAccepted,
    /// The unit was removed.
    Released,
}

/// Why a journal cannot be replayed. The unit is quarantined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DamagedJournal {
    #[error("the journal is empty")]
    Empty,
    #[error("entry {index} does not follow from those before it")]
    OutOfOrder { index: usize },
}
