//! Responses that wait for callers, and how many bytes of them there may be.
//!
//! A caller decides when it reads, so what waits for callers is shared like the other resources of
//! a node: a caller may store another response while it stores less than three times what is free,
//! see [`fair`]. Beyond that each call may have one response waiting, so that every call makes
//! progress as its caller reads it, whatever the caller does about its other calls.
//!
//! ```text
//!   handler ─▶ reserve: one of RESPONSE_QUEUE places ─▶ a share of RESPONSE_MEMORY ─▶ queue ─▶ stream
//!                                                    └▶ none left: the call's only response
//!                                                       beyond its share
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::NodeId;
use crate::mesh::services::fair;
use crate::sync::lock;
use crate::work::frame::MAX_RESPONSE;

/// The number of responses of one call that may wait for the stream: 4, so at most 256 KiB.
pub(crate) const RESPONSE_QUEUE: usize = 4;

/// Bytes of responses that may wait for the callers of one node, beside one response for each call:
/// 8 MiB, which is four responses for each of 32 calls. One caller alone gets three quarters.
pub const RESPONSE_MEMORY: usize = 8 << 20;

/// How much a handler should produce at once while its caller has no share left, in bytes.
const SMALL_RESPONSE: usize = 8 * 1024;

/// What waits for the callers of a node. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ResponseBudget(Arc<Mutex<Stored>>);

#[derive(Debug, Default)]
struct Stored {
    /// Bytes within shares.
    shared: usize,
    /// Bytes beyond shares: one response for each call.
    beyond: usize,
    /// Bytes within shares by caller, without the suffix of its id.
    callers: BTreeMap<NodeId, usize>,
    /// How often a response found no share of the budget.
    limited: u64,
}

/// Bytes that are stored for a caller, until this is dropped.
#[derive(Debug)]
struct Charge {
    budget: ResponseBudget,
    /// `None` if they are beyond its share.
    caller: Option<NodeId>,
    bytes: usize,
}

/// The responses of one call that wait. Clones put into the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    queue: mpsc::Sender<Waiting>,
    budget: ResponseBudget,
    caller: NodeId,
    /// Held by the response that exceeds the share.
    beyond: Arc<Semaphore>,
}

/// A response that waits. Its memory counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) body: Bytes,
    _charge: Charge,
    _beyond: Option<OwnedSemaphorePermit>,
}

/// A place for one response. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Reserved {
    permit: OwnedPermit<Waiting>,
    charge: Charge,
    beyond: Option<OwnedSemaphorePermit>,
}

/// The call is over: responses are no longer accepted.
#[derive(Debug)]
pub(crate) struct Closed;

impl ResponseBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// A queue for the responses of one call, and its other end.
    pub(crate) fn backlog(&self, caller: &NodeId) -> (Backlog, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(RESPONSE_QUEUE);
        let beyond = Arc::new(Semaphore::new(1));
        (Backlog { queue, budget: self.clone(), caller: caller.base(), beyond }, waiting)
    }

    /// Bytes that wait, and how often a response found no share.
    pub(crate) fn held(&self) -> (usize, u64) {
        let stored = self.lock();
        (stored.shared + stored.beyond, stored.limited)
    }

    /// Charges a caller for a response, if its share has room.
    fn charge(&self, caller: &NodeId, bytes: usize) -> Option<Charge> {
        let mut stored = self.lock();
        if !stored.has_room(caller, bytes) {
            stored.limited += 1;
            return None;
        }
        stored.shared += bytes;
        *stored.callers.entry(caller.clone()).or_default() += bytes;
        Some(Charge { budget: self.clone(), caller: Some(caller.clone()), bytes })
    }

    /// Counts a response beyond any share.
    fn charge_beyond(&self, bytes: usize) -> Charge {
        self.lock().beyond += bytes;
        Charge { budget: self.clone(), caller: None, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        lock(&self.0)
    }
}

impl Stored {
    fn has_room(&self, caller: &NodeId, bytes: usize) -> bool {
        let own = self.callers.get(caller).copied().unwrap_or(0);
        fair::admits(own, self.shared + bytes, RESPONSE_MEMORY)
    }

    fn release(&mut self, caller: Option<&NodeId>, bytes: usize) {
        let Some(caller) = caller else {
            self.beyond = self.beyond.saturating_sub(bytes);
            return;
        };
        self.shared = self.shared.saturating_sub(bytes);
        let Some(own) = self.callers.get_mut(caller) else { return };
        *own = own.saturating_sub(bytes);
        if *own == 0 {
            self.callers.remove(caller);
        }
    }
}

impl Charge {
    /// Returns what exceeds `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.lock().release(self.caller.as_ref(), excess);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.lock().release(self.caller.as_ref(), self.bytes);
    }
}

impl Backlog {
    /// How many bytes a response should have now: less where the caller has no share left.
    pub(crate) fn piece(&self) -> usize {
        let room = self.budget.lock().has_room(&self.caller, MAX_RESPONSE);
        if room { MAX_RESPONSE } else { SMALL_RESPONSE }
    }

    /// Waits for a place for a response of at most `bytes`. Cancel safe.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<Reserved, Closed> {
        let permit = self.queue.clone().reserve_owned().await.map_err(|_| Closed)?;
        self.reserve_for(permit, bytes).await
    }

    /// A place for a response of at most `bytes`; `None` if there is none at once.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Result<Option<Reserved>, Closed> {
        let permit = match self.queue.clone().try_reserve_owned() {
            Ok(permit) => permit,
            Err(TrySendError::Full(_)) => return Ok(None),
            Err(TrySendError::Closed(_)) => return Err(Closed),
        };
        let charge = self.budget.charge(&self.caller, bytes);
        Ok(charge.map(|charge| Reserved { permit, charge, beyond: None }))
    }

    async fn reserve_for(
        &self,
        permit: OwnedPermit<Waiting>,
        bytes: usize,
    ) -> Result<Reserved, Closed> {
        if let Some(charge) = self.budget.charge(&self.caller, bytes) {
            return Ok(Reserved { permit, charge, beyond: None });
        }
        // Free as soon as the one before is written.
        let beyond = self.beyond.clone().acquire_owned().await.map_err(|_| Closed)?;
        if self.queue.is_closed() {
            return Err(Closed);
        }
        let charge = self.budget.charge_beyond(bytes);
        Ok(Reserved { permit, charge, beyond: Some(beyond) })
    }
}

impl Reserved {
    /// The most bytes that the response may have.
    pub(crate) fn bytes(&self) -> usize {
        self.charge.bytes
    }

    pub(crate) fn send(self, body: Bytes) {
        let Self { permit, mut charge, beyond } = self;
        debug_assert!(body.len() <= charge.bytes, "the place is large enough");
        charge.shrink(body.len());
        permit.send(Waiting { body, _charge: charge, _beyond: beyond });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const BODY: usize = MAX_RESPONSE;

    /// Puts in responses until one would have to wait.
    async fn fill(backlog: &Backlog) -> usize {
        let mut stored = 0;
        while let Ok(place) = timeout(Duration::from_millis(1), backlog.reserve(BODY)).await {
            place.unwrap().send(Bytes::from(vec![0; BODY]));
            stored += 1;
        }
        stored
    }

    fn caller(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_do_not_read_store_a_bounded_number_of_bytes() {
        const CALLS: usize = 1_024;
        let budget = ResponseBudget::new();
        let mut calls = Vec::new();
        for number in 0..CALLS {
            // Three certificates, each with many ephemerals.
            let (backlog, waiting) = budget.backlog(&caller(&format!("n{}~{number}", number % 3)));
            fill(&backlog).await;
            calls.push((backlog, waiting));
        }
        let (bytes, limited) = budget.held();
        assert!(bytes <= RESPONSE_MEMORY + CALLS * BODY && limited > 0, "{bytes}");
        assert!(calls.iter().all(|(backlog, _)| backlog.piece() == SMALL_RESPONSE));
        drop(calls);
        assert_eq!(budget.held().0, 0);
        assert!(budget.lock().callers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_alone_leaves_room_for_another() {
        let budget = ResponseBudget::new();
        let mut greedy = Vec::new();
        for _ in 0..300 {
            let (backlog, waiting) = budget.backlog(&caller("greedy"));
            fill(&backlog).await;
            greedy.push((backlog, waiting));
        }
        let (other, _waiting) = budget.backlog(&caller("other"));
        assert_eq!(other.piece(), MAX_RESPONSE);
        assert_eq!(fill(&other).await, RESPONSE_QUEUE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_share_makes_progress_as_it_is_read() {
        let budget = ResponseBudget::new();
        let mut unread = Vec::new();
        for _ in 0..600 {
            let (backlog, waiting) = budget.backlog(&caller("me"));
            fill(&backlog).await;
            unread.push((backlog, waiting));
        }
        let (backlog, mut waiting) = budget.backlog(&caller("me"));
        for _ in 0..50 {
            assert_eq!(fill(&backlog).await, 1);
            assert!(backlog.try_reserve(BODY).unwrap().is_none());
            assert_eq!(waiting.recv().await.unwrap().body.len(), BODY);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_response_does_not_need_is_returned() {
        let budget = ResponseBudget::new();
        let (backlog, mut waiting) = budget.backlog(&caller("me"));
        backlog.try_reserve(BODY).unwrap().unwrap().send(Bytes::from_static(b"short"));
        assert_eq!(budget.held().0, 5);
        drop(backlog.reserve(BODY).await.unwrap());
        assert_eq!(budget.held().0, 5);
        drop(waiting.recv().await);
        assert_eq!(budget.held().0, 0);
        waiting.close();
        assert!(backlog.reserve(BODY).await.is_err() && backlog.try_reserve(BODY).is_err());
    }
}
