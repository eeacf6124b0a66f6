//! Who uses a connection: streams by the end that opened them, opens that wait, and other users.
//!
//! Reference counts are the counters. The places of the streams that this node opens are permits of
//! a semaphore besides, which wakes the opens that wait for one, first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

use super::patience::{Patience, Patiences};
use crate::mesh::clock;
use crate::sync::lock;
use crate::transport::settings::{CREDIT_WANTED_AT, MAX_STREAMS};

/// Opens that wait for a place or for credit on one connection; more fail at once.
pub(crate) const MAX_WAITING_OPENS: usize = 4_096;

/// How long opens that find credit may overtake the first open that waits for it.
const OVERTAKEN_FOR: Duration = Duration::from_millis(10);

/// Keeps a connection in use: one with nothing but expired leases may be closed as idle.
pub(crate) type Lease = Arc<()>;

/// The lease of one half of a stream.
#[derive(Debug)]
pub(crate) struct HalfLease {
    count: Lease,
    /// Shared by both halves.
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

/// The leases of a stream's two halves.
#[derive(Debug)]
pub(crate) struct StreamLease {
    pub(crate) send: HalfLease,
    pub(crate) recv: HalfLease,
    /// How long the stream waits for an unreachable peer; `None` on a link, which ends by itself.
    pub(crate) patience: Option<Patience>,
}

impl StreamLease {
    /// Whether the streams of which this is one are so many that the other end should permit more.
    pub(crate) fn wants_credit(&self) -> bool {
        self.streams() >= CREDIT_WANTED_AT
    }

    /// Sets how long the stream waits for an unreachable peer.
    pub(crate) fn waiting_for(self, patience: Option<Patience>) -> Self {
        Self { patience, ..self }
    }

    /// The streams of which this is one.
    pub(crate) fn streams(&self) -> usize {
        held(&self.send.count).max(held(&self.recv.count))
    }
}

/// What a stream is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The application: at most [`MAX_STREAMS`] at a time to one node.
    Application,
    /// The built-in directives. They have the rest of the credit, so a node that is saturated still
    /// answers a ping.
    BuiltIn,
}

/// Counts the users of a link, or of all connections with one peer.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Streams that this node opened.
    opened: Halves,
    /// [`MAX_STREAMS`] less the open ones, except for built-in directives that found no credit.
    places: Arc<Semaphore>,
    /// Streams that the other node opened.
    incoming: Halves,
    /// Opens that wait.
    waiting: Lease,
    /// Those of them that have a place, and wait for credit.
    waiting_for_credit: Lease,
    /// Everything else: connects under way, senders of datagrams.
    others: Lease,
    /// Something came in that holds no lease.
    noted: AtomicBool,
    /// The peer said that it does not hear this node.
    unheard: AtomicBool,
    /// Built-in directives that wait for credit.
    built_ins_waiting: Lease,
    /// Held by the application's open that is next to get credit.
    turn: Mutex<()>,
    /// When that began to wait.
    turn_since: std::sync::Mutex<Option<Instant>>,
    /// The peer timeouts of the streams; `None` for a link.
    patiences: Option<Patiences>,
}

/// Streams of which one or both halves live.
///
/// The larger count of the two kinds of halves: exact unless some streams have lost their sending
/// half and others their receiving half.
#[derive(Debug, Default)]
struct Halves {
    send: Lease,
    recv: Lease,
}

impl Halves {
    fn count(&self) -> usize {
        held(&self.send).max(held(&self.recv))
    }

    fn lease(&self, place: Option<OwnedSemaphorePermit>) -> StreamLease {
        let place = place.map(Arc::new);
        let half = |count: &Lease| HalfLease { count: count.clone(), _place: place.clone() };
        StreamLease { send: half(&self.send), recv: half(&self.recv), patience: None }
    }
}

/// An open that waits. Dropped, it gives up.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    usage: &'a Usage,
    _counted: Lease,
    purpose: Purpose,
}

/// An open that has a place and is next to take credit. Dropped, it lets others go on.
#[derive(Debug)]
pub(crate) struct CreditTurn<'a> {
    _counted: Lease,
    /// Applications wait in line, so that credit that arrives is not taken by a thousand of them
    /// before a ping sees any.
    _turn: Option<Turn<'a>>,
    _built_in: Option<Lease>,
}

/// The first place in line.
#[derive(Debug)]
struct Turn<'a> {
    usage: &'a Usage,
    _first: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.usage.turn_since) = None;
    }
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            opened: Halves::default(),
            places: Arc::new(Semaphore::new(MAX_STREAMS)),
            incoming: Halves::default(),
            waiting: Lease::default(),
            waiting_for_credit: Lease::default(),
            others: Lease::default(),
            noted: AtomicBool::default(),
            unheard: AtomicBool::default(),
            built_ins_waiting: Lease::default(),
            turn: Mutex::default(),
            turn_since: std::sync::Mutex::default(),
            patiences: None,
        }
    }
}

impl Usage {
    /// Of a peer that streams wait for this long while it is unreachable, unless they say
    /// otherwise.
    pub(crate) fn of_peer(timeout: Duration) -> Self {
        Self { patiences: Some(Patiences::new(timeout)), ..Self::default() }
    }

    /// The peer timeouts of the streams; `None` for a link.
    pub(crate) fn patiences(&self) -> Option<&Patiences> {
        self.patiences.as_ref()
    }

    /// The patience of a new stream with this peer timeout; `None` on a link.
    pub(crate) fn patience(&self, timeout: Option<Duration>) -> Option<Patience> {
        self.patiences.as_ref().map(|patiences| patiences.join(timeout))
    }

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

    /// A place for a stream that this node opens, or `None` if all are taken, others wait for one,
    /// or others have waited for credit for [`OVERTAKEN_FOR`].
    pub(crate) fn try_open(&self) -> Option<StreamLease> {
        if !self.may_take_credit() {
            return None;
        }
        // While opens wait for a place, no permit is available: it goes from hand to hand.
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(self.opened.lease(Some(place)))
    }

    /// Whether an open may take the credit that is there, though others wait for some.
    ///
    /// Handing credit from one waiting task to the next takes a wake-up each. If every newcomer
    /// joined the queue, a burst of a thousand opens would be served so for as long as calls follow
    /// each other. So newcomers overtake, until the first in the queue has waited too long; it gets
    /// what comes next (as in the eventual fairness of parking_lot's mutexes).
    pub(crate) fn may_take_credit(&self) -> bool {
        if held(&self.waiting_for_credit) == 0 {
            return true;
        }
        let overtaken =
            lock(&self.turn_since).map(|since| clock::now().saturating_duration_since(since));
        held(&self.built_ins_waiting) == 0 && overtaken.is_none_or(|time| time < OVERTAKEN_FOR)
    }

    /// Queues an open, or returns `None` if [`MAX_WAITING_OPENS`] wait already.
    pub(crate) fn queue(&self, purpose: Purpose) -> Option<Waiting<'_>> {
        (held(&self.waiting) < MAX_WAITING_OPENS).then(|| Waiting {
            usage: self,
            _counted: self.waiting.clone(),
            purpose,
        })
    }

    /// A stream that the other node opened, from the moment that it is accepted by QUIC.
    pub(crate) fn incoming(&self) -> StreamLease {
        self.incoming.lease(None)
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

impl<'a> Waiting<'a> {
    /// Waits for a place. Cancel safe, at the cost of the position in the queue.
    pub(crate) async fn place(&self) -> StreamLease {
        let places = self.usage.places.clone();
        let place = match self.purpose {
            // The semaphore is never closed.
            Purpose::Application => places.acquire_owned().await.ok(),
            Purpose::BuiltIn => places.try_acquire_owned().ok(),
        };
        self.usage.opened.lease(place)
    }

    /// Waits until this open is the next to take credit. Cancel safe, at the cost of the position
    /// in the queue.
    pub(crate) async fn credit_turn(&self) -> CreditTurn<'a> {
        let usage = self.usage;
        let counted = usage.waiting_for_credit.clone();
        match self.purpose {
            Purpose::Application => {
                // An open may have waited for a place before, which does not count.
                let since = clock::now();
                let first = usage.turn.lock().await;
                *lock(&usage.turn_since) = Some(since);
                CreditTurn {
                    _counted: counted,
                    _built_in: None,
                    _turn: Some(Turn { usage, _first: first }),
                }
            }
            Purpose::BuiltIn => {
                let built_in = usage.built_ins_waiting.clone();
                CreditTurn { _counted: counted, _built_in: Some(built_in), _turn: None }
            }
        }
    }
}

/// Leases that others hold.
fn held(lease: &Lease) -> usize {
    Arc::strong_count(lease) - 1
}

#[cfg(test)]
mod tests {
    use tokio::task::unconstrained;

    use super::super::at_once::at_once;
    use super::*;

    #[test]
    fn a_stream_counts_until_both_halves_are_gone() {
        let usage = Usage::default();
        assert!(!usage.in_use());
        let StreamLease { send, recv, patience: _ } = usage.try_open().unwrap();
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
        let built_in = usage.queue(Purpose::BuiltIn).unwrap();
        held.push(built_in.place().await);
        drop(built_in);

        let first = usage.queue(Purpose::Application).unwrap();
        assert_eq!((usage.waiting(), usage.streams()), (1, MAX_STREAMS + 1));
        let second = usage.queue(Purpose::Application).unwrap();
        let (mut first, mut second) = (Box::pin(first.place()), Box::pin(second.place()));
        assert!(
            at_once(first.as_mut()).await.is_none() && at_once(second.as_mut()).await.is_none()
        );
        // A place that becomes free goes to the first that waits; a newcomer does not overtake it.
        held.pop();
        held.pop();
        assert!(usage.try_open().is_none());
        assert!(
            at_once(second.as_mut()).await.is_none() && at_once(first.as_mut()).await.is_some()
        );
        held.pop();
        assert!(at_once(second.as_mut()).await.is_some());
    }

    #[tokio::test]
    async fn a_thousand_places_that_become_free_wake_a_thousand_opens_at_once() {
        let usage = Usage::default();
        let held: Vec<_> = (0..MAX_STREAMS).map(|_| usage.try_open().unwrap()).collect();
        let waiting: Vec<_> =
            (0..MAX_STREAMS).map(|_| usage.queue(Purpose::Application).unwrap()).collect();
        let mut places: Vec<_> = waiting.iter().map(|waiting| Box::pin(waiting.place())).collect();
        for place in &mut places {
            assert!(at_once(unconstrained(place.as_mut())).await.is_none());
        }
        drop(held);
        for place in &mut places {
            assert!(at_once(unconstrained(place.as_mut())).await.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn applications_take_credit_in_turn_and_built_ins_at_once() {
        let usage = Usage::default();
        let first = usage.queue(Purpose::Application).unwrap();
        let second = usage.queue(Purpose::Application).unwrap();
        // A wait for a place is not one for credit.
        tokio::time::advance(OVERTAKEN_FOR).await;
        let turn = first.credit_turn().await;
        let mut next = Box::pin(second.credit_turn());
        assert!(at_once(next.as_mut()).await.is_none());
        assert!(usage.try_open().is_some(), "it overtakes");
        tokio::time::advance(OVERTAKEN_FOR).await;
        assert!(usage.try_open().is_none(), "others have waited long for credit");
        drop(usage.queue(Purpose::BuiltIn).unwrap().credit_turn().await);
        drop(turn);
        let turn = next.await;
        assert!(usage.try_open().is_none(), "the next has waited as long");
        drop(turn);
        let built_in = usage.queue(Purpose::BuiltIn).unwrap();
        let waits = built_in.credit_turn().await;
        assert!(usage.try_open().is_none(), "built-in directives are not overtaken");
        drop(waits);
        assert!(usage.try_open().is_some());
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let usage = Usage::default();
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING_OPENS {
            waiting.push(usage.queue(Purpose::BuiltIn).unwrap());
        }
        assert!(usage.queue(Purpose::BuiltIn).is_none());
        drop(waiting);
        assert!(usage.queue(Purpose::BuiltIn).is_some());
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
