//! Who is served on the control socket, and who waits.
//!
//! ```text
//!             ┌─ arrivals: no request yet, up to MAX_ARRIVALS; one more, and the oldest is turned away
//!  accepted ──┤
//!             ├─ snapshots (status, explain, lists and changes of units): MAX_SNAPSHOTS at a time, others wait up to QUERY_WAIT
//!             ├─ probes (ping, trace, converge): MAX_PROBES at a time, others wait up to QUERY_WAIT
//!             ├─ unit streams (submissions, watches, results): MAX_UNIT_STREAMS at a time; one more fails as busy
//!             └─ sends: MAX_SENDS at a time, MAX_QUEUED wait in order; one more fails as busy
//! ```
//!
//! Each class has its own room, so that neither idle clients nor long calls nor a mesh that does
//! not answer keep a status from being shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Clients that have connected and not yet sent their request.
pub(super) const MAX_ARRIVALS: usize = 64;
/// The number of snapshots of this node that are taken at a time. They do not wait for other work.
pub(super) const MAX_SNAPSHOTS: usize = 64;
/// Questions to other nodes that run at a time. They end when their own time limit is over.
pub(super) const MAX_PROBES: usize = 256;
/// Calls that run at a time. They may run for days.
pub(super) const MAX_SENDS: usize = 512;
/// Calls that wait for one of the others to end.
pub(super) const MAX_QUEUED: usize = 512;
/// Submissions, watches and results of units that are served at a time. They may run for days.
pub(super) const MAX_UNIT_STREAMS: usize = 512;
/// How long a query waits for room.
const QUERY_WAIT: Duration = Duration::from_secs(5);

/// The room for clients. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Reception(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    arrivals: AtomicUsize,
    /// Wakes the arrival that has waited longest.
    turn_away: Notify,
    snapshots: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    sends: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    unit_streams: Arc<Semaphore>,
}

/// A client that has not sent its request yet.
#[derive(Debug)]
pub(super) struct Arrival(Reception);

/// Room for one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Reception {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            arrivals: AtomicUsize::new(0),
            turn_away: Notify::new(),
            snapshots: Arc::new(Semaphore::new(MAX_SNAPSHOTS)),
            probes: Arc::new(Semaphore::new(MAX_PROBES)),
            sends: Arc::new(Semaphore::new(MAX_SENDS)),
            queue: Arc::new(Semaphore::new(MAX_QUEUED)),
            unit_streams: Arc::new(Semaphore::new(MAX_UNIT_STREAMS)),
        }))
    }

    /// Counts a client that was accepted. If there are too many, the oldest that has sent nothing
    /// gives up its room.
    pub(super) fn arrive(&self) -> Arrival {
        if self.0.arrivals.fetch_add(1, Ordering::Relaxed) >= MAX_ARRIVALS {
            self.0.turn_away.notify_one();
        }
        Arrival(self.clone())
    }

    /// Room for a question about this node, or a change of one of its units; `None` if there was
    /// none within [`QUERY_WAIT`].
    pub(super) async fn snapshot(&self) -> Option<Room> {
        query(&self.0.snapshots).await
    }

    /// Room for a question to other nodes; `None` if there was none within [`QUERY_WAIT`].
    pub(super) async fn probe(&self) -> Option<Room> {
        query(&self.0.probes).await
    }

    /// Room for a call, if there is some at once.
    pub(super) fn send_now(&self) -> Option<Room> {
        self.0.sends.clone().try_acquire_owned().ok().map(Room)
    }

    /// A place in the queue for a call; `None` if the queue is full.
    pub(super) fn queue(&self) -> Option<Room> {
        self.0.queue.clone().try_acquire_owned().ok().map(Room)
    }

    /// Room for a submission, a watch or the results of a unit, if there is some at once.
    pub(super) fn unit_stream(&self) -> Option<Room> {
        self.0.unit_streams.clone().try_acquire_owned().ok().map(Room)
    }

    /// Waits for room for a call, in the order of the callers.
    pub(super) async fn send(&self) -> Option<Room> {
        self.0.sends.clone().acquire_owned().await.ok().map(Room)
    }
}

async fn query(room: &Arc<Semaphore>) -> Option<Room> {
    timeout(QUERY_WAIT, room.clone().acquire_owned()).await.ok()?.ok().map(Room)
}

impl Arrival {
    /// Waits until this client has to give up its room to another.
    pub(super) async fn turned_away(&self) {
        self.0.0.turn_away.notified().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.0.arrivals.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    /// Polls once; whether the future is still pending.
    async fn pending_once<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn one_arrival_too_many_turns_the_oldest_away() {
        let reception = Reception::new();
        let arrivals: Vec<_> = (0..MAX_ARRIVALS).map(|_| reception.arrive()).collect();
        let mut oldest = std::pin::pin!(arrivals[0].turned_away());
        let mut second = std::pin::pin!(arrivals[1].turned_away());
        assert!(pending_once(oldest.as_mut()).await && pending_once(second.as_mut()).await);
        let _one_more = reception.arrive();
        oldest.await;
        assert!(pending_once(second.as_mut()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_calls_nor_probes_take_the_room_of_a_status() {
        let reception = Reception::new();
        let sends: Vec<_> = std::iter::from_fn(|| reception.send_now()).collect();
        let queued: Vec<_> = std::iter::from_fn(|| reception.queue()).collect();
        let mut probes = Vec::new();
        while let Some(room) = reception.probe().await {
            probes.push(room);
        }
        assert_eq!((sends.len(), queued.len(), probes.len()), (MAX_SENDS, MAX_QUEUED, MAX_PROBES));
        assert!(reception.snapshot().await.is_some());
    }

    #[tokio::test]
    async fn a_call_that_ends_makes_room_for_the_one_that_waits() {
        let reception = Reception::new();
        let mut sends: Vec<_> = std::iter::from_fn(|| reception.send_now()).collect();
        let mut waiting = std::pin::pin!(reception.send());
        assert!(pending_once(waiting.as_mut()).await);
        sends.pop();
        assert!(waiting.await.is_some());
    }
}
