//! What all parts of the service share.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use tokio::sync::watch;

use super::super::super::registry::Registry;
use super::super::api::{UnitLimits, UnitsConfig};
use super::super::busy::BusyReason;
use super::super::store::{Quarantined, UnitStore};
use super::clock::UnitClock;
use super::error::UnitError;
use super::tasks::Tasks;
use crate::id::NodeId;
use crate::mesh::handle::{Mesh, WeakMesh};
use crate::sync::lock;
use crate::work::unit::service::executor::guests::Guests;
use crate::work::unit::service::executor::incoming::Incoming;
use crate::work::unit::service::files::store_lock::StoreLock;
use crate::work::unit::service::submitter::drivers::Drivers;
use crate::work::unit::service::submitter::outgoing::Outgoing;

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
    /// The number of handlers whose ends are not recorded yet.
    pub(super) handlers: watch::Sender<usize>,
    pub(super) quarantined: Mutex<Vec<Quarantined>>,
    pub(super) mesh: WeakMesh,
    pub(super) tasks: Tasks,
    /// The disk has failed, and not because it is full.
    pub(super) poisoned: AtomicBool,
    /// The last new unit could not be written.
    pub(super) full: AtomicBool,
    /// The node is being shut down: nothing is started any more.
    pub(super) draining: AtomicBool,
    /// Keeps other nodes out of the directory: until the node is gone, and the last write is done.
    pub(super) lock: Mutex<Option<StoreLock>>,
}

impl Shared {
    pub(super) fn limits(&self) -> &UnitLimits {
        &self.config.limits
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tasks.is_closed()
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
        let lock = self.lock().clone().ok_or(UnitError::ShutDown)?;
        let blocking = self.tasks.runtime().spawn_blocking(move || {
            let done = work();
            drop(lock);
            done
        });
        // An error means that the runtime is shutting down.
        blocking.await.map_err(|_| UnitError::ShutDown)
    }

    /// Lets another node use the directory as soon as what is being written is done.
    pub(super) fn unlock(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoreLock>> {
        lock(&self.lock)
    }

    /// Runs a task until it ends or the node is gone.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Records that a write to the disk failed, and returns the reason for submitters. A full disk
    /// has room again later; after an input or output error it is unknown what a sync is worth.
    pub(super) fn disk_failed(&self, error: &io::Error) -> BusyReason {
        let broken = [Errno::IO, Errno::ROFS, Errno::NXIO, Errno::NODEV, Errno::STALE];
        let is_broken =
            broken.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if is_broken {
            if !self.poisoned.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the units' disk has failed; no new units until the node restarts");
            }
        } else if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cannot write to the units' directory");
        }
        self.disk_reason()
    }

    /// Why a write that failed cannot be made now.
    pub(super) fn disk_reason(&self) -> BusyReason {
        if self.is_poisoned() { BusyReason::DiskFailed } else { BusyReason::DiskFull }
    }

    /// Records that the disk has taken a new unit.
    pub(super) fn disk_worked(&self) {
        if self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the units' directory can be written again");
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

    /// Whether a file system would have less free room than it is to keep after so many bytes more.
    /// One without a reserve is used up to the last byte.
    pub(super) fn is_short_of_room(&self, path: &Path, bytes: u64) -> bool {
        let percent = u128::from(self.limits().reserve_percent);
        let Ok(stat) = rustix::fs::statvfs(path) else { return false };
        let reserve = u128::from(stat.f_blocks) * percent / 100;
        let blocks = u128::from(bytes) / u128::from(stat.f_frsize.max(1));
        percent > 0 && u128::from(stat.f_bavail) < reserve + blocks
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A strong reference to what the handles share.
pub(crate) type SharedRef = Arc<Shared>;
