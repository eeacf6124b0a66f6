//! Records whose credential expires: they are dropped with it, and with them the routes by way of
//! their origins.
//!
//! The router has no wall clock, so it asks the [`Notary`](crate::router::Notary) how long each credential
//! remains valid, and asks again when that time is over. A clock that is set forward meanwhile is
//! noticed within [`ASK_EVERY`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::router::Router;
use crate::router::event::Event;
use crate::router::proof::signature::{Distrust, Proof};

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

impl Router {
    /// Sees to it that the record that is held of another node is dropped when its credential
    /// expires.
    pub(in crate::router) fn watch_expiry(&mut self, origin: &NodeId, now: Instant) {
        if let Some(remaining) = self.remaining(origin) {
            self.expiries.watch(origin.clone(), remaining, now);
        }
    }

    /// How long the credential of a record that is held remains valid; `None` if it does not
    /// expire.
    fn remaining(&self, origin: &NodeId) -> Option<Duration> {
        let notary = self.config.notary.as_ref()?;
        let record = self.database.get(origin)?;
        let proof = Proof::decode(record.advertisement().proof())?;
        notary.remaining(self.credentials.get(origin, proof.credential)?)
    }

    /// Drops the records whose credentials have expired.
    pub(in crate::router) fn drop_expired(&mut self, now: Instant) {
        let mut dropped = 0;
        while let Some(origin) = self.expiries.poll(now) {
            match self.remaining(&origin) {
                Some(Duration::ZERO) => {}
                Some(remaining) => {
                    self.expiries.watch(origin, remaining, now);
                    continue;
                }
                None => continue,
            }
            let Some(version) = self.database.get(&origin).map(|record| record.version) else { continue };
            self.database.remove(&origin);
            dropped += 1;
            self.event(Event::Untrusted { origin, version, reason: Distrust::Expired });
        }
        if dropped > 0 {
            self.counters.records_expired += dropped;
            self.flood.on_forgotten();
            self.forget_credentials();
            self.quiet.on_change(now);
            // At once: the paths still name what was dropped.
            self.compute_paths(now);
        }
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
