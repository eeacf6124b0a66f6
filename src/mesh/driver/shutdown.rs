//! The end of a node: one shutdown, however many callers wait for it.
//!
//! ```text
//!   shutdown(grace) ─▶ task: refuse ─▶ drain, until the earliest deadline ─▶ withdraw ─▶ close ─▶ done
//!        └── waits for `done`; dropped, it changes nothing
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The longest grace period: a longer one is cut to it.
const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// This node is shut down, or the runtime that drives it is gone. Nothing was changed; start
/// another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node is shut down")]
pub struct ShutDown;

/// A shutdown that runs at most once. Its callers share the outcome, and the earliest of their
/// deadlines.
#[derive(Debug)]
pub(crate) struct Shutdown {
    begun: AtomicBool,
    /// When draining ends; `None` before the first call.
    deadline: watch::Sender<Option<Instant>>,
    done: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            begun: AtomicBool::new(false),
            deadline: watch::Sender::new(None),
            done: watch::Sender::new(false),
        }
    }
}

impl Shutdown {
    /// Notes a caller's grace period. `true` for the first caller, which has to run the shutdown.
    pub(crate) fn begin(&self, grace: Duration) -> bool {
        let asked = Instant::now() + grace.min(MAX_GRACE);
        self.deadline.send_if_modified(|deadline| {
            let sooner = deadline.is_none_or(|known| asked < known);
            if sooner {
                *deadline = Some(asked);
            }
            sooner
        });
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Waits until the earliest deadline of all callers, also of those that call meanwhile. Cancel
    /// safe.
    pub(crate) async fn grace_over(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                biased;
                // The sender lives as long as `self`.
                _ = deadline.changed() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
            }
        }
    }

    /// Waits until the shutdown has run. Cancel safe.
    pub(crate) async fn done(&self) {
        self.done.subscribe().wait_for(|done| *done).await.expect("self holds the sender");
    }

    /// Wakes all callers. Also called when the task that ran the shutdown is dropped with its
    /// runtime.
    pub(crate) fn finished(&self) {
        self.done.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_caller_runs_it_and_all_share_the_end() {
        let shutdown = Shutdown::default();
        assert!(shutdown.begin(seconds(5)));
        assert!(!shutdown.begin(seconds(5)));
        let mut waiting = pin!(shutdown.done());
        assert!(tokio::time::timeout(seconds(60), &mut waiting).await.is_err());
        shutdown.finished();
        waiting.await;
        shutdown.done().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_ends_the_grace_period() {
        let shutdown = Shutdown::default();
        let start = Instant::now();
        shutdown.begin(seconds(30));
        let later = async {
            tokio::time::sleep(seconds(1)).await;
            shutdown.begin(seconds(60));
            shutdown.begin(seconds(2));
        };
        tokio::join!(shutdown.grace_over(), later);
        assert_eq!(start.elapsed(), seconds(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_grace_period_is_cut_to_a_day() {
        let shutdown = Shutdown::default();
        let start = Instant::now();
        shutdown.begin(Duration::MAX);
        shutdown.grace_over().await;
        assert_eq!(start.elapsed(), MAX_GRACE);
    }
}
