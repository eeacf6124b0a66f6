//! One unit that this node has submitted.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use uuid::Uuid;

use crate::id::NodeId;
use crate::sync::lock;
use crate::work::unit::api::{UnitId, UnitState, UnitStatus};
use crate::work::unit::busy::BusyReason;
use crate::work::unit::machine::submitter::{EndedSubmitter, SubmitterUnit};
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::outcome::ReportState;
use crate::work::unit::service::progress::Progress;
use crate::work::unit::service::unit_table::Unit;
use crate::work::unit::store::UnitDir;

/// One unit that this node has submitted.
#[derive(Debug)]
pub(crate) struct OutUnit {
    pub(in crate::work::unit::service) id: Uuid,
    pub(in crate::work::unit::service) node: NodeId,
    pub(in crate::work::unit::service) core: Arc<tokio::sync::Mutex<OutCore>>,
    status: watch::Sender<UnitStatus>,
    progress: Mutex<Progress>,
}

/// What changes of a unit, and is changed by one input at a time.
#[derive(Debug)]
pub(in crate::work::unit::service) struct OutCore {
    pub(in crate::work::unit::service) machine: SubmitterUnit,
    pub(in crate::work::unit::service) dir: UnitDir,
    /// The payload is not needed any more.
    pub(in crate::work::unit::service) handed: bool,
    /// It is being removed from the disk, which is completed whatever happens.
    pub(in crate::work::unit::service) removing: bool,
    /// The unit is gone from the disk.
    pub(in crate::work::unit::service) removed: bool,
    /// The journal could not be written: the machine is replayed before the next input.
    pub(in crate::work::unit::service) stale: bool,
    /// A task recovers the unit. It ends once the machine is not stale.
    pub(in crate::work::unit::service) recovering: bool,
}

/// What all units have in common that a node has submitted.
#[derive(Debug)]
pub(in crate::work::unit::service) struct OutHome {
    pub(in crate::work::unit::service) submitter: NodeId,
    /// The directory of their directories.
    pub(in crate::work::unit::service) dir: PathBuf,
}

/// What is kept in memory of a unit that has ended.
#[derive(Debug)]
pub(in crate::work::unit::service) struct EndedOut {
    machine: EndedSubmitter,
    log_end: u64,
    progress: Progress,
    version: u64,
}

impl OutUnit {
    pub(in crate::work::unit::service) fn new(
        submitter: &NodeId,
        id: Uuid,
        machine: SubmitterUnit,
        dir: UnitDir,
    ) -> Self {
        Self::resumed(submitter, id, machine, dir, Progress::default(), 0)
    }

    fn resumed(
        submitter: &NodeId,
        id: Uuid,
        machine: SubmitterUnit,
        dir: UnitDir,
        progress: Progress,
        version: u64,
    ) -> Self {
        let status = status(submitter, id, &machine, &progress, version);
        Self {
            id,
            node: machine.node().clone(),
            core: Arc::new(tokio::sync::Mutex::new(OutCore {
                handed: machine.is_handed(),
                machine,
                dir,
                removing: false,
                removed: false,
                stale: false,
                recovering: false,
            })),
            status: watch::Sender::new(status),
            progress: Mutex::new(progress),
        }
    }

    pub(crate) fn status(&self) -> UnitStatus {
        self.status.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<UnitStatus> {
        self.status.subscribe()
    }

    /// Whether a condition holds for the status, without a copy of it.
    pub(crate) fn is(&self, condition: impl FnOnce(&UnitStatus) -> bool) -> bool {
        condition(&self.status.borrow())
    }

    /// Records what the executor reported beside the state, to be published with it.
    pub(in crate::work::unit::service) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// Publishes where the unit stands.
    pub(in crate::work::unit::service) fn publish(&self, machine: &SubmitterUnit) {
        let progress = *lock(&self.progress);
        self.status.send_modify(|published| {
            *published =
                status(&published.submitter, self.id, machine, &progress, published.version + 1);
        });
    }

    /// Publishes that the unit is gone.
    pub(in crate::work::unit::service) fn publish_removed(&self) {
        self.status.send_modify(|status| {
            status.removed = true;
            status.version += 1;
        });
    }

    /// Publishes why the executor did not carry out the last request. `None` if it did.
    pub(in crate::work::unit::service) fn publish_busy(&self, busy: Option<BusyReason>) {
        self.note(|progress| progress.busy = busy);
        self.status.send_if_modified(|status| {
            let changed = status.busy != busy;
            if changed {
                status.busy = busy;
                status.version += 1;
            }
            changed
        });
    }

    /// Publishes how much of the payload the executor has.
    pub(in crate::work::unit::service) fn publish_handed(&self, offset: u64) {
        self.note(|progress| progress.handed = offset);
        self.status.send_if_modified(|status| {
            let changed = status.state <= UnitState::Handing && status.payload_handed != offset;
            if changed {
                status.state = UnitState::Handing;
                status.payload_handed = offset;
                status.version += 1;
            }
            changed
        });
    }
}

impl Unit for OutUnit {
    type Key = Uuid;
    type Home = OutHome;
    type Ended = EndedOut;

    fn ended(&self) -> Option<EndedOut> {
        let core = self.core.try_lock().ok()?;
        if core.stale || core.removing || core.removed || self.status.receiver_count() > 0 {
            return None;
        }
        Some(EndedOut {
            machine: core.machine.ended()?,
            log_end: core.dir.log_end()?,
            progress: *lock(&self.progress),
            version: self.status.borrow().version,
        })
    }

    fn revived(home: &OutHome, id: &Uuid, ended: EndedOut) -> Self {
        let dir = UnitDir::known(&home.dir.join(id.to_string()), ended.log_end);
        Self::resumed(
            &home.submitter,
            *id,
            ended.machine.into(),
            dir,
            ended.progress,
            ended.version,
        )
    }
}

impl EndedOut {
    /// What is kept of a unit that was found on disk. `None` if it is to be resumed.
    pub(in crate::work::unit::service) fn found(
        machine: &SubmitterUnit,
        dir: &UnitDir,
    ) -> Option<Self> {
        let (machine, log_end) = (machine.ended()?, dir.log_end()?);
        Some(Self { machine, log_end, progress: Progress::default(), version: 0 })
    }

    /// When its time to be kept is over.
    pub(in crate::work::unit::service) fn deadline(&self) -> UnitTime {
        self.machine.deadline()
    }

    pub(in crate::work::unit::service) fn status(&self, home: &OutHome, id: Uuid) -> UnitStatus {
        let (machine, progress) = (&self.machine, &self.progress);
        let spec = machine.spec();
        let handed = if machine.started() { spec.payload_len() } else { progress.handed };
        UnitStatus {
            id: UnitId(id),
            node: machine.node().clone(),
            submitter: home.submitter.clone(),
            directive: spec.directive().clone(),
            state: UnitState::Ended,
            outcome: Some(machine.outcome().clone()),
            started: machine.started(),
            created_ms: machine.created().0,
            started_ms: progress.started_ms,
            ended_ms: Some(progress.ended_ms.unwrap_or_else(|| machine.since().0)),
            payload_len: spec.payload_len(),
            payload_handed: handed,
            stdout_len: progress.stdout_len,
            stderr_len: progress.stderr_len,
            labels: spec.labels(),
            releasing: false,
            removed: false,
            busy: progress.busy,
            version: self.version,
        }
    }
}

fn status(
    submitter: &NodeId,
    id: Uuid,
    machine: &SubmitterUnit,
    progress: &Progress,
    version: u64,
) -> UnitStatus {
    let spec = machine.spec();
    let report = machine.status();
    let (state, outcome) = match report.state {
        // A part of the payload is handed over before the journal says anything.
        ReportState::Queued if progress.handed == 0 => (UnitState::Queued, None),
        ReportState::Queued => (UnitState::Handing, None),
        ReportState::Handing | ReportState::Receiving { .. } => (UnitState::Handing, None),
        ReportState::Accepted => (UnitState::Accepted, None),
        ReportState::Starting => (UnitState::Starting, None),
        ReportState::Running => (UnitState::Running, None),
        ReportState::Final(outcome) => (UnitState::Ended, Some(outcome)),
    };
    let handed = match state {
        UnitState::Queued | UnitState::Handing => progress.handed,
        UnitState::Ended if !report.started => progress.handed,
        _ => spec.payload_len,
    };
    let ended_ms = outcome.as_ref().map(|_| progress.ended_ms.unwrap_or_else(|| machine.since().0));
    UnitStatus {
        id: UnitId(id),
        node: machine.node().clone(),
        submitter: submitter.clone(),
        directive: spec.directive.clone(),
        state,
        outcome,
        started: report.started,
        created_ms: machine.created().0,
        started_ms: progress.started_ms.filter(|_| report.started),
        ended_ms,
        payload_len: spec.payload_len,
        payload_handed: handed,
        stdout_len: progress.stdout_len,
        stderr_len: progress.stderr_len,
        labels: spec.labels.clone(),
        releasing: machine.is_releasing(),
        removed: false,
        busy: progress.busy,
        version,
    }
}
