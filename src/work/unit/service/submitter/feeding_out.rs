//! Inputs of the units that this node has submitted, and what follows from them.

use std::io;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::out_unit::{OutCore, OutUnit};
use crate::work::unit::api::UnitState;
use crate::work::unit::machine::entry::{Answer, Step, SubmitterEntry};
use crate::work::unit::machine::submitter::{SubmitterEffect, SubmitterInput, SubmitterUnit};
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;

impl Shared {
    /// Feeds an input to a unit, journals what follows, and performs it. Returns the effects that
    /// are left to the caller: those that belong to a stream.
    ///
    /// Dropping the future does not interrupt what has begun.
    pub(in crate::work::unit::service) async fn feed_out(
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
        self.note_live(unit, !core.machine.is_settled());
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
            tokio::time::sleep(crate::work::unit::service::DISK_RETRY).await;
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
