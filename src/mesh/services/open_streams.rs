//! The streams of a node that are still in use, so that a shutdown can wait for them.
//!
//! A half counts until it has ended, not until it is dropped: applications keep streams that are
//! over. A sending half that was finished counts until the other side has everything. This is on
//! the path of every call, so nothing waits for a delivery before a shutdown does: finished halves
//! are collected, and those that were delivered meanwhile are dropped in batches.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::sync::lock;

/// Finished halves that are kept before those that were delivered are looked for.
const SWEEP_AT: usize = 64;

/// Resolves when the other side has everything, wants no more, or is lost.
pub(crate) type Delivery = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A sending half that was finished. Its owner may use it still.
pub(crate) trait Finished: Send + Sync {
    /// Whether the other side has everything. Cheap, and may miss other ends.
    fn is_delivered(&self) -> bool;

    /// Waits for any end.
    fn delivery(&self) -> Delivery;
}

/// Counts the halves of streams that have not ended; clones share the count.
#[derive(Clone, Default)]
pub(crate) struct OpenStreams(Arc<Inner>);

#[derive(Default)]
struct Inner {
    halves: AtomicUsize,
    none: Notify,
    finished: Mutex<Collected>,
}

/// Finished halves whose delivery was not seen yet.
struct Collected {
    halves: Vec<Arc<dyn Finished>>,
    sweep_at: usize,
}

impl Default for Collected {
    fn default() -> Self {
        Self { halves: Vec::new(), sweep_at: SWEEP_AT }
    }
}

/// A half that has not ended. Dropped when it has.
pub(crate) struct OpenHalf(OpenStreams);

impl OpenStreams {
    /// One more half.
    pub(crate) fn enter(&self) -> OpenHalf {
        self.0.halves.fetch_add(1, Ordering::Relaxed);
        OpenHalf(self.clone())
    }

    /// Waits until no half is in use, and what the finished ones had sent was delivered. For one
    /// caller at a time.
    pub(crate) async fn ended(&self) {
        loop {
            while self.0.halves.load(Ordering::Acquire) > 0 {
                // A permit is kept for a half that ends between the look and the wait.
                self.0.none.notified().await;
            }
            let finished = std::mem::take(&mut self.finished().halves);
            if finished.is_empty() {
                return;
            }
            for half in finished {
                half.delivery().await;
            }
        }
    }

    fn finished(&self) -> MutexGuard<'_, Collected> {
        lock(&self.0.finished)
    }
}

impl OpenHalf {
    /// The half was finished.
    pub(crate) fn finish(self, half: Arc<dyn Finished>) {
        let mut finished = self.0.finished();
        if finished.halves.len() >= finished.sweep_at {
            finished.halves.retain(is_pending);
            // Twice as many as are left, so that the search costs each half the same.
            finished.sweep_at = SWEEP_AT.max(2 * finished.halves.len());
        }
        finished.halves.push(half);
    }
}

impl Drop for OpenHalf {
    fn drop(&mut self) {
        if self.0.0.halves.fetch_sub(1, Ordering::Release) == 1 {
            self.0.0.none.notify_one();
        }
    }
}

impl std::fmt::Debug for OpenStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OpenStreams").field(&self.0.halves).finish()
    }
}

impl std::fmt::Debug for OpenHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenHalf")
    }
}

/// Whether the other side is still owed something.
fn is_pending(half: &Arc<dyn Finished>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    !half.is_delivered() && half.delivery().as_mut().poll(&mut cx).is_pending()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::task::unconstrained;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    /// Over once the sender of the channel is dropped.
    struct Half {
        ended: watch::Receiver<()>,
        delivered: bool,
    }

    impl Finished for Half {
        fn is_delivered(&self) -> bool {
            self.delivered
        }

        fn delivery(&self) -> Delivery {
            let mut ended = self.ended.clone();
            Box::pin(unconstrained(async move { while ended.changed().await.is_ok() {} }))
        }
    }

    fn half(delivered: bool) -> (watch::Sender<()>, Arc<Half>) {
        let (end, ended) = watch::channel(());
        (end, Arc::new(Half { ended, delivered }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_halves_and_then_for_deliveries() {
        let streams = OpenStreams::default();
        timeout(SOON, streams.ended()).await.expect("nothing is open");
        let (send, recv) = (streams.enter(), streams.enter());
        assert!(timeout(SOON, streams.ended()).await.is_err());
        drop(recv);
        let (delivered, finished) = half(false);
        send.finish(finished);
        let ended = tokio::spawn(async move { streams.ended().await });
        tokio::time::sleep(SOON).await;
        assert!(!ended.is_finished(), "it was finished, and is not delivered");
        drop(delivered);
        timeout(SOON, ended).await.expect("it is delivered").unwrap();
    }

    #[tokio::test]
    async fn finished_halves_do_not_pile_up() {
        let streams = OpenStreams::default();
        for nth in 0..10_000 {
            let (end, finished) = half(nth % 2 == 0);
            drop(end);
            streams.enter().finish(finished);
        }
        assert!(streams.finished().halves.len() <= SWEEP_AT, "delivered or lost");
        let mut kept = Vec::new();
        for _ in 0..1_000 {
            let (end, finished) = half(false);
            kept.push(end);
            streams.enter().finish(finished);
        }
        assert!(streams.finished().halves.len() >= 1_000, "those under way are kept");
        assert_eq!(streams.0.halves.load(Ordering::Relaxed), 0);
    }
}
