//! The streams of a node that are still in use, so that a shutdown can wait for them.
//!
//! A half counts until it has ended, not until it is dropped: applications keep streams that are over. A sending half
//! that was finished counts until the other side has everything.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Finished halves that are kept before those that were delivered are looked for.
const SWEEP_AT: usize = 64;

/// Resolves when the other side has everything, wants no more, or is lost.
type Delivery = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Counts the halves of streams that have not ended; clones share the count.
#[derive(Clone, Default)]
pub(crate) struct OpenStreams(Arc<Inner>);

#[derive(Default)]
struct Inner {
    halves: AtomicUsize,
    none: Notify,
    finished: Mutex<Finished>,
}

/// Finished halves whose delivery was not seen yet.
struct Finished {
    deliveries: Vec<Delivery>,
    sweep_at: usize,
}

impl Default for Finished {
    fn default() -> Self {
        Self { deliveries: Vec::new(), sweep_at: SWEEP_AT }
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

    /// Waits until no half is in use, and what the finished ones had sent was delivered. For one caller at a time.
    pub(crate) async fn ended(&self) {
        loop {
            while self.0.halves.load(Ordering::Acquire) > 0 {
                // A permit is kept for a half that ends between the look and the wait.
                self.0.none.notified().await;
            }
            let deliveries = std::mem::take(&mut self.finished().deliveries);
            if deliveries.is_empty() {
                return;
            }
            for delivery in deliveries {
                delivery.await;
            }
        }
    }

    fn finished(&self) -> MutexGuard<'_, Finished> {
        self.0.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenHalf {
    /// The half was finished; `delivery` says when the other side has everything.
    pub(crate) fn finish(self, delivery: impl Future<Output = ()> + Send + 'static) {
        let mut finished = self.0.finished();
        if finished.deliveries.len() >= finished.sweep_at {
            finished.deliveries.retain_mut(is_pending);
            // Twice as many as are left, so that the search costs each half the same.
            finished.sweep_at = SWEEP_AT.max(2 * finished.deliveries.len());
        }
        finished.deliveries.push(Box::pin(delivery));
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

/// Whether a delivery is under way. Whoever waits for it later is woken anew.
fn is_pending(delivery: &mut Delivery) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    delivery.as_mut().poll(&mut cx).is_pending()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_halves_and_then_for_deliveries() {
        let streams = OpenStreams::default();
        timeout(SOON, streams.ended()).await.expect("nothing is open");
        let (send, recv) = (streams.enter(), streams.enter());
        assert!(timeout(SOON, streams.ended()).await.is_err());
        drop(recv);
        let (delivered, delivery) = oneshot::channel::<()>();
        send.finish(async { drop(delivery.await) });
        let ended = tokio::spawn(async move { streams.ended().await });
        tokio::time::sleep(SOON).await;
        assert!(!ended.is_finished(), "it was finished, and is not delivered");
        drop(delivered);
        timeout(SOON, ended).await.expect("it is delivered").unwrap();
    }

    #[tokio::test]
    async fn finished_halves_do_not_pile_up() {
        let streams = OpenStreams::default();
        for _ in 0..10_000 {
            streams.enter().finish(ready(()));
        }
        assert!(streams.finished().deliveries.len() <= SWEEP_AT);
        for _ in 0..1_000 {
            streams.enter().finish(pending());
        }
        assert!(streams.finished().deliveries.len() >= 1_000, "those under way are kept");
        assert_eq!(streams.0.halves.load(Ordering::Relaxed), 0);
    }
}
