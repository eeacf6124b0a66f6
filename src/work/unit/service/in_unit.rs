//! One unit that this node executes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use super::super::api::{UnitId, UnitState, UnitStatus};
use super::super::entry::ExecutorEntry;
use super::super::executor::{EndedExecutor, ExecutorUnit};
use super::super::key::UnitKey;
use super::super::outcome::{Report, ReportState};
use super::super::spec::UnitSpec;
use super::super::store::{UnitDir, UnitPaths, path_in};
use super::super::time::UnitTime;
use super::progress::Progress;
use super::pulse::Pulse;
use super::unit_table::Unit;
use crate::id::NodeId;
use crate::sync::lock;

/// One unit that this node executes.
#[derive(Debug)]
pub(super) struct InUnit {
    pub(super) key: UnitKey,
    pub(super) spec: Arc<UnitSpec>,
    pub(super) paths: UnitPaths,
    pub(super) core: Arc<tokio::sync::Mutex<InCore>>,
    created: UnitTime,
    seen: watch::Sender<Seen>,
    progress: Mutex<Progress>,
    pulse: OnceLock<Arc<Pulse>>,
}

/// What changes of a unit, and is changed by one input at a time.
#[derive(Debug)]
pub(super) struct InCore {
    pub(super) machine: ExecutorUnit,
    pub(super) dir: UnitDir,
    /// The attempt that a task watches.
    pub(super) watched: Option<u32>,
    pub(super) removed: bool,
    /// The journal could not be written: the machine is replayed before the next input.
    pub(super) stale: bool,
    /// A task recovers the unit. It ends once the machine is not stale.
    pub(super) recovering: bool,
}

/// Where a unit stands, for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) report: Report,
    /// The newest attempt. 0 if there was none.
    pub(super) attempt: u32,
    pub(super) releasing: bool,
    pub(super) removed: bool,
}

/// What all units have in common that a node executes.
#[derive(Debug)]
pub(super) struct InHome {
    pub(super) node: NodeId,
    /// The directory of the store.
    pub(super) root: PathBuf,
}

/// What is kept in memory of a unit that has ended.
#[derive(Debug)]
pub(super) struct EndedIn {
    machine: EndedExecutor,
    log_end: u64,
    created: UnitTime,
    progress: Progress,
}

impl InUnit {
    pub(super) fn new(
        key: UnitKey,
        machine: ExecutorUnit,
        dir: UnitDir,
        created: UnitTime,
    ) -> Self {
        Self {
            key,
            spec: machine.spec().clone(),
            paths: dir.paths().clone(),
            created,
            seen: watch::Sender::new(seen(&machine)),
            progress: Mutex::default(),
            pulse: OnceLock::new(),
            core: Arc::new(tokio::sync::Mutex::new(InCore {
                machine,
                dir,
                watched: None,
                removed: false,
                stale: false,
                recovering: false,
            })),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// What wakes those who wait for output.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        self.pulse.get_or_init(Arc::default)
    }

    pub(super) fn is_final(&self) -> bool {
        self.seen.borrow().report.outcome().is_some()
    }

    pub(super) fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// Publishes where the unit stands.
    pub(super) fn publish(&self, machine: &ExecutorUnit) {
        let (seen, since) = (seen(machine), machine.since().0);
        self.note(|progress| match seen.report.state {
            ReportState::Running => {
                progress.started_ms.get_or_insert(since);
            }
            ReportState::Final(_) => {
                progress.ended_ms.get_or_insert(since);
            }
            _ => {}
        });
        self.seen.send_replace(seen);
    }

    pub(super) fn publish_removed(&self) {
        self.seen.send_modify(|seen| seen.removed = true);
    }

    /// Reads from the journal what is not part of the machine.
    pub(super) fn note_journal(&self, entries: &[ExecutorEntry]) {
        self.note(|progress| progress.note_journal(entries));
    }

    /// The unit as this node reports it to its own users.
    pub(super) fn status(&self, node: &NodeId) -> UnitStatus {
        let (seen, progress) = (self.seen(), self.progress());
        let spec = &self.spec;
        let (state, outcome) = match seen.report.state {
            ReportState::Final(outcome) => (UnitState::Ended, Some(outcome)),
            ReportState::Accepted => (UnitState::Accepted, None),
            ReportState::Starting => (UnitState::Starting, None),
            ReportState::Running => (UnitState::Running, None),
            ReportState::Queued | ReportState::Handing | ReportState::Receiving { .. } => {
                (UnitState::Handing, None)
            }
        };
        let handed = if state == UnitState::Handing { progress.handed } else { spec.payload_len };
        UnitStatus {
            id: UnitId(self.key.id),
            node: node.clone(),
            submitter: self.key.submitter.clone(),
            directive: spec.directive.clone(),
            state,
            outcome,
            started: seen.report.started,
            created_ms: self.created.0,
            started_ms: progress.started_ms,
            ended_ms: progress.ended_ms,
            payload_len: spec.payload_len,
            payload_handed: handed,
            stdout_len: progress.stdout_len,
            stderr_len: progress.stderr_len,
            labels: spec.labels.clone(),
            releasing: seen.releasing,
            removed: seen.removed,
            busy: None,
            version: seen.report.version,
        }
    }
}

impl Unit for InUnit {
    type Key = UnitKey;
    type Home = InHome;
    type Ended = EndedIn;

    fn ended(&self) -> Option<EndedIn> {
        let core = self.core.try_lock().ok()?;
        if core.stale || core.removed || self.seen.receiver_count() > 0 {
            return None;
        }
        Some(EndedIn {
            machine: core.machine.ended()?,
            log_end: core.dir.log_end()?,
            created: self.created,
            progress: self.progress(),
        })
    }

    fn revived(home: &InHome, key: &UnitKey, ended: EndedIn) -> Self {
        let dir = UnitDir::known(&path_in(&home.root, key), ended.log_end);
        let unit = Self::new(key.clone(), ended.machine.into(), dir, ended.created);
        unit.note(|progress| *progress = ended.progress);
        unit
    }
}

impl EndedIn {
    /// What is kept of a unit that was found on disk. `None` if it is to be resumed. Blocks on the
    /// disk.
    pub(super) fn found(
        machine: &ExecutorUnit,
        dir: &UnitDir,
        entries: &[ExecutorEntry],
    ) -> Option<Self> {
        let (ended, log_end) = (machine.ended()?, dir.log_end()?);
        let mut progress = Progress::default();
        progress.note_journal(entries);
        let (stdout, stderr) = dir.paths().output_lens(machine.last_attempt());
        (progress.stdout_len, progress.stderr_len) = (Some(stdout), Some(stderr));
        let created = entries.first().map_or(UnitTime(0), |entry| entry.at);
        Some(Self { machine: ended, log_end, created, progress })
    }

    /// When its time to be kept is over.
    pub(super) fn deadline(&self) -> UnitTime {
        self.machine.deadline()
    }

    /// The bytes of its output.
    pub(super) fn bytes(&self) -> u64 {
        self.progress.stdout_len.unwrap_or(0) + self.progress.stderr_len.unwrap_or(0)
    }

    /// Where the unit stood at its end.
    pub(super) fn report(&self) -> Report {
        self.machine.report()
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The unit as this node reports it to its own users.
    pub(super) fn status(&self, home: &InHome, key: &UnitKey) -> UnitStatus {
        let (spec, report, progress) = (self.machine.spec(), self.machine.report(), &self.progress);
        UnitStatus {
            id: UnitId(key.id),
            node: home.node.clone(),
            submitter: key.submitter.clone(),
            directive: spec.directive().clone(),
            state: UnitState::Ended,
            outcome: report.outcome().cloned(),
            started: report.started,
            created_ms: self.created.0,
            started_ms: progress.started_ms.filter(|_| report.started),
            ended_ms: progress.ended_ms,
            payload_len: spec.payload_len(),
            payload_handed: spec.payload_len(),
            stdout_len: progress.stdout_len,
            stderr_len: progress.stderr_len,
            labels: spec.labels(),
            releasing: false,
            removed: false,
            busy: None,
            version: report.version,
        }
    }
}

fn seen(machine: &ExecutorUnit) -> Seen {
    Seen {
        report: machine.status(),
        attempt: machine.last_attempt(),
        releasing: machine.is_releasing(),
        removed: false,
    }
}
