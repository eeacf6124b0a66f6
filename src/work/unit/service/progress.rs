//! What a status says beside the state.

use super::super::busy::BusyReason;
use crate::work::unit::machine::entry::{ExecutorChange, ExecutorEntry};

/// What a status says beside the state. Kept in memory alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of the payload that the executor has.
    pub(super) handed: u64,
    /// When the first attempt was started, in milliseconds since the Unix epoch.
    pub(super) started_ms: Option<u64>,
    /// When the unit ended, in milliseconds since the Unix epoch.
    pub(super) ended_ms: Option<u64>,
    pub(super) stdout_len: Option<u64>,
    pub(super) stderr_len: Option<u64>,
    /// Why the executor did not carry out the last request.
    pub(super) busy: Option<BusyReason>,
}

impl Progress {
    /// Reads from a journal what is not part of the machine.
    pub(super) fn note_journal(&mut self, entries: &[ExecutorEntry]) {
        for entry in entries {
            match &entry.change {
                ExecutorChange::Running { .. } | ExecutorChange::Called { .. } => {
                    self.started_ms.get_or_insert(entry.at.0);
                }
                ExecutorChange::Final { .. } => self.ended_ms = Some(entry.at.0),
                _ => {}
            }
        }
    }
}
