//! Records whose credential expires: they are dropped with it, and with them the routes by way of
//! their origins.
//!
//! The router has no wall clock, so it asks the [`Notary`](crate::router::Notary) how long each
//! credential remains valid, and asks again when that time is over. A clock that is set forward
//! meanwhile is noticed within [`ASK_EVERY`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeId;

/// The longest time until a credential is looked at again.
const ASK_EVERY: Duration = Duration::from_secs(60 * 60);

/// When the credential of each record is looked at next; at most one entry per record.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    by_origin: BTreeMap<NodeId, Instant>,
    due: BTreeSet<(Instant, NodeId)>,
}

impl Expiries {
    /// The credential of `origin` remains valid for this long.
    pub(crate) fn watch(&mut self, origin: NodeId, remaining: Duration, now: Instant) {
        let at = now + remaining.min(ASK_EVERY);
        if let Some(before) = self.by_origin.insert(origin.clone(), at) {
            self.due.remove(&(before, origin.clone()));
        }
        self.due.insert((at, origin));
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next origin whose credential is to be looked at now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<NodeId> {
        self.next_timeout().filter(|at| *at <= now)?;
        let (_, origin) = self.due.pop_first()?;
        self.by_origin.remove(&origin);
        Some(origin)
    }

    /// Forgets all but these origins.
    pub(crate) fn retain(&mut self, holds: impl Fn(&NodeId) -> bool) {
        self.by_origin.retain(|origin, _| holds(origin));
        self.due.retain(|(_, origin)| holds(origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::id;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn each_origin_is_due_once_at_its_latest_time() {
        let (mut expiries, now) = (Expiries::default(), start());
        expiries.watch(id("a"), MINUTE, now);
        expiries.watch(id("b"), 2 * MINUTE, now);
        expiries.watch(id("a"), 3 * MINUTE, now);
        assert_eq!(expiries.poll(now + MINUTE), None);
        assert_eq!(expiries.poll(now + 9 * MINUTE), Some(id("b")));
        assert_eq!(expiries.poll(now + 9 * MINUTE), Some(id("a")));
        assert_eq!((expiries.poll(now + 9 * MINUTE), expiries.next_timeout()), (None, None));
    }

    #[test]
    fn a_far_expiry_is_looked_at_every_hour() {
        let (mut expiries, now) = (Expiries::default(), start());
        expiries.watch(id("a"), Duration::MAX, now);
        assert_eq!(expiries.next_timeout(), Some(now + ASK_EVERY));
    }

    #[test]
    fn what_is_no_longer_held_is_forgotten() {
        let (mut expiries, now) = (Expiries::default(), start());
        expiries.watch(id("a"), MINUTE, now);
        expiries.watch(id("b"), MINUTE, now);
        expiries.retain(|origin| *origin == id("b"));
        assert_eq!(expiries.poll(now + MINUTE), Some(id("b")));
        assert_eq!(expiries.poll(now + MINUTE), None);
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn start() -> Instant {
        Instant::now()
    }
}
