//! Inputs of the units that this node executes, and what follows from them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::in_unit::{InCore, InUnit};
use super::strays;
use crate::id::Directive;
use crate::work::unit::machine::entry::{Answer, ExecutorEntry, Step};
use crate::work::unit::machine::executor::{
    ExecutorEffect, ExecutorInput, ExecutorUnit, Found, RunFile,
};
use crate::work::unit::machine::tombstones::Death;
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;

/// Time between two searches for tombstones whose time has passed: they are kept for a day or more.
const EXPIRE_TOMBSTONES: Duration = Duration::from_secs(3600);

impl Shared {
    /// Feeds an input to a unit, journals what follows, and performs it. Returns the answer to the
    /// request that the input came from.
    ///
    /// Dropping the future does not interrupt what has begun.
    pub(in crate::work::unit::service) async fn feed_in(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        input: ExecutorInput,
    ) -> Result<Option<Answer>, UnitError> {
        let mut core = unit.core.clone().lock_owned().await;
        if core.stale {
            let (shared, unit) = (self.clone(), unit.clone());
            core =
                self.blocking(move || shared.recover_in(&unit, &mut core).map(|()| core)).await??;
        }
        if core.removed {
            return Err(UnitError::Removed);
        }
        let step = core.machine.handle(input, self.clock.now());
        if step.entries.is_empty() && step.effects.iter().all(|effect| !blocks(effect)) {
            return Ok(self.try_perform_in(unit, &mut core, step)?);
        }
        let (shared, unit) = (self.clone(), unit.clone());
        Ok(self.blocking(move || shared.perform_owned(&unit, core, step)).await??)
    }

    fn perform_owned(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        mut core: OwnedMutexGuard<InCore>,
        step: Step<ExecutorEntry, ExecutorEffect>,
    ) -> io::Result<Option<Answer>> {
        self.perform_in(unit, &mut core, step)
    }

    /// Journals the entries of a step, performs its effects, and what follows from them. After a
    /// failed write the unit is recovered from the disk as soon as that works again.
    pub(in crate::work::unit::service) fn perform_in(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        step: Step<ExecutorEntry, ExecutorEffect>,
    ) -> io::Result<Option<Answer>> {
        self.try_perform_in(unit, core, step).inspect_err(|error| {
            self.disk_failed(error);
            core.stale = true;
            if !std::mem::replace(&mut core.recovering, true) {
                let (shared, unit) = (self.clone(), unit.clone());
                self.spawn(async move { shared.recover_later(&unit).await });
            }
        })
    }

    fn try_perform_in(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        step: Step<ExecutorEntry, ExecutorEffect>,
    ) -> io::Result<Option<Answer>> {
        let mut answer = None;
        core.dir.append(&step.entries)?;
        let mut effects = VecDeque::from(step.effects);
        while let Some(effect) = effects.pop_front() {
            let followed_by = match effect {
                ExecutorEffect::Answer(it) => {
                    answer = Some(it);
                    None
                }
                ExecutorEffect::Publish => {
                    self.publish_in(unit, &core.machine);
                    None
                }
                ExecutorEffect::Enqueue => {
                    self.incoming.queue().enqueue(&unit.spec.directive, unit.key.clone());
                    self.give_turns(&unit.spec.directive);
                    None
                }
                ExecutorEffect::Dequeue => {
                    self.incoming.queue().remove(&unit.spec.directive, &unit.key);
                    None
                }
                ExecutorEffect::Start { attempt } => self.start_attempt(unit, core, attempt),
                ExecutorEffect::Adopt { attempt } => {
                    self.watch_attempt(unit, core, attempt, None);
                    None
                }
                ExecutorEffect::Fence { attempt } => {
                    let void = unit.paths.fence(attempt)?;
                    Some(ExecutorInput::Fenced { attempt, void })
                }
                ExecutorEffect::Terminate { attempt, grace_ms } => {
                    unit.paths.request_termination(attempt, grace_ms)?;
                    unit.pulse().terminate_came();
                    None
                }
                ExecutorEffect::Remove { tombstone_until } => {
                    let (key, death) = (&unit.key, Death::Removed);
                    self.store.add_tombstone(key, tombstone_until, death, self.clock.now())?;
                    self.remove_in(unit, core)?;
                    // The answer to a release follows the removal.
                    let last = effects.into_iter().find_map(|effect| match effect {
                        ExecutorEffect::Answer(it) => Some(it),
                        _ => None,
                    });
                    return Ok(last.or(answer));
                }
            };
            if let Some(input) = followed_by {
                let step = core.machine.handle(input, self.clock.now());
                core.dir.append(&step.entries)?;
                effects.extend(step.effects);
            }
        }
        self.incoming.deadlines.set(&unit.key, core.machine.deadline());
        if core.machine.is_final() {
            self.incoming.table().units.retire(&unit.key);
            self.incoming.retired.notify_one();
        }
        Ok(answer)
    }

    fn publish_in(self: &Arc<Self>, unit: &Arc<InUnit>, machine: &ExecutorUnit) {
        if machine.is_final() {
            let (stdout, stderr) = match machine.last_attempt() {
                0 => (0, 0),
                attempt => unit.paths.output_lens(attempt),
            };
            unit.note(|progress| {
                (progress.stdout_len, progress.stderr_len) = (Some(stdout), Some(stderr));
            });
            // The payload is no longer read. It is removed with the unit at the latest.
            let _ = std::fs::remove_file(unit.paths.payload_path());
            self.incoming.table().holdings.set(&unit.key, stdout + stderr);
        }
        unit.publish(machine);
        self.incoming.followers.changed(&unit.key);
        if machine.is_final() {
            self.incoming.queue().remove(&unit.spec.directive, &unit.key);
            self.give_turns(&unit.spec.directive);
        }
    }

    /// Removes a unit that has a tombstone.
    fn remove_in(&self, unit: &Arc<InUnit>, core: &mut InCore) -> io::Result<()> {
        let key = &unit.key;
        core.dir.remove()?;
        core.removed = true;
        self.incoming.deadlines.set(key, None);
        let mut table = self.incoming.table();
        table.units.remove(key);
        table.holdings.remove(key);
        drop(table);
        unit.publish_removed();
        self.incoming.followers.changed(key);
        Ok(())
    }

    /// Replays the journal of a unit after a failed write, and resumes it from what is on disk.
    pub(in crate::work::unit::service) fn recover_in(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
    ) -> io::Result<()> {
        if self.store.tombstone(&unit.key) == Some(Death::Removed) {
            self.remove_in(unit, core)?;
        } else {
            let entries: Vec<ExecutorEntry> = core.dir.reopen().map_err(io::Error::other)?;
            core.machine = ExecutorUnit::replay(&entries).map_err(io::Error::other)?;
            self.resume_unit(unit, core)?;
        }
        core.stale = false;
        Ok(())
    }

    pub(in crate::work::unit::service) async fn recover_later(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
    ) {
        loop {
            tokio::time::sleep(crate::work::unit::service::DISK_RETRY).await;
            let mut core = unit.core.clone().lock_owned().await;
            if !core.stale {
                core.recovering = false;
                return;
            }
            let (shared, recovered) = (self.clone(), unit.clone());
            let recover = move || {
                shared.recover_in(&recovered, &mut core)?;
                core.recovering = false;
                io::Result::Ok(())
            };
            match self.blocking(recover).await {
                Ok(Ok(())) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::debug!(unit = %unit.key, %error, "could not recover a unit yet")
                }
            }
        }
    }

    /// Compares a unit's journal with what there is of its attempt, and goes on from there.
    pub(in crate::work::unit::service) fn resume_unit(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
    ) -> io::Result<()> {
        let nothing = Found { run: RunFile::Absent, locked: false, exit: None };
        let found = core
            .machine
            .attempt_on_disk()
            .map_or(Ok(nothing), |attempt| unit.paths.found(attempt))?;
        if let Some(attempt) = core.machine.attempt_on_disk()
            && found.run == RunFile::Supervisor
            && !found.locked
            && found.exit.is_none()
        {
            strays::kill(&unit.paths.attempt_path(attempt));
        }
        let stored = if core.machine.is_final() { 0 } else { unit.paths.payload_len()? };
        unit.note(|progress| progress.handed = stored);
        let step = core.machine.resume(stored, &found, self.clock.now());
        self.try_perform_in(unit, core, step)?;
        if !core.removed {
            // What was found on disk may not have been published. The end of a unit also makes room
            // for the next one.
            self.publish_in(unit, &core.machine);
        }
        Ok(())
    }

    /// Starts the units of a directive whose turn has come.
    pub(in crate::work::unit::service) fn give_turns(self: &Arc<Self>, directive: &Directive) {
        while !self.is_draining() {
            let next = self.incoming.queue().next(directive, self.limits().max_running);
            let Some(key) = next else { return };
            let Some(unit) = self.incoming.get(&key) else {
                self.incoming.queue().remove(directive, &key);
                continue;
            };
            let shared = self.clone();
            // It holds a place among those that run until it has ended.
            self.spawn(async move { shared.feed_until_taken(&unit, ExecutorInput::Turn).await });
        }
    }

    /// Feeds an input that must not get lost, and repeats it while writes fail.
    pub(in crate::work::unit::service) async fn feed_until_taken(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        input: ExecutorInput,
    ) {
        loop {
            match self.feed_in(unit, input.clone()).await {
                Ok(_) | Err(UnitError::Removed | UnitError::ShutDown) => return,
                Err(UnitError::Disk(error)) => {
                    tracing::warn!(unit = %unit.key, error, "could not record the state of a unit; trying again");
                    tokio::time::sleep(crate::work::unit::service::DISK_RETRY).await;
                }
            }
        }
    }

    /// Lets units expire, and removes those that were kept for long enough.
    pub(in crate::work::unit::service) async fn tick_in(self: &Arc<Self>) {
        loop {
            for key in self.incoming.deadlines.next(&self.clock).await {
                let Some(unit) = self.incoming.get(&key) else { continue };
                let shared = self.clone();
                // Many may be due at once, and do not wait for each other.
                self.spawn(async move {
                    if let Err(UnitError::Disk(error)) = shared.feed_in(&unit, ExecutorInput::Tick).await {
                        tracing::debug!(unit = %key, error, "could not record that a unit's time is over");
                        let again = shared.clock.now().plus(crate::work::unit::service::DISK_RETRY_MS);
                        shared.incoming.deadlines.set(&key, Some(again));
                    }
                });
            }
        }
    }

    /// Forgets tombstones whose time has passed.
    pub(in crate::work::unit::service) async fn expire_tombstones(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(EXPIRE_TOMBSTONES).await;
            let shared = self.clone();
            let expired =
                self.blocking(move || shared.store.expire_tombstones(shared.clock.now())).await;
            if let Ok(Err(error)) = expired {
                tracing::warn!(%error, "could not shorten the log of tombstones; trying again in an hour");
            }
        }
    }
}

/// Whether performing an effect blocks on the disk.
fn blocks(effect: &ExecutorEffect) -> bool {
    !matches!(
        effect,
        ExecutorEffect::Answer(_)
            | ExecutorEffect::Publish
            | ExecutorEffect::Enqueue
            | ExecutorEffect::Dequeue
            | ExecutorEffect::Adopt { .. }
    )
}
