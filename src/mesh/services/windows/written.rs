//! The count of written bytes after which a send window is reviewed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::transport::settings::FIRST_SEND_WINDOW;

/// Counts what is written to the streams of a connection, so that its window is reviewed in time.
#[derive(Debug)]
pub(crate) struct Written {
    /// Bytes since the last review.
    bytes: AtomicU64,
    /// The number of bytes at which a review is due.
    due: AtomicU64,
    review: Notify,
}

impl Default for Written {
    fn default() -> Self {
        let due = AtomicU64::new(FIRST_SEND_WINDOW / 4);
        Self { bytes: AtomicU64::new(0), due, review: Notify::new() }
    }
}

impl Written {
    /// So many bytes were written.
    pub(crate) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let due = self.due.load(Ordering::Relaxed);
        if before < due && due <= before.saturating_add(bytes) {
            self.review.notify_one();
        }
    }

    /// Waits until a review is due.
    pub(in crate::mesh::services) async fn review(&self) {
        self.review.notified().await;
    }

    /// A review is due after this many bytes.
    pub(in crate::mesh::services) fn review_after(&self, bytes: u64) {
        self.due.store(bytes, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_review_is_due_once_after_so_many_bytes() {
        let written = Written::default();
        let due = async || {
            let wait = tokio::time::Duration::from_secs(1);
            tokio::time::timeout(wait, written.review.notified()).await.is_ok()
        };
        written.add(FIRST_SEND_WINDOW / 4 - 1);
        assert!(!due().await);
        written.add(10);
        assert!(due().await);
        written.add(FIRST_SEND_WINDOW);
        assert!(!due().await, "nobody has looked yet");
        written.review_after(100);
        written.add(100);
        assert!(due().await);
    }
}
