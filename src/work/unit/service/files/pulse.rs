//! What wakes those who wait for a unit's files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How often files are looked at if the system cannot report changes.
const POLL: Duration = Duration::from_millis(250);

/// What wakes those who wait for a unit's files.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Pulse {
    /// Counts changes of the outputs.
    output: watch::Sender<u64>,
    /// Another file has come into being: the one that says that the command runs, or has ended.
    files: Notify,
    /// Counts requests to terminate.
    terminate: watch::Sender<u64>,
    /// The system cannot report changes of this unit.
    blind: AtomicBool,
}

impl Pulse {
    /// An output has grown.
    pub(in crate::work::unit::service) fn output_grew(&self) {
        self.output.send_modify(|count| *count += 1);
    }

    /// Another file has changed.
    pub(in crate::work::unit::service) fn file_came(&self) {
        self.files.notify_one();
    }

    /// Somebody asks for the end of the attempt.
    pub(in crate::work::unit::service) fn terminate_came(&self) {
        self.terminate.send_modify(|count| *count += 1);
    }

    /// The requests to terminate from now on.
    pub(in crate::work::unit::service) fn terminations(&self) -> watch::Receiver<u64> {
        self.terminate.subscribe()
    }

    pub(in crate::work::unit::service) fn set_blind(&self) {
        self.blind.store(true, Ordering::Relaxed);
    }

    /// The changes of the outputs from now on.
    pub(in crate::work::unit::service) fn output(&self) -> watch::Receiver<u64> {
        self.output.subscribe()
    }

    /// Waits until another file has changed. For one task. Cancel safe.
    pub(in crate::work::unit::service) async fn file(&self) {
        tokio::select! {
            () = self.files.notified() => {}
            () = self.poll() => {}
        }
    }

    /// Waits for the time after which files are looked at without being reported, if they have to
    /// be.
    pub(in crate::work::unit::service) async fn poll(&self) {
        if self.blind.load(Ordering::Relaxed) {
            tokio::time::sleep(POLL).await;
        } else {
            std::future::pending().await
        }
    }
}
