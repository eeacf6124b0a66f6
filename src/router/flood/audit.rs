//! The defence against broken memory and our own mistakes: records are compared under a fresh key
//! now and then.
//!
//! Every other comparison trusts what was computed when a record came. Once an hour each end of a
//! link sends a digest that is recomputed from the bytes of all records that it reaches, under
//! a key that cannot be predicted ([`Timers::audit`](crate::router::Timers::audit)). A
//! difference is only a hint, for something may just be changing: the other end answers with one of
//! its own a little later. The second in a row is believed: the node checks each of its records
//! against its id, drops those that are no longer what they were, and compares databases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::id::NodeId;
use crate::router::database::Database;
use crate::router::neighbour::throttle::{Bucket, Jitter};
use crate::router::record::Record;
use crate::router::record::wire::Digest;

/// Differences in a row, of which the last is believed.
const BELIEVED: u8 = 2;

/// Digests of one neighbour that are looked at in one period: each costs as much as all records are
/// long.
const MOST: u32 = 8;

/// When which neighbour gets a digest under a fresh key.
#[derive(Debug)]
pub(crate) struct Audits {
    period: Duration,
    /// How long the answer to a difference waits for what is changing.
    again: Duration,
    sessions: BTreeMap<NodeId, Session>,
    due: BTreeSet<(Instant, NodeId)>,
    jitter: Jitter,
    seed: u64,
    keys: u64,
}

#[derive(Debug)]
struct Session {
    due: Instant,
    differed: u8,
    differed_at: Instant,
    pace: Bucket,
}

/// What a difference asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Step {
    Repeat,
    Believe,
    Ignore,
}

impl Audits {
    pub(crate) fn new(period: Duration, again: Duration, seed: u64) -> Self {
        let (sessions, due) = (BTreeMap::new(), BTreeSet::new());
        Self {
            period,
            again,
            sessions,
            due,
            jitter: Jitter::new(seed.rotate_left(16)),
            seed,
            keys: 0,
        }
    }

    /// The session has synced. Its time comes within the period, and then once in each.
    pub(crate) fn on_synced(&mut self, id: &NodeId, now: Instant) {
        self.on_session_down(id);
        let due = now + self.jitter.up_to(self.period);
        let pace = Bucket::new(MOST, self.period / MOST, now);
        self.sessions.insert(id.clone(), Session { due, differed: 0, differed_at: now, pace });
        self.due.insert((due, id.clone()));
    }

    pub(crate) fn on_session_down(&mut self, id: &NodeId) {
        if let Some(session) = self.sessions.remove(id) {
            self.due.remove(&(session.due, id.clone()));
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A neighbour whose time has come.
    pub(in crate::router) fn poll(&mut self, now: Instant) -> Option<NodeId> {
        let (at, id) = self.due.first().filter(|(at, _)| *at <= now).cloned()?;
        self.schedule(&id, (at + self.period).max(now));
        Some(id)
    }

    /// A key that cannot be derived from earlier ones.
    pub(in crate::router) fn key(&mut self) -> [u8; 16] {
        self.keys += 1;
        let hash = Sha256::new()
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.keys.to_be_bytes());
        first_half(&hash.finalize())
    }

    /// Whether a digest of this neighbour is to be looked at.
    pub(in crate::router) fn admits(&mut self, id: &NodeId, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(id) else { return false };
        let admitted = session.pace.ready_at(now) <= now;
        if admitted {
            session.pace.take(now);
        }
        admitted
    }

    pub(in crate::router) fn on_equal(&mut self, id: &NodeId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.differed = 0;
        }
    }

    pub(in crate::router) fn on_different(&mut self, id: &NodeId, now: Instant) -> Step {
        let Some(session) = self.sessions.get_mut(id) else { return Step::Ignore };
        if now.saturating_duration_since(session.differed_at) > self.period / 2 {
            session.differed = 0;
        }
        session.differed_at = now;
        session.differed = session.differed.saturating_add(1);
        let differed = session.differed;
        if differed <= BELIEVED {
            self.schedule(id, now + self.again);
        }
        match differed {
            BELIEVED => Step::Believe,
            0..BELIEVED => Step::Repeat,
            _ => Step::Ignore,
        }
    }

    fn schedule(&mut self, id: &NodeId, at: Instant) {
        if let Some(session) = self.sessions.get_mut(id) {
            self.due.remove(&(session.due, id.clone()));
            session.due = at;
            self.due.insert((at, id.clone()));
        }
    }
}

/// The sum modulo 2^128 of the first 16 bytes of SHA-256 over the key and the bytes of each
/// reachable record. Tombstones are outside.
pub(in crate::router) fn rekeyed(database: &Database, key: &[u8; 16]) -> Digest {
    let hash = |record: &Record| {
        let hash =
            Sha256::new().chain_update(key).chain_update(record.advertisement().bytes()).finalize();
        u128::from_be_bytes(first_half(&hash))
    };
    let reachable = database.reachable().filter(|record| !record.leaving);
    Digest(reachable.map(hash).fold(0, u128::wrapping_add))
}

fn first_half(hash: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Cost;
    use crate::router::database::graph::tests::id;
    use crate::router::{Config, NeighbourKind, Router, SessionUp};

    #[test]
    fn a_record_that_broke_in_memory_is_found_dropped_and_learned_again() {
        for broken in ["a", "b"] {
            let mut pair = Pair::new();
            pair.run(10);
            let router = &mut pair.routers[0];
            let intact = router.database.get(&id(broken)).unwrap().clone();
            router.database.store(intact.corrupted(), pair.now);
            pair.run(2 * 3600);
            let counters = pair.routers.each_ref().map(Router::counters);
            assert_eq!((counters[0].records_corrupted, counters[1].records_corrupted), (1, 0));
            assert_eq!(counters[0].audit_mismatches, 1);
            assert!(counters[1].audit_mismatches <= 1, "the other end may see it first");
            assert!(pair.routers[0].database().eq(pair.routers[1].database()));
            assert!(pair.routers[0].database().all(Record::is_intact));
            assert_eq!(*pair.routers[0].database.get(&id("b")).unwrap() == intact, broken == "b");
        }
    }

    #[test]
    fn equal_databases_are_told_apart_by_nothing_and_keys_never_return() {
        let mut pair = Pair::new();
        pair.run(100 * 3600 + 10);
        for counters in pair.routers.each_ref().map(Router::counters) {
            assert_eq!(counters.audits_sent, 100);
            assert_eq!((counters.audit_mismatches, counters.digest_mismatches), (0, 0));
        }
        let mut audits = Audits::new(Duration::from_secs(3600), Duration::from_secs(4), 7);
        let keys: BTreeSet<[u8; 16]> = (0..1_000).map(|_| audits.key()).collect();
        assert_eq!(keys.len(), 1_000);
    }

    #[test]
    fn a_neighbour_that_audits_all_the_time_is_not_listened_to() {
        let mut pair = Pair::new();
        pair.run(10);
        for _ in 0..100 {
            pair.routers[0].on_rekeyed(&id("b"), [1; 16], Digest(1), pair.now);
        }
        let counters = pair.routers[0].counters();
        assert_eq!((counters.audit_mismatches, counters.requests_dropped), (1, 92));
    }

    struct Pair {
        routers: [Router; 2],
        now: Instant,
    }

    impl Pair {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
            let now = Instant::now();
            let names = [id("a"), id("b")];
            let mut routers =
                [0, 1].map(|n| Router::new(Config::new(names[n].clone(), 1, 1, n as u64), now));
            for (end, router) in routers.iter_mut().enumerate() {
                let (neighbour, cost) = (names[1 - end].clone(), Cost::DEFAULT);
                let up = SessionUp { neighbour, instance: 1, cost, kind: NeighbourKind::Full };
                router.handle_session_up(up, now).unwrap();
            }
            Self { routers, now }
        }

        /// Lets seconds pass.
        fn run(&mut self, seconds: u64) {
            let end = self.now + Duration::from_secs(seconds);
            loop {
                self.carry();
                let deadline = self.routers.iter().filter_map(Router::poll_timeout).min();
                let Some(deadline) = deadline.filter(|deadline| deadline.at <= end) else { break };
                self.now = self.now.max(deadline.at);
                self.routers.iter_mut().for_each(|router| router.handle_timeout(self.now));
            }
            self.now = end;
        }

        fn carry(&mut self) {
            for from in [0, 1, 0, 1] {
                while let Some(transmit) = self.routers[from].poll_transmit() {
                    let id = self.routers[from].id().clone();
                    self.routers[1 - from].handle_message(&id, transmit.message, self.now).unwrap();
                }
                let to = self.routers[1 - from].id().clone();
                self.routers[from].handle_writable(&to, self.now);
                assert!(self.routers[from].poll_transmit().is_none());
                while self.routers[from].poll_event().is_some() {}
            }
        }
    }
}
