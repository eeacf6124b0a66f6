//! The connection manifest: the neighbours that this node had within a day.
//!
//! Those that are not linked now are advertised as dormant: inventory that an operator sees, and
//! that carries no traffic.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::datadir::{self, DataDir};
use crate::id::NodeId;

/// The manifest in memory, which is the truth; the file follows it.
#[derive(Debug)]
pub(crate) struct Manifest {
    entries: datadir::Manifest,
    saver: Option<watch::Sender<datadir::Manifest>>,
    next_sweep: Instant,
}

impl Manifest {
    /// How often old entries are looked for.
    const SWEEP: Duration = Duration::from_secs(600);

    /// Starts with what the data directory has kept, and keeps it up to date there.
    pub(crate) fn new(dir: Option<DataDir>, entries: datadir::Manifest, now: Instant) -> Self {
        let saver = dir.map(|dir| {
            let (sender, receiver) = watch::channel(entries.clone());
            tokio::spawn(save(dir, receiver));
            sender
        });
        Self { entries, saver, next_sweep: now + Self::SWEEP }
    }

    /// A neighbour is linked, or was until now.
    pub(crate) fn seen(&mut self, peer: &NodeId, unix_secs: u64) {
        self.entries.insert(peer.clone(), unix_secs);
        datadir::forget(&mut self.entries, unix_secs);
        self.save();
    }

    /// A neighbour is still linked. Written down with the next change: a crash costs at most that.
    pub(crate) fn touch(&mut self, peer: &NodeId, unix_secs: u64) {
        self.entries.insert(peer.clone(), unix_secs);
    }

    /// A neighbour left for good: an ephemeral.
    pub(crate) fn forget(&mut self, peer: &NodeId) {
        if self.entries.remove(peer).is_some() {
            self.save();
        }
    }

    /// Drops what is too old; whether anything was.
    pub(crate) fn sweep(&mut self, now: Instant, unix_secs: u64) -> bool {
        if now < self.next_sweep {
            return false;
        }
        self.next_sweep = now + Self::SWEEP;
        let before = self.entries.len();
        datadir::forget(&mut self.entries, unix_secs);
        let changed = self.entries.len() != before;
        if changed {
            self.save();
        }
        changed
    }

    /// Whether the node is in the manifest.
    pub(crate) fn knows(&self, node: &NodeId) -> bool {
        self.entries.contains_key(node)
    }

    /// The known neighbours.
    pub(crate) fn known(&self) -> Vec<NodeId> {
        self.entries.keys().cloned().collect()
    }

    fn save(&self) {
        if let Some(saver) = &self.saver {
            saver.send_replace(self.entries.clone());
        }
    }
}

/// Writes the newest state whenever it changes, and a last time when the driver ends.
async fn save(dir: DataDir, mut manifest: watch::Receiver<datadir::Manifest>) {
    while manifest.changed().await.is_ok() {
        let (dir, newest) = (dir.clone(), manifest.borrow_and_update().clone());
        // File writes block; the mesh does not wait for them.
        if tokio::task::spawn_blocking(move || dir.save_manifest(&newest)).await.is_err() {
            return;
        }
    }
}
