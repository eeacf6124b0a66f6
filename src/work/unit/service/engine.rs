//! The engine of units: from its directory to its end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::super::registry::Registry;
use super::super::api::{QuarantinedUnit, UnitStatus, UnitsConfig};
use super::super::key::UnitKey;
use super::super::limits::MAX_TOMBSTONES;
use super::super::store::{Quarantined, UnitDir, UnitStore, dir_out, path_in};
use super::clock::UnitClock;
use super::error::UnitError;
use super::found_units::FoundUnits;
use super::shared::{Shared, SharedRef};
use super::tasks::Tasks;
use crate::id::NodeId;
use crate::mesh::ServeError;
use crate::mesh::data_dir::datadir::DataDir;
use crate::mesh::handle::Mesh;
use crate::mesh::services::Admission;
use crate::sync::lock;
use crate::work::unit::machine::entry::{DamagedJournal, ExecutorEntry};
use crate::work::unit::machine::executor::{ExecutorInput, ExecutorUnit};
use crate::work::unit::machine::submitter::{SubmitterInput, SubmitterUnit};
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::machine::tombstones::Death;
use crate::work::unit::service::executor::guests::Guests;
use crate::work::unit::service::executor::handler_attempt::handler_service;
use crate::work::unit::service::executor::in_unit::{EndedIn, InHome, InUnit};
use crate::work::unit::service::executor::incoming::Incoming;
use crate::work::unit::service::files::store_lock::StoreLock;
use crate::work::unit::service::streams::serving::service;
use crate::work::unit::service::submitter::drivers::Drivers;
use crate::work::unit::service::submitter::out_unit::{OutHome, OutUnit};
use crate::work::unit::service::submitter::outgoing::Outgoing;

/// Maximum time for which a shutdown waits for a handler's end to be written. Enough for a busy
/// disk, and short for a node whose disk is full.
const RECORD_WAIT: Duration = Duration::from_secs(2);

/// The engine of a node's units. Dropped, it ends all of its tasks; commands that run go on.
pub(crate) struct Engine {
    shared: SharedRef,
    closed: watch::Sender<bool>,
}

/// A store that was opened, before the node's mesh is started.
pub(crate) struct OpenedUnits {
    config: UnitsConfig,
    store: UnitStore,
    quarantined: Vec<Quarantined>,
    found: FoundUnits,
    lock: StoreLock,
}

/// Why a node's units cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenUnitsError {
    /// There is nowhere to keep them.
    #[error("units need a data directory")]
    NoDirectory,
    /// The directory cannot be used.
    #[error("cannot use the units' directory {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl OpenedUnits {
    /// Opens the directory, and reads all journals. Blocks on the disk.
    pub(crate) fn open(
        config: UnitsConfig,
        data_dir: Option<(DataDir, &Path)>,
    ) -> Result<Self, OpenUnitsError> {
        let path = match (&config.dir, &data_dir) {
            (Some(dir), _) => dir.clone(),
            (None, Some((_, path))) => path.join("units"),
            (None, None) => return Err(OpenUnitsError::NoDirectory),
        };
        let now = UnitTime(crate::mesh::clock::unix_ms());
        let max_dead = config.limits.max_released_ids.min(MAX_TOMBSTONES);
        let open = || {
            // The supervisors do not share the node's working directory.
            let path = std::path::absolute(&path)?;
            let lock = StoreLock::acquire(&path, data_dir.map(|(dir, _)| dir))?;
            let mut found = FoundUnits::default();
            let (store, quarantined) =
                UnitStore::open(&path, Uuid::now_v7(), now, max_dead, |unit| found.add(unit))?;
            Ok((lock, store, quarantined, found))
        };
        let (lock, store, quarantined, found) =
            open().map_err(|error| OpenUnitsError::Io { path: path.clone(), error })?;
        Ok(Self { config, store, quarantined, found, lock })
    }
}

impl Engine {
    /// Offers the service, and resumes all units.
    ///
    /// # Errors
    /// The services cannot be offered.
    pub(crate) async fn start(
        opened: OpenedUnits,
        mesh: &Mesh,
        registry: &Registry,
    ) -> Result<Self, ServeError> {
        let (closed, is_closed) = watch::channel(false);
        let OpenedUnits { config, store, quarantined, found, lock } = opened;
        let clock = UnitClock::new(found.newest);
        let node = mesh.id().base();
        let out_home = OutHome { submitter: node.clone(), dir: dir_out(store.root()) };
        let in_home = InHome { node: node.clone(), root: store.root().to_owned() };
        // Streams wait in the listeners until the units are resumed.
        let listener = mesh.serve(service(), Admission::Own)?;
        let handlers = mesh.serve(handler_service(), Admission::Everybody)?;
        let shared = Arc::new(Shared {
            node,
            own_id: mesh.id().clone(),
            config,
            clock,
            store,
            outgoing: Outgoing::new(out_home),
            drivers: Drivers::default(),
            incoming: Incoming::new(in_home),
            registry: registry.clone(),
            guests: Guests::default(),
            handlers: watch::Sender::new(0),
            quarantined: Mutex::new(quarantined),
            mesh: mesh.downgrade(),
            tasks: Tasks::new(Handle::current(), is_closed),
            poisoned: AtomicBool::new(false),
            full: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        });
        let engine = Self { shared: shared.clone(), closed };
        let resuming = shared.clone();
        // An error means that the node is being dropped.
        let _ = shared.blocking(move || resuming.resume(found)).await;
        let (ticking, serving, handling) = (shared.clone(), shared.clone(), shared.clone());
        shared.spawn(async move { ticking.tick_out().await });
        let ticking = shared.clone();
        shared.spawn(async move { ticking.tick_in().await });
        let expiring = shared.clone();
        shared.spawn(async move { expiring.expire_tombstones().await });
        let sweeping = shared.clone();
        shared.spawn(async move { sweeping.sweep_ended().await });
        shared.spawn(serving.serve(listener));
        shared.spawn(handling.serve_handlers(handlers));
        Ok(engine)
    }

    pub(crate) fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Starts nothing any more: what has been accepted is for the node's next run.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until the ends of handlers whose calls are over are recorded, for up to
    /// [`RECORD_WAIT`].
    pub(crate) async fn handlers_recorded(&self) {
        // A handler that is shutting its node down has not ended.
        let _ = tokio::time::timeout(RECORD_WAIT, self.shared.handlers_ended()).await;
    }

    /// Ends all tasks. What is being written is finished, and commands that run go on.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        self.shared.unlock();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Resumes what the store held. Blocks on the disk.
    fn resume(self: &Arc<Self>, found: FoundUnits) {
        for (id, ended) in found.ended_out {
            self.outgoing.deadlines.set(&id, Some(ended.deadline()));
            self.outgoing.insert_ended(id, ended);
        }
        for (id, dir, entries) in found.outgoing {
            match SubmitterUnit::replay(&entries) {
                Ok(machine) => {
                    self.admit_out(&Arc::new(OutUnit::new(&self.node, id, machine, dir)))
                }
                Err(error) => self.quarantine(&dir, &error),
            }
        }
        for (key, ended) in found.ended_in {
            self.resume_ended(key, ended);
        }
        let mut resumed = Vec::new();
        for (key, dir, entries) in found.incoming {
            match self.resume_in(key, dir, &entries) {
                Ok(unit) => resumed.extend(unit),
                Err((dir, error)) => self.quarantine(&dir, &error),
            }
        }
        // All that run hold their places before others get a turn.
        for unit in resumed {
            let Ok(mut core) = unit.core.clone().try_lock_owned() else { continue };
            if let Err(error) = self.resume_unit(&unit, &mut core) {
                tracing::warn!(unit = %unit.key, %error, "could not resume a unit; trying again");
                (core.stale, core.recovering) = (true, true);
                let (shared, unit) = (self.clone(), unit.clone());
                self.spawn(async move { shared.recover_later(&unit).await });
            }
        }
        for it in self.quarantined().iter() {
            tracing::warn!(path = %it.path.display(), reason = it.reason, "quarantined a unit");
        }
    }

    fn quarantine(&self, dir: &UnitDir, error: &DamagedJournal) {
        let path = dir.paths().path().to_owned();
        self.quarantined().push(Quarantined { path, reason: error.to_string() });
    }

    fn quarantined(&self) -> MutexGuard<'_, Vec<Quarantined>> {
        lock(&self.quarantined)
    }

    /// Adds a unit that has ended, or completes its removal.
    fn resume_ended(&self, key: UnitKey, ended: Box<EndedIn>) {
        if self.store.tombstone(&key) == Some(Death::Removed) {
            // The node ended between the tombstone and the removal.
            let dir = UnitDir::known(&path_in(self.store.root(), &key), 0);
            if let Err(error) = dir.remove() {
                tracing::warn!(unit = %key, %error, "cannot remove a unit");
            }
            return;
        }
        self.incoming.deadlines.set(&key, Some(ended.deadline()));
        let mut table = self.incoming.table();
        table.holdings.insert(&key, ended.bytes());
        table.units.insert_ended(key, ended);
    }

    /// Adds a unit that this node executes. `None` if it was being removed.
    fn resume_in(
        self: &Arc<Self>,
        key: UnitKey,
        dir: UnitDir,
        entries: &[ExecutorEntry],
    ) -> Result<Option<Arc<InUnit>>, (UnitDir, DamagedJournal)> {
        if self.store.tombstone(&key) == Some(Death::Removed) {
            // The node ended between the tombstone and the removal.
            if let Err(error) = dir.remove() {
                tracing::warn!(unit = %key, %error, "cannot remove a unit");
            }
            return Ok(None);
        }
        let machine = match ExecutorUnit::replay(entries) {
            Ok(machine) => machine,
            Err(error) => return Err((dir, error)),
        };
        let created = entries.first().map_or(UnitTime(0), |entry| entry.at);
        let (attempt, is_final) = (machine.last_attempt(), machine.is_final());
        // After a power failure an attempt may have been begun that the journal does not have.
        let is_begun = |attempt| dir.paths().is_begun(attempt).unwrap_or(true);
        if machine.attempt().is_some() || machine.attempt_on_disk().is_some_and(is_begun) {
            self.incoming.queue().resume(&machine.spec().directive, key.clone());
        }
        let unit = Arc::new(InUnit::new(key, machine, dir, created));
        unit.note_journal(entries);
        let mut bytes = if is_final { 0 } else { unit.spec.payload_len };
        if is_final {
            let (stdout, stderr) =
                if attempt == 0 { (0, 0) } else { unit.paths.output_lens(attempt) };
            unit.note(|progress| {
                (progress.stdout_len, progress.stderr_len) = (Some(stdout), Some(stderr));
            });
            bytes += stdout + stderr;
        }
        let mut table = self.incoming.table();
        table.holdings.insert(&unit.key, bytes);
        table.units.insert(unit.key.clone(), unit.clone());
        Ok(Some(unit))
    }

    /// Lets units expire, and removes those that were kept for long enough.
    async fn tick_out(self: &Arc<Self>) {
        loop {
            for id in self.outgoing.deadlines.next(&self.clock).await {
                let Some(unit) = self.outgoing.get(id) else { continue };
                let shared = self.clone();
                // Many may be due at once, and do not wait for each other.
                self.spawn(async move {
                    if let Err(UnitError::Disk(error)) = shared.feed_out(&unit, SubmitterInput::Tick).await {
                        tracing::debug!(unit = %id, error, "could not record that a unit's time is over");
                        let again = shared.clock.now().plus(super::DISK_RETRY_MS);
                        shared.outgoing.deadlines.set(&id, Some(again));
                    }
                });
            }
        }
    }

    /// Whether the node is not gone yet.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed()
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.tasks.closed()
    }

    /// Feeds an input of the user.
    pub(crate) async fn command(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        input: SubmitterInput,
    ) -> Result<(), UnitError> {
        if self.is_closed() {
            return Err(UnitError::ShutDown);
        }
        self.feed_out(unit, input).await.map(drop)
    }

    /// Waits until a unit is gone.
    pub(crate) async fn removed(&self, unit: &OutUnit) -> Result<(), UnitError> {
        let mut closed = self.tasks.closed();
        let mut status = unit.watch();
        tokio::select! {
            biased;
            removed = status.wait_for(|status| status.removed) => removed.map(drop).map_err(|_| UnitError::ShutDown),
            _ = closed.wait_for(|closed| *closed) => Err(UnitError::ShutDown),
        }
    }

    /// The units that were submitted here, in the order of their ids.
    pub(crate) fn submitted(&self, wanted: impl Fn(&UnitStatus) -> bool) -> Vec<UnitStatus> {
        self.outgoing.list(wanted)
    }

    pub(crate) fn find_submitted(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        self.outgoing.get(id)
    }

    /// The ids of the units that were submitted here, in order.
    pub(crate) fn submitted_ids(&self) -> Vec<Uuid> {
        self.outgoing.ids()
    }

    /// The units that are, or were, executed here.
    pub(crate) fn executed(&self, wanted: impl Fn(&UnitStatus) -> bool) -> Vec<UnitStatus> {
        self.incoming.list(wanted)
    }

    /// Cancels a unit that is executed here. Returns false if there is no such unit.
    pub(crate) async fn cancel_executed(
        self: &Arc<Self>,
        submitter: &NodeId,
        id: Uuid,
        grace: Duration,
    ) -> Result<bool, UnitError> {
        let Some(unit) = self.incoming.get(&UnitKey::new(submitter, id)) else { return Ok(false) };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.feed_in(&unit, ExecutorInput::Cancel { grace_ms }).await.map(|_| true)
    }

    pub(crate) fn quarantined_units(&self) -> Vec<QuarantinedUnit> {
        let public =
            |it: &Quarantined| QuarantinedUnit { path: it.path.clone(), reason: it.reason.clone() };
        self.quarantined().iter().map(public).collect()
    }
}
