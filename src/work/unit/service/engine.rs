//! The engine of units: from its directory to its end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::api::{QuarantinedUnit, UnitStatus, UnitsConfig};
use super::super::entry::{SubmitterEntry, UnitTime};
use super::super::store::{LoadedStore, UnitDir, UnitStore};
use super::super::submitter::{SubmitterInput, SubmitterUnit};
use super::clock::UnitClock;
use super::drivers::Drivers;
use super::out_unit::OutUnit;
use super::outgoing::Outgoing;
use super::shared::{Shared, SharedRef, UnitError};
use crate::id::NodeId;
use crate::mesh::core::Mesh;
use crate::mesh::datadir::DataDir;

/// The engine of a node's units. Dropped, it ends all of its tasks; commands that run go on.
pub(crate) struct Engine {
    shared: SharedRef,
    closed: watch::Sender<bool>,
}

/// A store that was opened, before the node's mesh is started.
pub(crate) struct OpenedUnits {
    config: UnitsConfig,
    store: UnitStore,
    loaded: LoadedStore,
    data_dir: Option<DataDir>,
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
        // The supervisors do not share the node's working directory.
        let opened = std::path::absolute(&path).and_then(|path| UnitStore::open(&path, Uuid::now_v7(), now));
        let (store, loaded) = opened.map_err(|error| OpenUnitsError::Io { path, error })?;
        Ok(Self { config, store, loaded, data_dir: data_dir.map(|(dir, _)| dir) })
    }

    fn newest_entry(&self) -> UnitTime {
        let outgoing = self.loaded.outgoing.iter().flat_map(|(.., entries)| entries.last()).map(|it| it.at);
        let incoming = self.loaded.incoming.iter().flat_map(|(.., entries)| entries.last()).map(|it| it.at);
        outgoing.chain(incoming).max().unwrap_or_default()
    }
}

impl Engine {
    /// Resumes all units, and serves those of others.
    pub(crate) fn start(opened: OpenedUnits, mesh: &Mesh) -> Self {
        let (closed, is_closed) = watch::channel(false);
        let clock = UnitClock::new(opened.newest_entry());
        let OpenedUnits { config, store, mut loaded, data_dir } = opened;
        for it in &loaded.quarantined {
            tracing::warn!(path = %it.path.display(), reason = it.reason, "quarantined a unit");
        }
        let shared = Arc::new(Shared {
            node: mesh.id().base(),
            config,
            clock,
            store,
            outgoing: Outgoing::default(),
            drivers: Drivers::default(),
            quarantined: std::mem::take(&mut loaded.quarantined),
            mesh: mesh.downgrade(),
            runtime: Handle::current(),
            closed: is_closed,
            poisoned: AtomicBool::new(false),
            _data_dir: data_dir,
        });
        for (id, dir, entries) in loaded.outgoing {
            shared.resume_out(id, dir, &entries);
        }
        let ticking = shared.clone();
        shared.spawn(async move { ticking.tick_out().await });
        Self { shared, closed }
    }

    pub(crate) fn shared(&self) -> &SharedRef {
        &self.shared
    }

    /// Ends all tasks. What is being written is finished, and commands that run go on.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn resume_out(self: &Arc<Self>, id: Uuid, dir: UnitDir, entries: &[SubmitterEntry]) {
        match SubmitterUnit::replay(entries) {
            Ok(machine) => self.admit_out(&Arc::new(OutUnit::new(&self.node, id, machine, dir))),
            Err(error) => {
                tracing::warn!(path = %dir.paths().path().display(), %error, "quarantined a unit");
            }
        }
    }

    /// Lets units expire, and removes those that were kept for long enough.
    async fn tick_out(self: &Arc<Self>) {
        loop {
            for id in self.outgoing.deadlines.next(&self.clock).await {
                let Some(unit) = self.outgoing.get(id) else { continue };
                if let Err(error) = self.feed_out(&unit, SubmitterInput::Tick).await {
                    tracing::debug!(unit = %id, %error, "could not record that a unit's time is over");
                    self.outgoing.deadlines.set(&id, Some(self.clock.now().plus(DISK_RETRY_MS)));
                }
            }
        }
    }

    /// Whether the node is not gone yet.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed()
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
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
        let mut closed = self.closed.clone();
        let mut status = unit.watch();
        tokio::select! {
            biased;
            removed = status.wait_for(|status| status.removed) => removed.map(drop).map_err(|_| UnitError::ShutDown),
            _ = closed.wait_for(|closed| *closed) => Err(UnitError::ShutDown),
        }
    }

    /// The units that were submitted here.
    pub(crate) fn submitted(&self) -> Vec<Arc<OutUnit>> {
        self.outgoing.all()
    }

    pub(crate) fn find_submitted(&self, id: Uuid) -> Option<Arc<OutUnit>> {
        self.outgoing.get(id)
    }

    /// The units that are, or were, executed here.
    pub(crate) fn executed(&self) -> Vec<UnitStatus> {
        Vec::new()
    }

    pub(crate) async fn cancel_executed(
        self: &Arc<Self>,
        _submitter: &NodeId,
        _id: Uuid,
        _grace: Duration,
    ) -> Result<bool, UnitError> {
        std::future::ready(Ok(false)).await
    }

    pub(crate) fn quarantined_units(&self) -> Vec<QuarantinedUnit> {
        let public = |it: &super::super::store::Quarantined| QuarantinedUnit {
            path: it.path.clone(),
            reason: it.reason.clone(),
        };
        self.quarantined.iter().map(public).collect()
    }
}

/// How long to wait before something is written again that the disk did not take, in milliseconds.
const DISK_RETRY_MS: u64 = 1_000;
