//! How many streams each caller has in the queue of a service.
//!
//! Ephemerals that share a certificate are one caller: ids count without their suffix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{MutexGuard, Notify};

use crate::id::NodeId;
use crate::sync::lock;

/// Callers in the table beyond which those without streams are looked for.
const SWEEP_AT: usize = 64;
/// Interval at which the head of a line checks its share again. A stream of its own caller that is
/// accepted wakes it at once; one of another caller, which may enlarge the share too, does not.
const SHARE_POLL: Duration = Duration::from_millis(5);

/// The callers of one service.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    counts: BTreeMap<NodeId, CallerCount>,
    /// The size of the table after the last sweep.
    kept: usize,
}

/// The count of one caller; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerCount(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Streams in the queue.
    queued: AtomicUsize,
    /// Streams in the line for the caller's share of the queue, the head included.
    lined_up: AtomicUsize,
    /// Held by the head of the line. The lock is fair, so the line is first come, first served.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the head when a stream leaves the queue.
    left: Notify,
}

/// The head of the line: no other stream of this caller enters the queue. Dropped, it lets the next
/// one go on.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _guard: MutexGuard<'a, ()>,
    _lined_up: LinedUp<'a>,
}

/// A stream in the line. Dropped, it is out of it.
#[derive(Debug)]
struct LinedUp<'a>(&'a Counts);

/// One stream in a count. Dropped, it is out of it.
#[derive(Debug)]
pub(crate) struct Counted(CallerCount);

impl Callers {
    /// The count of the caller with this id.
    pub(crate) fn of(&self, caller: &NodeId) -> CallerCount {
        let mut table = lock(&self.0);
        if table.counts.len() >= SWEEP_AT.max(2 * table.kept) {
            table.counts.retain(|_, count| Arc::strong_count(&count.0) > 1);
            table.kept = table.counts.len();
        }
        table.counts.entry(caller.base()).or_default().clone()
    }
}

impl CallerCount {
    /// Streams that are counted now.
    pub(crate) fn waiting(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Whether streams are in line for a share. One that arrives then has to queue up behind them:
    /// if it took the next place, a busy caller's newer streams could starve its older ones.
    pub(crate) fn has_line(&self) -> bool {
        self.0.lined_up.load(Ordering::Relaxed) > 0
    }

    /// Waits in line until `admits` holds. Cancel safe, at the cost of the position in the line.
    pub(crate) async fn turn(&self, admits: impl Fn() -> bool) -> Turn<'_> {
        self.0.lined_up.fetch_add(1, Ordering::Relaxed);
        let lined_up = LinedUp(&self.0);
        let guard = self.0.turn.lock().await;
        while !admits() {
            // A wake-up that is missed because the line was empty a moment ago costs one interval.
            let _ = tokio::time::timeout(SHARE_POLL, self.0.left.notified()).await;
        }
        Turn { _guard: guard, _lined_up: lined_up }
    }

    /// Counts another one.
    pub(crate) fn count(&self) -> Counted {
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.queued.fetch_sub(1, Ordering::Relaxed);
        if self.0.has_line() {
            self.0.0.left.notify_one();
        }
    }
}

impl Drop for LinedUp<'_> {
    fn drop(&mut self) {
        self.0.lined_up.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::at_once::at_once;
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    #[test]
    fn ephemerals_with_one_certificate_share_a_count() {
        let callers = Callers::default();
        let first = callers.of(&id("me~1")).count();
        let _second = callers.of(&id("me~2")).count();
        assert_eq!((callers.of(&id("me")).waiting(), callers.of(&id("you")).waiting()), (2, 0));
        drop(first);
        assert_eq!(callers.of(&id("me~1")).waiting(), 1);
    }

    #[test]
    fn callers_without_streams_are_forgotten() {
        let callers = Callers::default();
        let kept = callers.of(&id("kept")).count();
        for n in 0..10_000 {
            callers.of(&id(&format!("n{n}")));
        }
        assert!(callers.0.lock().unwrap().counts.len() <= SWEEP_AT + 1);
        assert_eq!(callers.of(&id("kept")).waiting(), 1);
        drop(kept);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_take_places_in_order_without_polling() {
        let caller = Callers::default().of(&id("me"));
        let mut queued = vec![caller.count(), caller.count()];
        let has_room = || caller.waiting() < 2;
        let (mut first, mut second) =
            (Box::pin(caller.turn(has_room)), Box::pin(caller.turn(has_room)));
        assert!(
            at_once(first.as_mut()).await.is_none() && at_once(second.as_mut()).await.is_none()
        );
        assert!(caller.has_line(), "newcomers see that others wait");

        let before = tokio::time::Instant::now();
        queued.pop();
        assert!(at_once(second.as_mut()).await.is_none(), "the place is the first one's");
        let turn = first.await;
        queued.push(caller.count());
        drop(turn);
        queued.pop();
        drop(second.await);
        assert_eq!(before.elapsed(), Duration::ZERO, "each was woken, and did not poll");
        assert!(!caller.has_line());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_gives_up_leaves_the_line() {
        let caller = Callers::default().of(&id("me"));
        let mut first = Box::pin(caller.turn(|| false));
        let mut second = Box::pin(caller.turn(|| true));
        assert!(
            at_once(first.as_mut()).await.is_none() && at_once(second.as_mut()).await.is_none()
        );
        drop(first);
        drop(second.await);
        assert!(!caller.has_line());
    }
}
