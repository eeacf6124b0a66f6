//! One unit that this node executes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use crate::id::NodeId;
use crate::sync::lock;
use crate::work::unit::api::{UnitId, UnitState, UnitStatus};
use crate::work::unit::key::UnitKey;
use crate::work::unit::machine::entry::ExecutorEntry;
use crate::work::unit::machine::executor::{EndedExecutor, ExecutorUnit};
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::outcome::{Report, ReportState};
use crate::work::unit::service::files::pulse::Pulse;
use crate::work::unit::service::progress::Progress;
use crate::work::unit::service::unit_table::Unit;
use crate::work::unit::spec::UnitSpec;
use crate::work::unit::store::{UnitDir, UnitPaths, path_in};

/// One unit that this node executes.
#[derive(Debug)]
pub(in crate::work::unit::service) struct InUnit {
    pub(in crate::work::unit::service) key: UnitKey,
    pub(in crate::work::unit::service) spec: Arc<UnitSpec>,
    pub(in crate::work::unit::service) paths: UnitPaths,
    pub(in crate::work::unit::service) core: Arc<tokio::sync::Mutex<InCore>>,
    created: UnitTime,
    seen: watch::Sender<Seen>,
    progress: Mutex<Progress>,
    pulse: OnceLock<Arc<Pulse>>,
}

/// What changes of a unit, and is changed by one input at a time.
#[derive(Debug)]
pub(in crate::work::unit::service) struct InCore {
    pub(in crate::work::unit::service) machine: ExecutorUnit,
    pub(in crate::work::unit::service) dir: UnitDir,
    /// The attempt that a task watches.
    pub(in crate::work::unit::service) watched: Option<u32>,
    pub(in crate::work::unit::service) removed: bool,
    /// The journal could not be written: the machine is replayed before the next input.
    pub(in crate::work::unit::service) stale: bool,
    /// A task recovers the unit. It ends once the machine is not stale.
    pub(in crate::work::unit::service) recovering: bool,
}

/// Where a unit stands, for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::work::unit::service) struct Seen {
    pub(in crate::work::unit::service) report: Report,
    /// The newest attempt. 0 if there was none.
    pub(in crate::work::unit::service) attempt: u32,
    pub(in crate::work::unit::service) releasing: bool,
    pub(in crate::work::unit::service) removed: bool,
}

/// What all units have in common that a node executes.
#[derive(Debug)]
pub(in crate::work::unit::service) struct InHome {
    pub(in crate::work::unit::service) node: NodeId,
    /// The directory of the store.
    pub(in crate::work::unit::service) root: PathBuf,
}

/// What is kept in memory of a unit that has ended.
#[derive(Debug)]
pub(in crate::work::unit::service) struct EndedIn {
    machine: EndedExecutor,
    log_end: u64,
    created: UnitTime,
    progress: Progress,
}

impl InUnit {
    pub(in crate::work::unit::service) fn new(
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

    pub(in crate::work::unit::service) fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub(in crate::work::unit::service) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// What wakes those who wait for output.
    pub(in crate::work::unit::service) fn pulse(&self) -> &Arc<Pulse> {
        self.pulse.get_or_init(Arc::default)
    }

    pub(in crate::work::unit::service) fn is_final(&self) -> bool {
        self.seen.borrow().report.outcome().is_some()
    }

    pub(in crate::work::unit::service) fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    pub(in crate::work::unit::service) fn note(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// Publishes where the unit stands.
    pub(in crate::work::unit::service) fn publish(&self, machine: &ExecutorUnit) {
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

    pub(in crate::work::unit::service) fn publish_removed(&self) {
        self.seen.send_modify(|seen| seen.removed = true);
    }

    /// Reads from the journal what is not part of the machine.
    pub(in crate::work::unit::service) fn note_journal(&self, entries: &[ExecutorEntry]) {
        self.note(|progress| progress.note_journal(entries));
    }

    /// The unit as this node reports it to its own users.
    pub(in crate::work::unit::service) fn status(&self, node: &NodeId) -> UnitStatus {
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
    pub(in crate::work::unit::service) fn found(
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
    pub(in crate::work::unit::service) fn deadline(&self) -> UnitTime {
        self.machine.deadline()
    }

    /// The bytes of its output.
    pub(in crate::work::unit::service) fn bytes(&self) -> u64 {
        self.progress.stdout_len.unwrap_or(0) + self.progress.stderr_len.unwrap_or(0)
    }

    /// Where the unit stood at its end.
    pub(in crate::work::unit::service) fn report(&self) -> Report {
        self.machine.report()
    }

    pub(in crate::work::unit::service) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The unit as this node reports it to its own users.
    pub(in crate::work::unit::service) fn status(
        &self,
        home: &InHome,
        key: &UnitKey,
    ) -> UnitStatus {
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
