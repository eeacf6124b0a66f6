//! The units that this node has submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

use super::super::api::UnitState;
use super::super::entry::{Step, SubmitterEntry};
use super::super::submitter::{SubmitterEffect, SubmitterInput, SubmitterUnit};
use super::deadlines::Deadlines;
use super::out_unit::{OutCore, OutUnit};
use super::shared::{Shared, UnitError};
use crate::sync::lock;

/// The units that this node has submitted.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    table: Mutex<Table>,
    /// A submission has ended.
    submitted: Notify,
    pub(super) deadlines: Deadlines<Uuid>,
}

#[derive(Debug, Default)]
struct Table {
    units: BTreeMap<Uuid, Arc<OutUnit>>,
    /// Those that are being written.
    submitting: BTreeSet<Uuid>,
}

/// What there is of an id.
pub(super) enum Claim {
    /// Nobody else submits it while this lives.
    Free(Claimed),
    Taken(Arc<OutUnit>),
    Full,
}

/// Keeps others from submitting the same id.
pub(super) struct Claimed {
    shared: Arc<Shared>,
    id: Uuid,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let outgoing = &self.shared.outgoing;
        outgoing.table().submitting.remove(&self.id);
        outgoing.submitted.notify_waiters();
    }
}

impl Outgoing {
    /// Claims an id for a submission. Waits for one of the same id that is under way.
    pub(super) async fn claim(shared: &Arc<Shared>, id: Uuid) -> Claim {
        let outgoing = &shared.outgoing;
        loop {
            let submitted = outgoing.submitted.notified();
            {
                let mut table = outgoing.table();
                if let Some(unit) = table.units.get(&id) {
                    return Claim::Taken(unit.clone());
                }
                if table.units.len() + table.submitting.len() >= shared.limits().max_submitted {
                    return Claim::Full;
                }
                if table.submitting.insert(id) {
                    return Claim::Free(Claimed { shared: shared.clone(), id });
                }
            }
            submitted.await;
        }
    }

    pub(super) fn insert(&self, unit: &Arc<OutUnit>) {
        self.table().units.insert(unit.id, unit.clone());
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        self.table().units.get(&id).cloned()
    }

    /// All of them, in the order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<OutUnit>> {
        self.table().units.values().cloned().collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Shared {
    /// Feeds an input to a unit, journals what follows, and performs it. Returns the effects that
    /// are left to the caller: those that belong to a stream.
    ///
    /// Dropping the future does not interrupt what has begun.
    pub(super) async fn feed_out(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        input: SubmitterInput,
    ) -> Result<Vec<SubmitterEffect>, UnitError> {
        let mut core = unit.core.clone().lock_owned().await;
        if core.stale {
            core = self.blocking(move || core.reload().map(|()| core)).await??;
        }
        if core.removed {
            return Err(UnitError::Removed);
        }
        let step = core.machine.handle(input, self.clock.now());
        if step.entries.is_empty() && !step.effects.contains(&SubmitterEffect::Remove) {
            return Ok(self.perform_out(unit, &mut core, step.effects)?);
        }
        let (shared, unit) = (self.clone(), unit.clone());
        Ok(self.blocking(move || shared.journal_out(&unit, core, step)).await??)
    }

    fn journal_out(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        mut core: OwnedMutexGuard<OutCore>,
        step: Step<SubmitterEntry, SubmitterEffect>,
    ) -> io::Result<Vec<SubmitterEffect>> {
        if let Err(error) = core.dir.append(&step.entries) {
            core.stale = true;
            self.disk_failed(&error);
            return Err(error);
        }
        self.perform_out(unit, &mut core, step.effects)
    }

    fn perform_out(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        core: &mut OutCore,
        effects: Vec<SubmitterEffect>,
    ) -> io::Result<Vec<SubmitterEffect>> {
        let mut left = Vec::new();
        for effect in effects {
            match effect {
                SubmitterEffect::Publish => {
                    unit.publish(&core.machine);
                    if !core.handed && unit.is(|status| status.state >= UnitState::Accepted) {
                        // The executor has the payload. Here it goes with the unit at the latest.
                        core.handed = true;
                        let _ = std::fs::remove_file(core.dir.paths().payload_path());
                    }
                }
                SubmitterEffect::Remove => {
                    self.outgoing.deadlines.set(&unit.id, None);
                    self.drivers.forget(unit);
                    core.dir.remove().inspect_err(|error| self.disk_failed(error))?;
                    core.removed = true;
                    self.outgoing.table().units.remove(&unit.id);
                    unit.publish_removed();
                    return Ok(left);
                }
                SubmitterEffect::Request(request) => self.drivers.request(unit, request),
                SubmitterEffect::SendPayload { .. } | SubmitterEffect::Finish => left.push(effect),
            }
        }
        self.outgoing.deadlines.set(&unit.id, core.machine.deadline());
        self.drivers.note(self, unit, !core.machine.is_settled());
        Ok(left)
    }
}

impl OutCore {
    /// Replays the journal after it could not be written.
    fn reload(&mut self) -> io::Result<()> {
        let entries: Vec<SubmitterEntry> = self.dir.reopen().map_err(io::Error::other)?;
        self.machine = SubmitterUnit::replay(&entries).map_err(io::Error::other)?;
        self.stale = false;
        Ok(())
    }
}
