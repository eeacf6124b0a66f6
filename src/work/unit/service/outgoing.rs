//! The units that this node has submitted.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

use super::super::api::{UnitState, UnitStatus};
use super::super::entry::{Answer, Step, SubmitterEntry};
use super::super::submitter::{SubmitterEffect, SubmitterInput, SubmitterUnit};
use super::deadlines::Deadlines;
use super::out_unit::{EndedOut, OutCore, OutHome, OutUnit};
use super::shared::{Shared, UnitError};
use super::unit_table::{Held, PAGE, UnitTable};
use crate::sync::lock;

/// The units that this node has submitted.
#[derive(Debug)]
pub(super) struct Outgoing {
    table: Mutex<Table>,
    /// A submission has ended.
    submitted: Notify,
    /// A unit may be kept in little memory from now on.
    pub(super) retired: Notify,
    pub(super) deadlines: Deadlines<Uuid>,
}

#[derive(Debug)]
struct Table {
    units: UnitTable<OutUnit>,
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
    pub(super) fn new(home: OutHome) -> Self {
        Self {
            table: Mutex::new(Table { units: UnitTable::new(home), submitting: BTreeSet::new() }),
            submitted: Notify::new(),
            retired: Notify::new(),
            deadlines: Deadlines::default(),
        }
    }

    /// Claims an id for a submission. Waits for one of the same id that is under way.
    pub(super) async fn claim(shared: &Arc<Shared>, id: Uuid) -> Claim {
        let outgoing = &shared.outgoing;
        loop {
            let submitted = outgoing.submitted.notified();
            {
                let mut table = outgoing.table();
                if let Some(unit) = table.units.get(&id) {
                    return Claim::Taken(unit);
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

    /// Adds a unit that has ended.
    pub(super) fn insert_ended(&self, id: Uuid, ended: Box<EndedOut>) {
        self.table().units.insert_ended(id, ended);
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        let unit = self.table().units.get(&id)?;
        if unit.is(UnitStatus::is_final) {
            self.retired.notify_one();
        }
        Some(unit)
    }

    /// Those that are wanted, in the order of their ids. The table is unlocked now and then.
    pub(super) fn list(&self, wanted: impl Fn(&UnitStatus) -> bool) -> Vec<UnitStatus> {
        let mut found = Vec::new();
        let mut behind = Bound::Unbounded;
        loop {
            let table = self.table();
            let mut last = None;
            for (id, held) in table.units.behind(behind.as_ref()).take(PAGE) {
                last = Some(*id);
                match held {
                    Held::Live(unit) if unit.is(&wanted) => found.push(unit.status()),
                    Held::Live(_) => {}
                    Held::Ended(ended) => {
                        found.extend(Some(ended.status(table.units.home(), *id)).filter(&wanted));
                    }
                }
            }
            let Some(last) = last else { return found };
            behind = Bound::Excluded(last);
        }
    }

    /// The ids of all of them, in order.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.table().units.behind(Bound::Unbounded).map(|(id, _)| *id).collect()
    }

    /// Replaces ended units that are not in use by compact records. Returns how many were replaced,
    /// and how many are left for later.
    pub(super) async fn sweep(&self) -> (usize, usize) {
        let (mut replaced, mut behind) = (0, Bound::Unbounded);
        loop {
            let swept = self.table().units.sweep(behind.as_ref());
            replaced += swept.replaced;
            let Some(last) = swept.last else { return (replaced, swept.left) };
            behind = Bound::Excluded(last);
            // There may be many of them.
            tokio::task::yield_now().await;
        }
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
        let rebuilt = core.stale;
        if core.stale {
            let (shared, unit) = (self.clone(), unit.clone());
            core = self
                .blocking(move || shared.recover_out(&unit, &mut core).map(|()| core))
                .await??;
        }
        if core.removed {
            return Err(UnitError::Removed);
        }
        let now = self.clock.now();
        // After these the caller feeds Up when it is time to ask again.
        let waits = matches!(
            input,
            SubmitterInput::Down | SubmitterInput::Answer { answer: Answer::Busy, .. }
        );
        let mut step = core.machine.handle(input, now);
        if rebuilt
            && !waits
            && core.machine.is_down()
            && !step.effects.contains(&SubmitterEffect::Remove)
        {
            // The machine that was replaced knew that the executor can be asked.
            let again = core.machine.handle(SubmitterInput::Up, now);
            step.entries.extend(again.entries);
            step.effects.extend(again.effects);
        }
        if step.entries.is_empty() && !step.effects.contains(&SubmitterEffect::Remove) {
            return Ok(self.perform_out(unit, &mut core, step.effects)?);
        }
        let (shared, unit) = (self.clone(), unit.clone());
        Ok(self.blocking(move || shared.journal_out(&unit, core, step)).await??)
    }

    /// Journals the entries of a step, and performs its effects. After a failed write the unit is
    /// recovered from the disk as soon as that works again.
    fn journal_out(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        mut core: OwnedMutexGuard<OutCore>,
        step: Step<SubmitterEntry, SubmitterEffect>,
    ) -> io::Result<Vec<SubmitterEffect>> {
        let journalled = core.dir.append(&step.entries);
        journalled.and_then(|()| self.perform_out(unit, &mut core, step.effects)).inspect_err(
            |error| {
                self.disk_failed(error);
                core.stale = true;
                if !std::mem::replace(&mut core.recovering, true) {
                    let (shared, unit) = (self.clone(), unit.clone());
                    self.spawn(async move { shared.recover_out_later(&unit).await });
                }
            },
        )
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
                SubmitterEffect::Publish => publish_out(unit, core),
                SubmitterEffect::Remove => {
                    core.removing = true;
                    self.remove_out(unit, core)?;
                    return Ok(left);
                }
                SubmitterEffect::Request(request) => self.drivers.request(unit, request),
                SubmitterEffect::SendPayload { .. } | SubmitterEffect::Finish => left.push(effect),
            }
        }
        self.outgoing.deadlines.set(&unit.id, core.machine.deadline());
        self.drivers.note(self, unit, !core.machine.is_settled());
        if core.machine.is_settled() {
            self.outgoing.table().units.retire(&unit.id);
            self.outgoing.retired.notify_one();
        }
        Ok(left)
    }

    fn remove_out(&self, unit: &Arc<OutUnit>, core: &mut OutCore) -> io::Result<()> {
        self.outgoing.deadlines.set(&unit.id, None);
        self.drivers.forget(unit);
        core.dir.remove()?;
        core.removed = true;
        self.outgoing.table().units.remove(&unit.id);
        unit.publish_removed();
        Ok(())
    }

    /// Replays the journal of a unit, or completes its removal, after a failed write.
    fn recover_out(&self, unit: &Arc<OutUnit>, core: &mut OutCore) -> io::Result<()> {
        if core.removing {
            self.remove_out(unit, core)?;
        } else {
            let entries: Vec<SubmitterEntry> = core.dir.reopen().map_err(io::Error::other)?;
            core.machine = SubmitterUnit::replay(&entries).map_err(io::Error::other)?;
            // What was found on disk may not have been published.
            publish_out(unit, core);
        }
        core.stale = false;
        Ok(())
    }

    async fn recover_out_later(self: &Arc<Self>, unit: &Arc<OutUnit>) {
        loop {
            tokio::time::sleep(super::DISK_RETRY).await;
            {
                let mut core = unit.core.lock().await;
                if !core.stale {
                    core.recovering = false;
                    return;
                }
            }
            // What follows from the input may fail to be written and make the unit stale again:
            // this task recovers it then, too.
            match self.feed_out(unit, SubmitterInput::Up).await {
                Err(UnitError::Disk(error)) => {
                    tracing::debug!(unit = %unit.id, error, "could not recover a unit yet");
                }
                Ok(_) => {}
                Err(UnitError::Removed | UnitError::ShutDown) => return,
            }
        }
    }
}

/// Publishes where a unit stands, and deletes a payload that is not needed any more.
fn publish_out(unit: &OutUnit, core: &mut OutCore) {
    unit.publish(&core.machine);
    if !core.handed && unit.is(|status| status.state >= UnitState::Accepted) {
        // If this fails, the payload is deleted with the unit.
        core.handed = true;
        let _ = std::fs::remove_file(core.dir.paths().payload_path());
    }
}
