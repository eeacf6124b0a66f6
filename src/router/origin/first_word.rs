//! When a process may speak for the first time.

use std::time::Instant;

use crate::router::Router;
use crate::router::neighbour::NeighbourKind;

impl Router {
    /// When this node's record is to be made, if there is something to say and it may be said.
    ///
    /// A process first speaks when it has synced with one neighbour, so that it has learned its own
    /// old version. It then waits for the other sessions that are in their sync, for at most
    /// [`Timers::first_word`](crate::router::Timers::first_word): otherwise it would speak once for
    /// each, and in a mesh that starts all at once that is most of what is sent.
    pub(in crate::router) fn speaks_at(&self, now: Instant) -> Option<Instant> {
        let due = self.origin.next_timeout(now).filter(|_| self.may_speak())?;
        if self.origin.has_spoken()
            || self.origin.is_leaving()
            || self.full_sessions().all(|ended| ended)
        {
            return Some(due);
        }
        Some(self.first_synced.map_or(due, |at| due.max(at + self.config.timers.first_word)))
    }

    pub(in crate::router) fn may_speak(&self) -> bool {
        if self.twins.has_yielded() {
            return false;
        }
        if self.origin.has_spoken() {
            return true;
        }
        let mut full = self.full_sessions().peekable();
        let alone = full.peek().is_none();
        full.any(|ended| ended) || (alone && self.neighbours.count(NeighbourKind::Stub) > 0)
    }

    /// Of each session with a router, whether the neighbour ended the sync.
    fn full_sessions(&self) -> impl Iterator<Item = bool> {
        self.neighbours.routers().map(|(_, session)| session.got_end)
    }
}
