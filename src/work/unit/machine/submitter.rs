//! One unit at the submitter.

use super::entry::{Answer, DamagedJournal, Step, StoreId, SubmitterChange, SubmitterEntry};
use super::time::UnitTime;
use crate::id::NodeId;
use crate::work::unit::outcome::{Outcome, Report, ReportState, UnitRefusal};
use crate::work::unit::spec::UnitSpec;

mod ended;
pub(crate) use ended::EndedSubmitter;

/// One unit at the submitter: what its journal says, and what the executor last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubmitterUnit {
    node: NodeId,
    spec: UnitSpec,
    start_by: UnitTime,
    stage: Stage,
    /// Whether the executor may hold anything of the unit: it was offered, or was before a restart.
    offered: bool,
    cancel: Option<u64>,
    release: Option<bool>,
    since: UnitTime,
    /// The newest report of the executor.
    reported: Option<Report>,
    session: Session,
    /// The grace of the cancellation that this session has passed on.
    passed_on: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Queued,
    Handing { store: StoreId },
    Accepted { store: StoreId },
    Final { outcome: Outcome, started: bool },
}

/// Whether the executor can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Down,
    Idle,
    /// A request has no answer yet.
    Asked,
    /// Changes are reported as they happen.
    Watching,
}

/// What happens to a unit at the submitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmitterInput {
    /// The executor can be asked.
    Up,
    /// It cannot; whatever was asked last may or may not have arrived.
    Down,
    /// It answered the request, or reported a change.
    Answer { store: StoreId, answer: Answer },
    /// The payload was sent up to its end, which was not announced yet.
    PayloadSent { store: StoreId },
    /// The executor takes no units at all, or none of this node.
    NotServed(UnitRefusal),
    /// The user cancels it.
    Cancel { grace_ms: u64 },
    /// The user releases it, `force` also if that ends a running job.
    Release { force: bool },
    /// The user removes it here, whatever becomes of it at the executor.
    Abandon,
    /// Time has passed.
    Tick,
}

/// What the submitter's caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmitterEffect {
    /// Ask the executor. There is one request at a time.
    Request(Request),
    /// Send the payload from this offset, and feed [`SubmitterInput::PayloadSent`] instead of
    /// finishing it.
    SendPayload { offset: u64, store: StoreId },
    /// Finish the payload.
    Finish,
    /// The state has changed: notify the watchers of the unit.
    Publish,
    /// Remove the unit.
    Remove,
}

/// What the submitter asks of the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Offer {
        start_within_ms: u64,
    },
    /// Report the status now, and each change from then on.
    Watch,
    Cancel {
        grace_ms: u64,
        start_within_ms: u64,
    },
    Release {
        force: bool,
    },
}

type SubmitterStep = Step<SubmitterEntry, SubmitterEffect>;

impl SubmitterUnit {
    /// A new unit, whose payload is on disk.
    pub(crate) fn queued(node: NodeId, spec: UnitSpec, now: UnitTime) -> (Self, SubmitterStep) {
        let change = SubmitterChange::Queued { node: node.clone(), spec: spec.clone() };
        let entry = SubmitterEntry { at: now, change };
        let step = Step { entries: vec![entry], effects: vec![SubmitterEffect::Publish] };
        (Self::new(node, spec, now), step)
    }

    /// Rebuilds a unit from its journal.
    pub(crate) fn replay(entries: &[SubmitterEntry]) -> Result<Self, DamagedJournal> {
        let (first, rest) = entries.split_first().ok_or(DamagedJournal::Empty)?;
        let SubmitterChange::Queued { node, spec } = &first.change else {
            return Err(DamagedJournal::OutOfOrder { index: 0 });
        };
        let mut unit = Self::new(node.clone(), spec.clone(), first.at);
        unit.offered = true;
        for (index, entry) in rest.iter().enumerate() {
            if !unit.follows(&entry.change) {
                return Err(DamagedJournal::OutOfOrder { index: index + 1 });
            }
            unit.apply(entry);
        }
        Ok(unit)
    }

    fn new(node: NodeId, spec: UnitSpec, now: UnitTime) -> Self {
        Self {
            node,
            start_by: now.plus(spec.start_by_ms),
            spec,
            stage: Stage::Queued,
            offered: false,
            cancel: None,
            release: None,
            since: now,
            reported: None,
            session: Session::Down,
            passed_on: None,
        }
    }

    /// Feeds one input.
    pub(crate) fn handle(&mut self, input: SubmitterInput, now: UnitTime) -> SubmitterStep {
        let mut step = Step::default();
        match input {
            SubmitterInput::Up => (self.session, self.passed_on) = (Session::Idle, None),
            SubmitterInput::Down => self.session = Session::Down,
            SubmitterInput::Answer { store, answer } => {
                self.on_answer(store, answer, &mut step, now)
            }
            SubmitterInput::PayloadSent { store } => self.on_payload_sent(store, &mut step, now),
            SubmitterInput::NotServed(why) => self.on_not_served(why, &mut step, now),
            SubmitterInput::Cancel { grace_ms } => self.on_cancel(grace_ms, &mut step, now),
            SubmitterInput::Release { force } => self.on_release(force, &mut step, now),
            SubmitterInput::Abandon => step.effects.push(SubmitterEffect::Remove),
            SubmitterInput::Tick => {}
        }
        self.wind_up(&mut step, now);
        self.ask(&mut step, now);
        step
    }

    /// When [`SubmitterInput::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<UnitTime> {
        match self.stage {
            Stage::Queued => Some(self.start_by),
            Stage::Handing { .. } | Stage::Accepted { .. } => None,
            Stage::Final { .. } => Some(self.since.plus(self.spec.keep_for_ms)),
        }
    }

    /// Where the unit stands, as far as the submitter knows.
    pub(crate) fn status(&self) -> Report {
        let (state, started) = match (&self.stage, &self.reported) {
            (Stage::Final { outcome, started }, _) => {
                (ReportState::Final(outcome.clone()), *started)
            }
            (_, Some(reported)) => return reported.clone(),
            (Stage::Queued, None) => (ReportState::Queued, false),
            (Stage::Handing { .. }, None) => (ReportState::Handing, false),
            (Stage::Accepted { .. }, None) => (ReportState::Accepted, false),
        };
        let version = self.reported.as_ref().map_or(0, |reported| reported.version);
        Report { version, state, started, since: self.since }
    }

    pub(crate) fn spec(&self) -> &UnitSpec {
        &self.spec
    }

    /// The node that is to execute it.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// When it was submitted.
    pub(crate) fn created(&self) -> UnitTime {
        UnitTime(self.start_by.0.saturating_sub(self.spec.start_by_ms))
    }

    /// When the newest entry of the journal was made.
    pub(crate) fn since(&self) -> UnitTime {
        self.since
    }

    /// Whether the payload is not needed any more.
    pub(crate) fn is_handed(&self) -> bool {
        matches!(self.stage, Stage::Accepted { .. } | Stage::Final { .. })
    }

    /// Whether its release was asked for.
    pub(crate) fn is_releasing(&self) -> bool {
        self.release.is_some()
    }

    /// Whether nothing is left to ask the executor.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_final() && (self.release.is_none() || !self.offered)
    }

    pub(crate) fn is_final(&self) -> bool {
        matches!(self.stage, Stage::Final { .. })
    }

    /// Whether nothing is asked of the executor until [`SubmitterInput::Up`].
    pub(crate) fn is_down(&self) -> bool {
        self.session == Session::Down
    }

    fn on_answer(
        &mut self,
        store: StoreId,
        answer: Answer,
        step: &mut SubmitterStep,
        now: UnitTime,
    ) {
        if self.session == Session::Asked {
            self.session = Session::Idle;
        }
        // Another store knows nothing of what became of the unit.
        if let Stage::Handing { store: handed } | Stage::Accepted { store: handed } = self.stage
            && handed != store
        {
            self.end(Outcome::Lost, true, step, now);
            return;
        }
        match answer {
            Answer::Have { offset } => self.on_have(offset, store, step, now),
            Answer::Status(status) => self.on_status(store, status, step, now),
            Answer::Refused(refusal) => {
                if matches!(self.stage, Stage::Queued | Stage::Handing { .. }) {
                    self.end(Outcome::Refused(refusal), false, step, now);
                }
            }
            // The caller comes back with Up when it is time to try again.
            Answer::Busy => self.session = Session::Down,
            Answer::Unknown => self.on_unknown(step, now),
            Answer::NeverAccepted => self.on_never_accepted(step, now),
            Answer::Released => self.on_released(step, now),
        }
    }

    fn on_have(&mut self, offset: u64, store: StoreId, step: &mut SubmitterStep, now: UnitTime) {
        // Otherwise the executor lets it expire, or is asked to cancel it.
        if self.may_finish(store, now) {
            self.session = Session::Asked;
            step.effects.push(SubmitterEffect::SendPayload { offset, store });
        }
    }

    fn on_payload_sent(&mut self, store: StoreId, step: &mut SubmitterStep, now: UnitTime) {
        if !self.may_finish(store, now) {
            return;
        }
        if self.stage == Stage::Queued {
            self.record(SubmitterChange::Handing { store }, step, now);
        }
        self.session = Session::Asked;
        step.effects.push(SubmitterEffect::Finish);
    }

    /// Whether the payload may be finished, so that this store may accept the unit.
    fn may_finish(&self, store: StoreId, now: UnitTime) -> bool {
        let open = self.stage == Stage::Queued || self.stage == Stage::Handing { store };
        open && self.cancel.is_none() && now < self.start_by
    }

    fn on_status(
        &mut self,
        store: StoreId,
        status: Report,
        step: &mut SubmitterStep,
        now: UnitTime,
    ) {
        if self.is_final() {
            // The answer to a release: it is carried out once the executor's unit has ended.
            self.session = Session::Watching;
            return;
        }
        // An executor that lost its power counts again from what it had synced. A final state does
        // not change any more, so it is accepted with any version.
        let is_final = matches!(status.state, ReportState::Final(_));
        let is_old = |reported: &Report| reported.version >= status.version;
        if !is_final && self.reported.as_ref().is_some_and(is_old) {
            return;
        }
        self.reported = Some(status.clone());
        step.effects.push(SubmitterEffect::Publish);
        match status.state {
            ReportState::Final(outcome) => {
                self.session = Session::Idle;
                self.end(outcome, status.started, step, now);
            }
            ReportState::Accepted | ReportState::Starting | ReportState::Running
                if !matches!(self.stage, Stage::Accepted { .. }) =>
            {
                // A submitter that lost its journal has submitted a unit again that is under way
                // already.
                if self.stage == Stage::Queued {
                    self.record(SubmitterChange::Handing { store }, step, now);
                }
                self.record(SubmitterChange::Accepted, step, now);
            }
            _ => {}
        }
    }

    fn on_unknown(&mut self, step: &mut SubmitterStep, now: UnitTime) {
        // The executor journals a unit before the submitter may finish its payload: it has lost
        // what it knew.
        if matches!(self.stage, Stage::Handing { .. } | Stage::Accepted { .. }) {
            self.end(Outcome::Lost, true, step, now);
        } else {
            self.on_released(step, now);
        }
    }

    fn on_never_accepted(&mut self, step: &mut SubmitterStep, now: UnitTime) {
        match self.stage {
            Stage::Queued | Stage::Handing { .. } => self.end(Outcome::Cancelled, false, step, now),
            // It had been accepted by this store, which has forgotten it.
            Stage::Accepted { .. } => self.end(Outcome::Lost, true, step, now),
            Stage::Final { .. } => self.on_released(step, now),
        }
    }

    fn on_released(&mut self, step: &mut SubmitterStep, now: UnitTime) {
        if !self.is_final() {
            // Somebody else with this certificate released it.
            self.end(Outcome::Lost, true, step, now);
        }
        if self.release.is_some() {
            self.offered = false;
        }
    }

    fn on_not_served(&mut self, why: UnitRefusal, step: &mut SubmitterStep, now: UnitTime) {
        // One that was, or may have been, accepted is there again when units are served again.
        if self.stage == Stage::Queued {
            self.end(Outcome::Refused(why), false, step, now);
        }
    }

    fn on_cancel(&mut self, grace_ms: u64, step: &mut SubmitterStep, now: UnitTime) {
        if !self.is_final() && self.cancel.is_none_or(|before| grace_ms < before) {
            self.record(SubmitterChange::CancelWanted { grace_ms }, step, now);
        }
    }

    fn on_release(&mut self, force: bool, step: &mut SubmitterStep, now: UnitTime) {
        if self.session == Session::Watching && self.is_final() {
            self.session = Session::Idle;
        }
        if self.release.is_none_or(|before| force && !before) {
            self.record(SubmitterChange::ReleaseWanted { force }, step, now);
        }
        if force {
            // This shortens the grace of an earlier cancellation.
            self.on_cancel(0, step, now);
        }
    }

    fn end(&mut self, outcome: Outcome, started: bool, step: &mut SubmitterStep, now: UnitTime) {
        self.record(SubmitterChange::Final { outcome, started }, step, now);
    }

    /// Ends what can end here, and removes what has ended and is no longer kept.
    fn wind_up(&mut self, step: &mut SubmitterStep, now: UnitTime) {
        // The payload was not finished: the unit cannot have been accepted, and never will be.
        if self.stage == Stage::Queued {
            if self.cancel.is_some() || self.release.is_some() {
                self.end(Outcome::Cancelled, false, step, now);
            } else if now >= self.start_by {
                self.end(Outcome::Expired, false, step, now);
            }
        }
        let kept = now < self.since.plus(self.spec.keep_for_ms);
        let wanted = kept && (self.release.is_none() || self.offered);
        if self.is_final() && !wanted && !step.effects.contains(&SubmitterEffect::Remove) {
            step.effects.push(SubmitterEffect::Remove);
        }
    }

    /// Asks what is to be asked next, if the executor can be asked.
    fn ask(&mut self, step: &mut SubmitterStep, now: UnitTime) {
        let can_ask = matches!(self.session, Session::Idle | Session::Watching);
        if !can_ask || step.effects.contains(&SubmitterEffect::Remove) {
            return;
        }
        let start_within_ms =
            u64::try_from(now.until(self.start_by).as_millis()).unwrap_or(u64::MAX);
        let cancel = self.cancel.filter(|_| self.passed_on != self.cancel);
        let watching = self.session == Session::Watching;
        let request = match (&self.stage, cancel, self.release) {
            (Stage::Final { .. }, _, Some(force)) if self.offered && !watching => {
                Request::Release { force }
            }
            (Stage::Final { .. }, ..) => return,
            (_, Some(grace_ms), _) => Request::Cancel { grace_ms, start_within_ms },
            _ if watching => return,
            (Stage::Queued, ..) => Request::Offer { start_within_ms },
            (Stage::Handing { .. }, ..) if self.cancel.is_none() && now < self.start_by => {
                Request::Offer { start_within_ms }
            }
            (Stage::Handing { .. } | Stage::Accepted { .. }, ..) => Request::Watch,
        };
        self.session = match request {
            Request::Watch => Session::Watching,
            _ => Session::Asked,
        };
        if matches!(request, Request::Cancel { .. }) {
            self.passed_on = self.cancel;
        }
        self.offered = true;
        step.effects.push(SubmitterEffect::Request(request));
    }

    fn record(&mut self, change: SubmitterChange, step: &mut SubmitterStep, now: UnitTime) {
        let entry = SubmitterEntry { at: now, change };
        self.apply(&entry);
        step.entries.push(entry);
        if !step.effects.contains(&SubmitterEffect::Publish) {
            step.effects.push(SubmitterEffect::Publish);
        }
    }

    /// Whether a change may come now. Guards a replay against journals that were not written by
    /// these rules.
    fn follows(&self, change: &SubmitterChange) -> bool {
        match (change, &self.stage) {
            (SubmitterChange::Queued { .. }, _) => false,
            (SubmitterChange::ReleaseWanted { .. }, _) => true,
            (_, Stage::Final { .. }) => false,
            (SubmitterChange::Handing { .. }, stage) => *stage == Stage::Queued,
            (SubmitterChange::Accepted, stage) => matches!(stage, Stage::Handing { .. }),
            (SubmitterChange::CancelWanted { .. } | SubmitterChange::Final { .. }, _) => true,
        }
    }

    fn apply(&mut self, entry: &SubmitterEntry) {
        match &entry.change {
            SubmitterChange::Queued { .. } => {}
            SubmitterChange::Handing { store } => self.stage = Stage::Handing { store: *store },
            SubmitterChange::Accepted => {
                if let Stage::Handing { store } = self.stage {
                    self.stage = Stage::Accepted { store };
                }
            }
            SubmitterChange::CancelWanted { grace_ms } => self.cancel = Some(*grace_ms),
            SubmitterChange::ReleaseWanted { force } => self.release = Some(*force),
            SubmitterChange::Final { outcome, started } => {
                self.stage = Stage::Final { outcome: outcome.clone(), started: *started };
            }
        }
        self.since = entry.at;
    }
}
