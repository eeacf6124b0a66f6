//! What a store held when it was opened.

use uuid::Uuid;

use super::super::key::UnitKey;
use super::super::store::{LoadedUnit, UnitDir};
use crate::work::unit::machine::entry::{ExecutorEntry, SubmitterEntry};
use crate::work::unit::machine::executor::ExecutorUnit;
use crate::work::unit::machine::submitter::SubmitterUnit;
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::service::executor::in_unit::EndedIn;
use crate::work::unit::service::submitter::out_unit::EndedOut;

/// The units that a store held when it was opened.
///
/// Journals of units that have ended are dropped one by one while the store is read, so that a
/// store with many of them does not need room for all journals at once.
#[derive(Debug, Default)]
pub(super) struct FoundUnits {
    /// The units that are to be resumed, with their journals.
    pub(super) outgoing: Vec<(Uuid, UnitDir, Vec<SubmitterEntry>)>,
    pub(super) incoming: Vec<(UnitKey, UnitDir, Vec<ExecutorEntry>)>,
    pub(super) ended_out: Vec<(Uuid, Box<EndedOut>)>,
    pub(super) ended_in: Vec<(UnitKey, Box<EndedIn>)>,
    /// The time of the newest entry of any journal.
    pub(super) newest: UnitTime,
}

impl FoundUnits {
    /// Adds a unit. Blocks on the disk.
    pub(super) fn add(&mut self, unit: LoadedUnit) {
        match unit {
            LoadedUnit::Outgoing(id, dir, entries) => {
                self.newest = self.newest.max(entries.last().map_or(UnitTime(0), |entry| entry.at));
                let machine = SubmitterUnit::replay(&entries).ok();
                match machine.and_then(|machine| EndedOut::found(&machine, &dir)) {
                    Some(ended) => self.ended_out.push((id, Box::new(ended))),
                    None => self.outgoing.push((id, dir, entries)),
                }
            }
            LoadedUnit::Incoming(key, dir, entries) => {
                self.newest = self.newest.max(entries.last().map_or(UnitTime(0), |entry| entry.at));
                let machine = ExecutorUnit::replay(&entries).ok();
                match machine.and_then(|machine| EndedIn::found(&machine, &dir, &entries)) {
                    Some(ended) => self.ended_in.push((key, Box::new(ended))),
                    None => self.incoming.push((key, dir, entries)),
                }
            }
        }
    }
}
