//! One unit at the executor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Answer, DamagedJournal, ExecutorChange, ExecutorEntry, Step};
use super::time::UnitTime;
use crate::work::unit::limits::MAX_ATTEMPTS;
use crate::work::unit::outcome::{Failure, Outcome, Report, ReportState, UnitRefusal};
use crate::work::unit::spec::{SpecHash, UnitSpec};

mod ended;
pub(crate) use ended::EndedExecutor;

/// One unit at the executor: what its journal says, and the offset of the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecutorUnit {
    spec: Arc<UnitSpec>,
    hash: SpecHash,
    start_by: UnitTime,
    stage: Stage,
    /// Bytes of the payload on disk.
    offset: u64,
    cancel: Option<u64>,
    release: bool,
    /// When the last entry was made, and how many there are.
    since: UnitTime,
    version: u64,
    /// The newest attempt. 0 if there was none.
    last_attempt: u32,
    /// The newest attempt is that of a handler, which may have been called.
    called: bool,
    /// Why the supervisor could not be started, until the fence has shown that it was not.
    spawn_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Receiving,
    Accepted,
    Starting { attempt: u32 },
    Running { attempt: u32 },
    Final { outcome: Outcome, started: bool },
}

/// What happens to a unit at the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecutorInput {
    /// The submitter offers it, again.
    Offer { hash: SpecHash },
    /// So many bytes of the payload are on disk.
    Stored { offset: u64 },
    /// The payload was finished by the submitter. It is on disk, synced, and has the digest in the
    /// spec.
    Complete,
    /// The payload is complete on disk and does not have the digest in the spec. It was removed.
    Corrupt,
    /// Its turn to start has come.
    Turn,
    /// The supervisor of the attempt has created the `run` file.
    Started { attempt: u32 },
    /// A handler of this process is about to be called. Its attempt has no `run` file: the journal
    /// takes its place.
    Calling { attempt: u32 },
    /// The handler was not called, because the node is shutting down. Its next run calls it.
    NotCalled { attempt: u32 },
    /// The outcome of [`ExecutorEffect::Fence`]: whether this node created the `run` file, so that
    /// the attempt is void.
    Fenced { attempt: u32, void: bool },
    /// The supervisor could not be started. It does not say whether the attempt is void.
    SpawnFailed { attempt: u32, text: String },
    /// The supervisor of the attempt has recorded how it ended.
    Exited { attempt: u32, exit: Exit },
    /// The supervisor is gone: its lock is free, there is a `run` file, and it recorded nothing.
    Vanished { attempt: u32 },
    /// The submitter cancels it.
    Cancel { grace_ms: u64 },
    /// The submitter releases it; `force` also if that ends a running attempt.
    Release { force: bool },
    /// Time has passed.
    Tick,
}

/// What the executor's caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExecutorEffect {
    /// Answer the request that this step came from.
    Answer(Answer),
    /// The state has changed: notify the watchers of the unit.
    Publish,
    /// Wait for a turn to start.
    Enqueue,
    /// Wait no longer.
    Dequeue,
    /// Start the supervisor of this attempt. Doing so more than once is harmless: one of them
    /// creates the `run` file.
    Start { attempt: u32 },
    /// Take charge of a supervisor that runs already.
    Adopt { attempt: u32 },
    /// Create the attempt's `run` file, and report whether it was there.
    Fence { attempt: u32 },
    /// End the attempt: ask, and kill after the grace. Repeated whenever the supervisor may not
    /// have heard it.
    Terminate { attempt: u32, grace_ms: u64 },
    /// Record a tombstone until this time, sync it, and remove the unit.
    Remove { tombstone_until: UnitTime },
}

/// How a supervisor recorded the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// What ended it.
    pub(crate) end: ExitKind,
    /// Whether the end followed from a request to terminate.
    pub(crate) terminated: bool,
}

/// What a supervisor saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExitKind {
    Status(i32),
    Signal(i32),
    RunTime,
    OutputLimit,
    NotStarted(String),
    /// A handler of this process failed.
    Handler(String),
}

/// Who created an attempt's `run` file. It comes into being together with its content, by a link to
/// a complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunFile {
    Absent,
    /// The supervisor that runs the command, or did.
    Supervisor,
    /// The node, to make the attempt void.
    Fence,
}

/// What a restarted executor finds on disk of the last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Who created the `run` file.
    pub(crate) run: RunFile,
    /// A process holds the lock.
    pub(crate) locked: bool,
    /// What the supervisor recorded.
    pub(crate) exit: Option<Exit>,
}

/// Attempts count from 1.
const FIRST_ATTEMPT: u32 = 1;

type ExecutorStep = Step<ExecutorEntry, ExecutorEffect>;

impl ExecutorUnit {
    /// A unit that is offered for the first time, with the time that remains for its start.
    pub(crate) fn offered(
        spec: UnitSpec,
        start_within_ms: u64,
        now: UnitTime,
    ) -> (Self, ExecutorStep) {
        let start_by = now.plus(start_within_ms.min(spec.start_by_ms));
        let hash = spec.hash();
        let spec = Arc::new(spec);
        let entry = ExecutorEntry {
            at: now,
            change: ExecutorChange::Offered { spec: (*spec).clone(), start_by },
        };
        let unit = Self {
            spec,
            hash,
            start_by,
            stage: Stage::Receiving,
            offset: 0,
            cancel: None,
            release: false,
            since: now,
            version: 1,
            last_attempt: 0,
            called: false,
            spawn_error: None,
        };
        // The journal must hold the unit before the submitter may finish the payload.
        let effects = vec![ExecutorEffect::Answer(Answer::Have { offset: 0 })];
        (unit, Step { entries: vec![entry], effects })
    }

    /// Rebuilds a unit from its journal.
    pub(crate) fn replay(entries: &[ExecutorEntry]) -> Result<Self, DamagedJournal> {
        let (first, rest) = entries.split_first().ok_or(DamagedJournal::Empty)?;
        let ExecutorChange::Offered { spec, start_by } = &first.change else {
            return Err(DamagedJournal::OutOfOrder { index: 0 });
        };
        let mut unit = Self {
            hash: spec.hash(),
            spec: Arc::new(spec.clone()),
            start_by: *start_by,
            stage: Stage::Receiving,
            offset: 0,
            cancel: None,
            release: false,
            since: first.at,
            version: 1,
            last_attempt: 0,
            called: false,
            spawn_error: None,
        };
        for (index, entry) in rest.iter().enumerate() {
            if !unit.follows(&entry.change) {
                return Err(DamagedJournal::OutOfOrder { index: index + 1 });
            }
            unit.apply(entry);
        }
        if unit.stage != Stage::Receiving {
            unit.offset = unit.spec.payload_len;
        }
        Ok(unit)
    }

    /// Resumes after a restart, with what is on disk beside the journal. `stored` is the length of
    /// the payload file.
    pub(crate) fn resume(&mut self, stored: u64, found: &Found, now: UnitTime) -> ExecutorStep {
        let mut step = Step::default();
        match self.stage {
            Stage::Receiving => self.offset = stored.min(self.spec.payload_len),
            // The entry that says so was not synced before the attempt was begun or made void.
            Stage::Accepted if found.run != RunFile::Absent => {
                self.record(ExecutorChange::Starting { attempt: FIRST_ATTEMPT }, &mut step, now);
                self.resume_attempt(FIRST_ATTEMPT, found, &mut step, now);
            }
            Stage::Accepted => step.effects.push(ExecutorEffect::Enqueue),
            Stage::Starting { attempt } | Stage::Running { attempt } => {
                self.resume_attempt(attempt, found, &mut step, now);
            }
            Stage::Final { .. } => {}
        }
        self.wind_up(&mut step, now);
        step
    }

    /// Feeds one input.
    pub(crate) fn handle(&mut self, input: ExecutorInput, now: UnitTime) -> ExecutorStep {
        let mut step = Step::default();
        match input {
            ExecutorInput::Offer { hash } => self.on_offer(hash, &mut step),
            ExecutorInput::Stored { offset } => self.stored(offset),
            ExecutorInput::Complete => self.on_complete(&mut step, now),
            ExecutorInput::Corrupt => self.on_corrupt(&mut step),
            ExecutorInput::Turn => self.on_turn(&mut step, now),
            ExecutorInput::Started { attempt } => self.on_started(attempt, &mut step, now),
            ExecutorInput::Calling { attempt } => self.on_calling(attempt, &mut step, now),
            ExecutorInput::NotCalled { attempt } => self.on_not_called(attempt, &mut step, now),
            ExecutorInput::Fenced { attempt, void } => {
                self.on_fenced(attempt, void, &mut step, now)
            }
            ExecutorInput::SpawnFailed { attempt, text } => {
                self.on_spawn_failed(attempt, text, &mut step);
            }
            ExecutorInput::Exited { attempt, exit } => {
                self.on_exited(attempt, exit, &mut step, now)
            }
            ExecutorInput::Vanished { attempt } => self.on_vanished(attempt, &mut step, now),
            ExecutorInput::Cancel { grace_ms } => self.on_cancel(grace_ms, &mut step, now),
            ExecutorInput::Release { force } => self.on_release(force, &mut step, now),
            ExecutorInput::Tick => {}
        }
        self.wind_up(&mut step, now);
        step
    }

    /// When [`ExecutorInput::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<UnitTime> {
        match self.stage {
            Stage::Receiving | Stage::Accepted => Some(self.start_by),
            Stage::Starting { .. } | Stage::Running { .. } => None,
            Stage::Final { .. } => Some(self.since.plus(self.spec.keep_for_ms)),
        }
    }

    /// Where the unit stands. To be published once the step that led here is on disk.
    pub(crate) fn status(&self) -> Report {
        let (state, started) = match &self.stage {
            Stage::Receiving => (ReportState::Receiving { offset: self.offset }, false),
            Stage::Accepted => (ReportState::Accepted, false),
            Stage::Starting { .. } => (ReportState::Starting, true),
            Stage::Running { .. } => (ReportState::Running, true),
            Stage::Final { outcome, started } => (ReportState::Final(outcome.clone()), *started),
        };
        Report { version: self.version, state, started, since: self.since }
    }

    pub(crate) fn spec(&self) -> &Arc<UnitSpec> {
        &self.spec
    }

    /// The newest attempt. 0 if there was none.
    pub(crate) fn last_attempt(&self) -> u32 {
        self.last_attempt
    }

    /// When the newest entry of the journal was made.
    pub(crate) fn since(&self) -> UnitTime {
        self.since
    }

    /// Whether its release was asked for.
    pub(crate) fn is_releasing(&self) -> bool {
        self.release
    }

    pub(crate) fn is_final(&self) -> bool {
        matches!(self.stage, Stage::Final { .. })
    }

    /// The attempt of which there may be something on disk: that which a supervisor may be running,
    /// or the next one of a unit that waits for its turn.
    pub(crate) fn attempt_on_disk(&self) -> Option<u32> {
        match self.stage {
            Stage::Accepted => Some(FIRST_ATTEMPT),
            _ => self.attempt(),
        }
    }

    /// The attempt that a supervisor may be running.
    pub(crate) fn attempt(&self) -> Option<u32> {
        match self.stage {
            Stage::Starting { attempt } | Stage::Running { attempt } => Some(attempt),
            _ => None,
        }
    }

    fn on_offer(&self, hash: SpecHash, step: &mut ExecutorStep) {
        step.effects.push(ExecutorEffect::Answer(if hash != self.hash {
            Answer::Refused(UnitRefusal::Conflict)
        } else if self.stage == Stage::Receiving {
            Answer::Have { offset: self.offset }
        } else {
            Answer::Status(self.status())
        }));
    }

    /// Sets how much of the payload is on disk.
    pub(crate) fn stored(&mut self, offset: u64) {
        if self.stage == Stage::Receiving {
            self.offset = offset.min(self.spec.payload_len);
        }
    }

    fn on_complete(&mut self, step: &mut ExecutorStep, now: UnitTime) {
        // A payload that is complete too late does not make the unit accepted: wind_up ends it.
        if self.stage == Stage::Receiving && self.cancel.is_none() && now < self.start_by {
            self.record(ExecutorChange::Accepted, step, now);
            step.effects.push(ExecutorEffect::Enqueue);
        } else {
            self.wind_up(step, now);
        }
        step.effects.push(ExecutorEffect::Answer(Answer::Status(self.status())));
    }

    fn on_corrupt(&mut self, step: &mut ExecutorStep) {
        if self.stage == Stage::Receiving {
            self.offset = 0;
            step.effects.push(ExecutorEffect::Answer(Answer::Have { offset: 0 }));
        }
    }

    fn on_turn(&mut self, step: &mut ExecutorStep, now: UnitTime) {
        if self.stage == Stage::Accepted && now < self.start_by {
            self.start(FIRST_ATTEMPT, step, now);
        }
    }

    fn on_started(&mut self, attempt: u32, step: &mut ExecutorStep, now: UnitTime) {
        if self.stage != (Stage::Starting { attempt }) {
            return;
        }
        self.record(ExecutorChange::Running { attempt }, step, now);
        self.terminate_if_cancelled(attempt, step);
    }

    fn on_calling(&mut self, attempt: u32, step: &mut ExecutorStep, now: UnitTime) {
        if self.stage == (Stage::Starting { attempt }) {
            self.record(ExecutorChange::Called { attempt }, step, now);
            self.terminate_if_cancelled(attempt, step);
        }
    }

    fn on_not_called(&mut self, attempt: u32, step: &mut ExecutorStep, now: UnitTime) {
        if self.called && self.stage == (Stage::Running { attempt }) {
            self.record(ExecutorChange::NotCalled { attempt }, step, now);
        }
    }

    /// Repeats a cancellation that may have come before there was anything to terminate.
    fn terminate_if_cancelled(&self, attempt: u32, step: &mut ExecutorStep) {
        if let Some(grace_ms) = self.cancel {
            step.effects.push(ExecutorEffect::Terminate { attempt, grace_ms });
        }
    }

    fn on_spawn_failed(&mut self, attempt: u32, text: String, step: &mut ExecutorStep) {
        // A process that was forked may still be on its way to the `run` file: only the fence can
        // tell. A supervisor that could not sync that file has removed it again.
        if self.attempt() == Some(attempt) {
            self.spawn_error = Some(text);
            step.effects.push(ExecutorEffect::Fence { attempt });
        }
    }

    fn on_fenced(&mut self, attempt: u32, void: bool, step: &mut ExecutorStep, now: UnitTime) {
        if self.attempt() != Some(attempt) {
            return;
        }
        if !void {
            step.effects.push(ExecutorEffect::Adopt { attempt });
            return;
        }
        // Attempts before this one may have run.
        let started = attempt > 1;
        let outcome = if self.cancel.is_some() {
            Outcome::Cancelled
        } else {
            let text = self.spawn_error.take();
            Outcome::Failed(Failure::NotStarted(
                text.unwrap_or_else(|| "the supervisor did not start".into()),
            ))
        };
        self.end(outcome, started, step, now);
    }

    fn on_exited(&mut self, attempt: u32, exit: Exit, step: &mut ExecutorStep, now: UnitTime) {
        if self.attempt() != Some(attempt) {
            return;
        }
        let started = attempt > 1 || !matches!(exit.end, ExitKind::NotStarted(_));
        let outcome = match exit.end {
            // A command that ends well has succeeded, whatever was asked of it meanwhile.
            ExitKind::Status(0) => Outcome::Succeeded,
            _ if exit.terminated && self.cancel.is_some() => Outcome::Cancelled,
            ExitKind::Status(status) => Outcome::Failed(Failure::Exit(status)),
            ExitKind::Signal(signal) => Outcome::Failed(Failure::Signal(signal)),
            ExitKind::RunTime => Outcome::Failed(Failure::RunTime),
            ExitKind::OutputLimit => Outcome::Failed(Failure::OutputLimit),
            ExitKind::NotStarted(text) => Outcome::Failed(Failure::NotStarted(text)),
            ExitKind::Handler(text) => Outcome::Failed(Failure::Handler(text)),
        };
        self.end(outcome, started, step, now);
    }

    fn on_vanished(&mut self, attempt: u32, step: &mut ExecutorStep, now: UnitTime) {
        if self.attempt() != Some(attempt) {
            return;
        }
        if self.spec.idempotent && self.cancel.is_none() && attempt < MAX_ATTEMPTS {
            self.start(attempt + 1, step, now);
        } else {
            self.end(Outcome::Lost, true, step, now);
        }
    }

    fn on_cancel(&mut self, grace_ms: u64, step: &mut ExecutorStep, now: UnitTime) {
        match self.stage {
            Stage::Final { .. } => {}
            Stage::Receiving | Stage::Accepted => {
                self.record(ExecutorChange::CancelWanted { grace_ms }, step, now);
            }
            Stage::Starting { attempt } | Stage::Running { attempt } => {
                // A later request may shorten the grace, not lengthen it.
                if self.cancel.is_none_or(|before| grace_ms < before) {
                    self.record(ExecutorChange::CancelWanted { grace_ms }, step, now);
                }
                step.effects.push(ExecutorEffect::Terminate { attempt, grace_ms });
            }
        }
        // wind_up may end the unit in this very step: the answer is that of the end.
        self.wind_up(step, now);
        step.effects.push(ExecutorEffect::Answer(Answer::Status(self.status())));
    }

    fn on_release(&mut self, force: bool, step: &mut ExecutorStep, now: UnitTime) {
        if !force && self.attempt().is_some() {
            step.effects.push(ExecutorEffect::Answer(Answer::Status(self.status())));
            return;
        }
        if !self.release {
            self.record(ExecutorChange::ReleaseWanted, step, now);
        }
        if !self.is_final() && (force || self.cancel.is_none()) {
            // This shortens the grace of an earlier cancellation.
            self.on_cancel(0, step, now);
        }
        let is_final = self.is_final();
        step.effects.retain(|effect| !matches!(effect, ExecutorEffect::Answer(_)));
        step.effects.push(ExecutorEffect::Answer(if is_final {
            Answer::Released
        } else {
            Answer::Status(self.status())
        }));
    }

    fn resume_attempt(
        &mut self,
        attempt: u32,
        found: &Found,
        step: &mut ExecutorStep,
        now: UnitTime,
    ) {
        // The journal takes the place of the `run` file of a handler.
        let run = if self.called { RunFile::Supervisor } else { found.run };
        // Recorded even if the attempt is over, so that the versions before and after a power
        // failure count the same changes.
        if run == RunFile::Supervisor && self.stage == (Stage::Starting { attempt }) {
            self.record(ExecutorChange::Running { attempt }, step, now);
        }
        if let Some(exit) = &found.exit {
            self.on_exited(attempt, exit.clone(), step, now);
        } else if run == RunFile::Fence {
            self.on_fenced(attempt, true, step, now);
        } else if found.locked {
            step.effects.push(ExecutorEffect::Adopt { attempt });
            self.terminate_if_cancelled(attempt, step);
        } else if run == RunFile::Supervisor {
            self.on_vanished(attempt, step, now);
        } else if self.cancel.is_some() {
            // A supervisor may be on its way to the `run` file.
            step.effects.push(ExecutorEffect::Fence { attempt });
        } else {
            step.effects.push(ExecutorEffect::Start { attempt });
        }
    }

    fn start(&mut self, attempt: u32, step: &mut ExecutorStep, now: UnitTime) {
        self.record(ExecutorChange::Starting { attempt }, step, now);
        step.effects.push(ExecutorEffect::Start { attempt });
    }

    fn end(&mut self, outcome: Outcome, started: bool, step: &mut ExecutorStep, now: UnitTime) {
        if self.stage == Stage::Accepted {
            step.effects.push(ExecutorEffect::Dequeue);
        }
        self.record(ExecutorChange::Final { outcome, started }, step, now);
    }

    /// Ends what can end without an attempt, and removes what has ended and is no longer kept.
    fn wind_up(&mut self, step: &mut ExecutorStep, now: UnitTime) {
        if matches!(self.stage, Stage::Receiving | Stage::Accepted) {
            if self.cancel.is_some() {
                self.end(Outcome::Cancelled, false, step, now);
            } else if now >= self.start_by {
                self.end(Outcome::Expired, false, step, now);
            }
        }
        let removes = |effect: &ExecutorEffect| matches!(effect, ExecutorEffect::Remove { .. });
        if self.is_final()
            && (self.release || now >= self.since.plus(self.spec.keep_for_ms))
            && !step.effects.iter().any(removes)
        {
            let tombstone_until =
                self.start_by.max(now).plus(crate::work::unit::limits::TOMBSTONE_MARGIN_MS);
            step.effects.push(ExecutorEffect::Remove { tombstone_until });
        }
    }

    fn record(&mut self, change: ExecutorChange, step: &mut ExecutorStep, now: UnitTime) {
        let entry = ExecutorEntry { at: now, change };
        self.apply(&entry);
        step.entries.push(entry);
        if !step.effects.contains(&ExecutorEffect::Publish) {
            step.effects.push(ExecutorEffect::Publish);
        }
    }

    /// Whether a change may come now. Guards a replay against journals that were not written by
    /// these rules.
    fn follows(&self, change: &ExecutorChange) -> bool {
        match (change, &self.stage) {
            (ExecutorChange::Offered { .. }, _) => false,
            (ExecutorChange::ReleaseWanted, _) => true,
            (_, Stage::Final { .. }) => false,
            (ExecutorChange::Accepted, stage) => *stage == Stage::Receiving,
            (ExecutorChange::Starting { attempt: 1 }, stage) => *stage == Stage::Accepted,
            (
                ExecutorChange::Starting { attempt },
                Stage::Starting { attempt: last } | Stage::Running { attempt: last },
            ) => *attempt == last + 1 && self.spec.idempotent,
            (ExecutorChange::Running { attempt } | ExecutorChange::Called { attempt }, stage) => {
                *stage == Stage::Starting { attempt: *attempt }
            }
            (ExecutorChange::NotCalled { attempt }, stage) => {
                self.called && *stage == Stage::Running { attempt: *attempt }
            }
            (ExecutorChange::Starting { .. }, _) => false,
            (ExecutorChange::CancelWanted { .. } | ExecutorChange::Final { .. }, _) => true,
        }
    }

    fn apply(&mut self, entry: &ExecutorEntry) {
        match &entry.change {
            ExecutorChange::Offered { .. } => {}
            ExecutorChange::Accepted => {
                self.stage = Stage::Accepted;
                self.offset = self.spec.payload_len;
            }
            ExecutorChange::Starting { attempt } => {
                self.stage = Stage::Starting { attempt: *attempt };
                self.last_attempt = *attempt;
                self.called = false;
            }
            ExecutorChange::Running { attempt } => {
                self.stage = Stage::Running { attempt: *attempt }
            }
            ExecutorChange::Called { attempt } => {
                self.stage = Stage::Running { attempt: *attempt };
                self.called = true;
            }
            ExecutorChange::NotCalled { attempt } => {
                self.stage = Stage::Starting { attempt: *attempt };
                self.called = false;
            }
            ExecutorChange::CancelWanted { grace_ms } => self.cancel = Some(*grace_ms),
            ExecutorChange::ReleaseWanted => self.release = true,
            ExecutorChange::Final { outcome, started } => {
                self.called = false;
                self.stage = Stage::Final { outcome: outcome.clone(), started: *started };
            }
        }
        self.since = entry.at;
        self.version += 1;
    }
}
