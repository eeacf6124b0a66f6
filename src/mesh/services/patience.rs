//! How long each stream waits for a peer that has become unreachable.
//!
//! A peer connection lives as long as its most patient stream. Streams that are less patient end
//! before it, each after its own peer timeout:
//!
//! ```text
//!   watch ─ unreachable for 2 s ─▶ Patiences ─▶ streams with a timeout of up to 2 s end
//!                                      │
//!                                      └─ longest timeout of those that are left ─▶ the connection waits on
//! ```
//!
//! Streams with the same timeout share a group. A group that has been given up takes no new
//! streams: those opened later get one of their own, and are judged at the next sample.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

use super::ending::{Cause, EndReason};
use crate::mesh::access::grant::Grant;
use crate::sync::lock;
use crate::transport::settings::{PEER_DEAD_AFTER, PEER_TIMEOUTS};

/// For how long a peer has not been there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    /// Since its last packet.
    pub(crate) unheard: Duration,
    /// The same if there is no route to it either.
    pub(crate) unreachable: Option<Duration>,
}

impl Absence {
    /// Why somebody with this peer timeout gives the peer up; `None` if it waits on.
    ///
    /// A silent peer with a route to it has [`PEER_DEAD_AFTER`] at least: the route may be about
    /// to change.
    pub(crate) fn exceeds(self, timeout: Duration) -> Option<EndReason> {
        if self.unreachable.is_some_and(|unreachable| unreachable >= timeout) {
            return Some(EndReason::NoRoute);
        }
        (self.unheard >= timeout.max(PEER_DEAD_AFTER)).then_some(EndReason::Unreachable)
    }
}

/// The peer timeouts of the streams between this node and one peer.
#[derive(Debug)]
pub(crate) struct Patiences {
    /// The timeout of streams without one of their own.
    usual: Duration,
    /// By timeout. Groups without streams are removed at the next sample.
    groups: Mutex<BTreeMap<Duration, Arc<Group>>>,
}

/// Streams with the same timeout.
#[derive(Debug)]
struct Group {
    /// Why the peer was given up.
    given_up: watch::Sender<Option<EndReason>>,
}

/// A stream's membership in its group.
#[derive(Clone, Debug)]
pub(crate) struct Patience(Arc<Group>);

impl Patiences {
    /// For a peer without streams.
    pub(crate) fn new(usual: Duration) -> Self {
        Self { usual, groups: Mutex::default() }
    }

    /// The patience of a new stream with this timeout, which is brought within [`PEER_TIMEOUTS`];
    /// `None`: the usual one.
    pub(crate) fn join(&self, timeout: Option<Duration>) -> Patience {
        let timeout = timeout.map_or(self.usual, bounded);
        let group = self.lock().entry(timeout).or_insert_with(Group::new).clone();
        Patience(group)
    }

    /// The shortest timeout of all streams, or the usual one if there are none. Removes groups
    /// without streams.
    pub(crate) fn shortest(&self) -> Duration {
        let mut groups = self.lock();
        groups.retain(|_, group| group.is_used());
        groups.keys().next().copied().unwrap_or(self.usual)
    }

    /// Ends the streams that give the peer up; returns the longest timeout of the others, or the
    /// usual one if that is longer: how long their connections wait.
    pub(crate) fn give_up(&self, absence: Absence) -> Duration {
        let mut longest = self.usual;
        self.lock().retain(|timeout, group| {
            let why = absence.exceeds(*timeout);
            let waits = group.is_used() && why.is_none();
            if waits {
                longest = longest.max(*timeout);
            }
            if why.is_some() {
                group.given_up.send_replace(why);
            }
            waits
        });
        longest
    }

    /// The number of groups.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Duration, Arc<Group>>> {
        lock(&self.groups)
    }
}

/// A timeout within [`PEER_TIMEOUTS`].
pub(crate) fn bounded(timeout: Duration) -> Duration {
    timeout.clamp(*PEER_TIMEOUTS.start(), *PEER_TIMEOUTS.end())
}

impl Group {
    fn new() -> Arc<Self> {
        Arc::new(Self { given_up: watch::Sender::new(None) })
    }

    /// Whether a stream belongs to it, which the map's own reference is not.
    fn is_used(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }
}

impl Patience {
    /// Why the peer was given up; `None` if it was not.
    fn given_up(&self) -> Option<Cause> {
        self.0.given_up.borrow().clone().map(Cause::network)
    }

    /// Waits until the peer is given up. Cancel safe.
    pub(crate) async fn ended(self) -> Cause {
        let mut given_up = self.0.given_up.subscribe();
        let why = given_up.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => Cause::network(why),
            // The sender is `self`'s.
            None => std::future::pending().await,
        }
    }
}

/// Waits until the peer is given up, or the grant ends.
async fn either(patience: Option<Patience>, grant: Option<Arc<Grant>>) -> Cause {
    let given_up = async {
        match patience {
            Some(patience) => patience.ended().await,
            None => std::future::pending().await,
        }
    };
    let Some(grant) = grant else { return given_up.await };
    tokio::select! {
        biased;
        () = grant.revoked() => Cause::this(EndReason::NotAllowed),
        cause = given_up => cause,
    }
}

/// The patience of one half of a stream, polled beside its reads or writes.
///
/// Small, because streams are moved on their way to the application.
#[derive(Default)]
pub(crate) struct HalfPatience {
    patience: Option<Patience>,
    /// That the policy allows the stream; `None` if nothing has to.
    grant: Option<Arc<Grant>>,
    /// `None` until something had to be waited for.
    waiting: Option<Pin<Box<dyn Future<Output = Cause> + Send + Sync>>>,
    /// Whether the half has reported why the peer was given up.
    reported: bool,
}

impl HalfPatience {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience: Some(patience), ..Self::default() }
    }

    /// Ends the half when this grant does.
    pub(crate) fn depend_on(&mut self, grant: &Arc<Grant>) {
        self.grant = Some(grant.clone());
    }

    /// Whether the stream is no longer allowed.
    pub(crate) fn is_revoked(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.is_revoked())
    }

    /// Why the half has ended, if it has reported that before, or is no longer allowed.
    pub(crate) fn ended(&self) -> Option<Cause> {
        if self.is_revoked() {
            return Some(Cause::this(EndReason::NotAllowed));
        }
        if self.reported { self.given_up() } else { None }
    }

    /// Why the peer was given up, whether or not the half has had to wait. Takes a read lock where
    /// the stream has a peer timeout, and nothing on a link.
    pub(crate) fn given_up(&self) -> Option<Cause> {
        if self.is_revoked() {
            return Some(Cause::this(EndReason::NotAllowed));
        }
        self.patience.as_ref()?.given_up()
    }

    /// Whether the peer is given up, or the stream no longer allowed. To be polled whenever the half
    /// has to wait.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        if let Some(cause) = self.ended() {
            return Poll::Ready(cause);
        }
        let waiting = match (&mut self.waiting, &self.patience, &self.grant) {
            (Some(waiting), ..) => waiting,
            (None, None, None) => return Poll::Pending,
            (waiting, patience, grant) => {
                waiting.insert(Box::pin(either(patience.clone(), grant.clone())))
            }
        };
        let cause = std::task::ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.reported = true;
        Poll::Ready(cause)
    }

    /// Waits for `operation`, or until the peer is given up.
    pub(crate) async fn unless_given_up<T>(
        &mut self,
        operation: impl Future<Output = T>,
    ) -> Result<T, Cause> {
        let mut operation = std::pin::pin!(operation);
        std::future::poll_fn(|cx| match operation.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }

    /// As [`unless_given_up`](Self::unless_given_up), where the half is shared.
    pub(crate) async fn unless_given_up_elsewhere<T>(
        &self,
        operation: impl Future<Output = T>,
    ) -> Result<T, Cause> {
        if self.patience.is_none() && self.grant.is_none() {
            return Ok(operation.await);
        }
        tokio::select! {
            biased;
            done = operation => Ok(done),
            cause = either(self.patience.clone(), self.grant.clone()) => Err(cause),
        }
    }
}

impl std::fmt::Debug for HalfPatience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HalfPatience").field("ended", &self.ended()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn absent(seconds: u32, routed: bool) -> Absence {
        let unheard = SECOND * seconds;
        Absence { unheard, unreachable: (!routed).then_some(unheard) }
    }

    async fn is_over(patience: &Patience) -> bool {
        super::super::at_once::at_once(std::pin::pin!(patience.clone().ended())).await.is_some()
    }

    #[tokio::test]
    async fn each_stream_waits_for_its_own_time() {
        let patiences = Patiences::new(5 * SECOND);
        assert_eq!(patiences.shortest(), 5 * SECOND);
        let (usual, short, long) = (
            patiences.join(None),
            patiences.join(Some(2 * SECOND)),
            patiences.join(Some(40 * SECOND)),
        );
        assert_eq!(patiences.shortest(), 2 * SECOND);
        assert_eq!(patiences.give_up(absent(1, false)), 40 * SECOND);
        assert!(!is_over(&short).await);
        assert_eq!(patiences.give_up(absent(2, false)), 40 * SECOND);
        assert!(is_over(&short).await && !is_over(&usual).await);
        assert_eq!(patiences.give_up(absent(5, false)), 40 * SECOND);
        assert!(is_over(&usual).await && !is_over(&long).await);
        assert_eq!(patiences.shortest(), 40 * SECOND);
        // No stream is left that waits longer than usual.
        assert_eq!(patiences.give_up(absent(40, false)), 5 * SECOND);
        assert!(is_over(&long).await);
    }

    #[tokio::test]
    async fn a_silent_peer_with_a_route_has_15_s_at_least() {
        let patiences = Patiences::new(5 * SECOND);
        let (usual, long) = (patiences.join(None), patiences.join(Some(40 * SECOND)));
        patiences.give_up(absent(14, true));
        assert!(!is_over(&usual).await);
        patiences.give_up(absent(15, true));
        assert!(is_over(&usual).await && !is_over(&long).await);
        assert_eq!(usual.clone().ended().await, Cause::network(EndReason::Unreachable));
        patiences.give_up(absent(40, true));
        assert!(is_over(&long).await);
    }

    #[tokio::test]
    async fn streams_that_have_ended_do_not_count() {
        let patiences = Patiences::new(5 * SECOND);
        drop([patiences.join(Some(SECOND)), patiences.join(Some(40 * SECOND))]);
        assert_eq!(patiences.shortest(), 5 * SECOND);
        assert_eq!(patiences.give_up(absent(0, true)), 5 * SECOND);
        assert_eq!(patiences.len(), 0);
    }

    #[tokio::test]
    async fn a_stream_opened_after_a_group_was_given_up_is_not_in_it() {
        let patiences = Patiences::new(5 * SECOND);
        let before = patiences.join(None);
        patiences.give_up(absent(5, false));
        let after = patiences.join(None);
        assert!(is_over(&before).await && !is_over(&after).await);
    }

    #[tokio::test]
    async fn a_half_reports_the_same_cause_again() {
        let patiences = Patiences::new(5 * SECOND);
        let mut half = HalfPatience::new(patiences.join(None));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(half.poll(&mut cx).is_pending());
        patiences.give_up(absent(5, false));
        let cause = Cause::network(EndReason::NoRoute);
        assert_eq!((half.ended(), half.given_up()), (None, Some(cause.clone())));
        for _ in 0..2 {
            assert_eq!(half.poll(&mut cx), Poll::Ready(cause.clone()));
            assert_eq!(half.ended(), Some(cause.clone()));
        }
    }

    #[test]
    fn the_patience_of_a_half_fits_five_words() {
        assert!(size_of::<HalfPatience>() <= 5 * size_of::<usize>());
    }

    #[test]
    fn timeouts_are_brought_within_bounds() {
        let patiences = Patiences::new(5 * SECOND);
        let _short = patiences.join(Some(Duration::ZERO));
        assert_eq!(patiences.shortest(), *PEER_TIMEOUTS.start());
        let _long = patiences.join(Some(Duration::MAX));
        assert_eq!(patiences.give_up(absent(0, true)), *PEER_TIMEOUTS.end());
    }
}
