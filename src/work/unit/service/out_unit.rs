//! One unit that this node has submitted.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use uuid::Uuid;

use super::super::api::{UnitId, UnitState, UnitStatus};
use super::super::busy::BusyReason;
use super::super::outcome::ReportState;
use super::super::store::UnitDir;
use super::super::submitter::SubmitterUnit;
use super::progress::Progress;
use crate::id::NodeId;
use crate::sync::lock;

/// One unit that this node has submitted.
#[derive(Debug)]
pub(crate) struct OutUnit {
    pub(super) id: Uuid,
    pub(super) node: NodeId,
    pub(super) core: Arc<tokio::sync::Mutex<OutCore>>,
    status: watch::Sender<UnitStatus>,
    progress: Mutex<Progress>,
}

/// What changes of a unit, and is changed by one input at a time.
#[derive(Debug)]
pub(super) struct OutCore {
    pub(super) machine: SubmitterUnit,
    pub(super) dir: UnitDir,
    /// The payload is not needed any more.
    pub(super) handed: bool,
    /// It is being removed from the disk, which is completed whatever happens.
    pub(super) removing: bool,
    /// The unit is gone from the disk.
    pub(super) removed: bool,
    /// The journal could not be written: the machine is replayed before the next input.
    pub(super) stale: bool,
}

impl OutUnit {
    pub(super) fn new(submitter: &NodeId, id: Uuid, machine: SubmitterUnit, dir: UnitDir) -> Self {
        let progress = Progress::default();
        let status = status(submitter, id, &machine, &progress, 0);
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
    pub(super) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// Publishes where the unit stands.
    pub(super) fn publish(&self, machine: &SubmitterUnit) {
        let progress = *lock(&self.progress);
        self.status.send_modify(|published| {
            *published = status(&published.submitter, self.id, machine, &progress, published.version + 1);
        });
    }

    /// Publishes that the unit is gone.
    pub(super) fn publish_removed(&self) {
        self.status.send_modify(|status| {
            status.removed = true;
            status.version += 1;
        });
    }

    /// Publishes why the executor did not carry out the last request. `None` if it did.
    pub(super) fn publish_busy(&self, busy: Option<BusyReason>) {
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
    pub(super) fn publish_handed(&self, offset: u64) {
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
        started_ms: progress.started_ms,
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
