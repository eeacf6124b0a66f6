//! The signal that a receive window should grow.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Wakes the task that grows a window.
#[derive(Debug, Default)]
pub(crate) struct WindowNeed {
    /// Streams that the window has room for if none is read.
    fits: AtomicUsize,
    more: Notify,
}

impl WindowNeed {
    /// Notes that one end of the connection has this many streams open.
    pub(crate) fn note(&self, streams: usize) {
        // The other end may have some as well, so the exact look comes later.
        if streams >= self.fits.load(Ordering::Relaxed) {
            self.more.notify_one();
        }
    }

    /// Waits until the window may be too small.
    pub(in crate::mesh::services) async fn noted(&self) {
        self.more.notified().await;
    }

    /// The window now has room for this many streams that are not read.
    pub(in crate::mesh::services) fn fits(&self, streams: u64) {
        self.fits.store(usize::try_from(streams).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
