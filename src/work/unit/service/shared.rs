//! What all parts of the service share.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::super::registry::Registry;
use super::super::api::{UnitLimits, UnitsConfig};
use super::super::store::{Quarantined, UnitStore};
use super::clock::UnitClock;
use super::drivers::Drivers;
use super::guests::Guests;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::id::NodeId;
use crate::mesh::core::{Mesh, WeakMesh};
use crate::mesh::datadir::DataDir;

/// What all parts of the service share.
pub(crate) struct Shared {
    /// The node's id, without suffix: the submitter of what is submitted here.
    pub(super) node: NodeId,
    /// The node's id, with its suffix.
    pub(super) own_id: NodeId,
    pub(super) config: UnitsConfig,
    pub(super) clock: UnitClock,
    pub(super) store: UnitStore,
    pub(super) outgoing: Outgoing,
    pub(super) drivers: Drivers,
    pub(super) incoming: Incoming,
    pub(super) registry: Registry,
    pub(super) guests: Guests,
    pub(super) quarantined: Mutex<Vec<Quarantined>>,
    pub(super) mesh: WeakMesh,
    pub(super) runtime: Handle,
    /// Whether the node is gone.
    pub(super) closed: watch::Receiver<bool>,
    /// The disk reported an error other than that it is full: nobody knows what a sync is worth.
    pub(super) poisoned: AtomicBool,
    /// The node is being shut down: nothing is started any more.
    pub(super) draining: AtomicBool,
    /// Keeps other nodes out of the directory until the last write is done.
    pub(super) _data_dir: Option<DataDir>,
}

/// Why something could not be done with a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The unit was released, or its time to be kept is over.
    #[error("the unit was removed")]
    Removed,
    /// The disk did not take the change, which was not made. Try again when there is room.
    #[error("cannot write to the units' directory: {0}")]
    Disk(String),
    /// This node is shut down. What is on disk goes on when it is started again.
    #[error("this node is shut down")]
    ShutDown,
}

impl From<io::Error> for UnitError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

impl Shared {
    pub(super) fn limits(&self) -> &UnitLimits {
        &self.config.limits
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// The mesh, unless the node is gone.
    pub(super) fn mesh(&self) -> Result<Mesh, UnitError> {
        self.mesh.upgrade().filter(|_| !self.is_closed()).ok_or(UnitError::ShutDown)
    }

    /// Runs something that blocks on the disk. It is finished even if the future is dropped.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, UnitError> {
        // An error means that the runtime is shutting down.
        self.runtime.spawn_blocking(work).await.map_err(|_| UnitError::ShutDown)
    }

    /// Runs a task until it ends, or the node is gone.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closed = self.closed.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                () = task => {}
            }
        });
    }

    /// Records that the disk did not take something.
    pub(super) fn disk_failed(&self, error: &io::Error) {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full {
            tracing::warn!(%error, "no room for units");
        } else if !self.poisoned.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "units cannot be stored; no new ones are accepted until the node restarts");
        }
    }

    /// Whether nothing is started any more.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether no new units are taken because the disk has failed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// Whether less of a file system is free than is to be kept.
    pub(super) fn is_short_of_room(&self, path: &Path) -> bool {
        let Ok(stat) = rustix::fs::statvfs(path) else { return false };
        let reserve = u128::from(stat.f_blocks) * u128::from(self.limits().reserve_percent) / 100;
        u128::from(stat.f_bavail) < reserve
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A strong reference to what the handles share.
pub(crate) type SharedRef = Arc<Shared>;
