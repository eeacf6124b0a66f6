//! Who uses a connection: streams by the end that opened them, opens that wait, and other users.
//!
//! Reference counts are the counters. Opening and closing a stream costs two increments and two decrements, and takes no
//! lock; the price is that nothing is notified when a stream ends, so an open that waits for a place polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::transport::settings::{CREDIT_WANTED_AT, MAX_STREAMS};

/// Opens that wait for a place or for credit on one connection; more fail at once.
pub(crate) const MAX_WAITING_OPENS: usize = 4_096;
/// Poll interval of the first open in the queue while all places are taken.
const PLACE_POLL: Duration = Duration::from_millis(10);

/// Keeps a connection in use: one with nothing but expired leases may be closed as idle.
pub(crate) type Lease = Arc<()>;

/// The leases of a stream's two halves.
#[derive(Debug)]
pub(crate) struct StreamLease {
    pub(crate) send: Lease,
    pub(crate) recv: Lease,
}

impl StreamLease {
    /// Whether the streams of which this is one are so many that the other end should permit more.
    pub(crate) fn wants_credit(&self) -> bool {
        self.streams() >= CREDIT_WANTED_AT
    }

    /// The streams of which this is one.
    pub(crate) fn streams(&self) -> usize {
        held(&self.send).max(held(&self.recv))
    }
}

/// What a stream is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The application: at most [`MAX_STREAMS`] at a time to one node.
    Application,
    /// The built-in directives. They have the rest of the credit, so a node that is saturated still answers a ping.
    BuiltIn,
}

/// Counts the users of a link, or of all connections with one peer.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Streams that this node opened.
    opened: Halves,
    /// Streams that the other node opened.
    incoming: Halves,
    /// Opens that wait.
    waiting: Lease,
    /// Everything else: connects under way, senders of datagrams.
    others: Lease,
    /// Something came in that holds no lease.
    noted: AtomicBool,
    /// The peer said that it does not hear this node.
    unheard: AtomicBool,
    /// Held by the application's open that is next to get a place.
    turn: Mutex<()>,
}

/// Streams of which one or both halves live.
///
/// The larger count of the two kinds of halves: exact unless some streams have lost their sending half and others their
/// receiving half.
#[derive(Debug, Default)]
struct Halves {
    send: Lease,
    recv: Lease,
}

impl Halves {
    fn count(&self) -> usize {
        held(&self.send).max(held(&self.recv))
    }

    fn lease(&self) -> StreamLease {
        StreamLease { send: self.send.clone(), recv: self.recv.clone() }
    }
}

/// An open's place in the queue. Dropped, it gives up.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    usage: &'a Usage,
    _counted: Lease,
    /// Applications wait one behind the other, so that whatever credit arrives is not taken by a thousand of them
    /// before a ping sees any.
    _turn: Option<MutexGuard<'a, ()>>,
    purpose: Purpose,
}

impl Usage {
    /// One more user that is not a stream.
    pub(crate) fn lease(&self) -> Lease {
        self.others.clone()
    }

    /// The peer says that it does not hear this node.
    pub(crate) fn note_unheard(&self) {
        self.unheard.store(true, Ordering::Relaxed);
    }

    /// Whether the peer has said so since the last call.
    pub(crate) fn take_unheard(&self) -> bool {
        self.unheard.swap(false, Ordering::Relaxed)
    }

    /// A place for a stream that this node opens; `None` if all are taken, or others wait for one.
    pub(crate) fn try_open(&self) -> Option<StreamLease> {
        // Threads that open at the same moment may together exceed the bound; the credit has room for them.
        (held(&self.waiting) == 0 && self.opened.count() < MAX_STREAMS).then(|| self.opened.lease())
    }

    /// Queues for a place; `None` if [`MAX_WAITING_OPENS`] wait already. Cancel safe.
    pub(crate) async fn queue(&self, purpose: Purpose) -> Option<Waiting<'_>> {
        if held(&self.waiting) >= MAX_WAITING_OPENS {
            return None;
        }
        let counted = self.waiting.clone();
        let turn = match purpose {
            Purpose::Application => Some(self.turn.lock().await),
            Purpose::BuiltIn => None,
        };
        Some(Waiting { usage: self, _counted: counted, _turn: turn, purpose })
    }

    /// A stream that the other node opened, from the moment that it is accepted by QUIC.
    pub(crate) fn incoming(&self) -> StreamLease {
        self.incoming.lease()
    }

    /// Streams that the other node opened and that live here.
    pub(crate) fn incoming_streams(&self) -> usize {
        self.incoming.count()
    }

    /// Streams that this node opened and holds.
    pub(crate) fn opened_streams(&self) -> usize {
        self.opened.count()
    }

    /// Streams in both directions.
    pub(crate) fn streams(&self) -> usize {
        self.opened.count() + self.incoming.count()
    }

    /// Opens that wait for a place or for credit.
    pub(crate) fn waiting(&self) -> usize {
        held(&self.waiting)
    }

    /// Whether anybody uses the connection.
    pub(crate) fn in_use(&self) -> bool {
        self.streams() + self.waiting() + held(&self.others) > 0
    }

    /// Notes that something came in that holds no lease.
    pub(crate) fn note(&self) {
        if !self.noted.load(Ordering::Relaxed) {
            self.noted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether something was noted since the last call.
    pub(crate) fn take_noted(&self) -> bool {
        self.noted.swap(false, Ordering::Relaxed)
    }
}

impl Waiting<'_> {
    /// Waits for a place. Cancel safe.
    pub(crate) async fn place(&self) -> StreamLease {
        while self.purpose == Purpose::Application && self.usage.opened.count() >= MAX_STREAMS {
            tokio::time::sleep(PLACE_POLL).await;
        }
        self.usage.opened.lease()
    }
}

/// Leases that others hold.
fn held(lease: &Lease) -> usize {
    Arc::strong_count(lease) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_counts_until_both_halves_are_gone() {
        let usage = Usage::default();
        assert!(!usage.in_use());
        let StreamLease { send, recv } = usage.try_open().unwrap();
        let other = usage.try_open().unwrap();
        assert_eq!((usage.opened_streams(), usage.streams()), (2, 2));
        drop(other);
        drop(send);
        assert_eq!(usage.opened_streams(), 1);
        drop(recv);
        assert!(!usage.in_use());
        let incoming = usage.incoming();
        assert_eq!((usage.incoming_streams(), usage.opened_streams(), usage.streams()), (1, 0, 1));
        drop(incoming);
        let lease = usage.lease();
        assert!(usage.in_use());
        assert_eq!(usage.streams(), 0);
        drop(lease);
        assert!(!usage.in_use());
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_applications_wait_and_built_ins_do_not() {
        let usage = Usage::default();
        let mut held: Vec<_> = (0..MAX_STREAMS).map(|_| usage.try_open().unwrap()).collect();
        assert!(usage.try_open().is_none());
        let built_in = usage.queue(Purpose::BuiltIn).await.unwrap();
        held.push(built_in.place().await);
        drop(built_in);

        let first = usage.queue(Purpose::Application).await.unwrap();
        assert_eq!((usage.waiting(), usage.streams()), (1, MAX_STREAMS + 1));
        let limit = Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, first.place()).await.is_err());
        // The second waits for its turn.
        assert!(tokio::time::timeout(limit, usage.queue(Purpose::Application)).await.is_err());
        held.truncate(MAX_STREAMS - 1);
        let place = tokio::time::timeout(limit, first.place()).await.unwrap();
        drop(first);
        assert_eq!(usage.waiting(), 0);
        assert!(usage.try_open().is_none());
        drop(place);
        // A newcomer does not overtake the one that waits.
        let waiting = usage.queue(Purpose::Application).await.unwrap();
        assert!(usage.try_open().is_none());
        drop(waiting);
        assert!(usage.try_open().is_some());
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let usage = Usage::default();
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING_OPENS {
            waiting.push(usage.queue(Purpose::BuiltIn).await.unwrap());
        }
        assert!(usage.queue(Purpose::BuiltIn).await.is_none());
        drop(waiting);
        assert!(usage.queue(Purpose::BuiltIn).await.is_some());
    }

    #[test]
    fn credit_is_wanted_before_the_first_allowance_is_used_up() {
        let usage = Usage::default();
        let held: Vec<_> = (0..CREDIT_WANTED_AT).map(|_| usage.try_open().unwrap()).collect();
        assert!(held[0].wants_credit());
        assert!(!usage.incoming().wants_credit());
        let held = &held[1..];
        assert_eq!(held.len(), CREDIT_WANTED_AT - 1);
    }
}
