//! Damping of stubs that come and go: which attached stubs this node's record does not list yet.
//!
//! Only a stub that the record listed and then dropped counts as lost: the mesh learns of no other
//! changes. Two rules:
//! - **One process**: the return of the same process is held back as that of a router's link is,
//!   from the second loss on.
//! - **One base id**: new processes and new suffixes of a base id draw on a token bucket. A token
//!   is spent when a listed stub is lost, and given back when the same process returns. A client
//!   that takes another suffix or restarts for each connection pays for that itself.
//!
//! A hold delays only the entry in this node's record. The stub can send, gets the replies, and is
//! reached by this node and its other stubs all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::id::NodeId;
use crate::router::config::Timers;
use crate::router::database::earlier;
use crate::router::neighbour::throttle::{Bucket, Flaps};

/// Listed stubs of one base id that may be lost for good in a row: a laptop that runs a command a
/// second for a minute.
const BASE_BURST: u32 = 64;
/// The interval after which one more is allowed. Records that change because of stubs alone are at
/// least a second apart, so a client that keeps alternating causes a quarter of them.
const BASE_EVERY: Duration = Duration::from_secs(4);
/// Maximum number of stubs, and of base ids, whose losses are remembered. The one whose last loss
/// is the oldest is forgotten first.
const MAX_REMEMBERED: usize = 4_096;

type Memory<T> = LruCache<NodeId, T, BuildHasherDefault<DefaultHasher>>;

/// Which attached stubs are held back, and the losses that this follows from.
#[derive(Debug)]
pub(crate) struct StubDamping {
    hold: Duration,
    hold_max: Duration,
    memory: Duration,
    /// Stubs whose session ended while the record listed them, with the process of that session,
    /// until the next record.
    leaving: BTreeMap<NodeId, u64>,
    losses: Memory<Losses>,
    bases: Memory<Bucket>,
    held: BTreeMap<NodeId, Instant>,
    due: BTreeSet<(Instant, NodeId)>,
}

#[derive(Debug, Default)]
struct Losses {
    flaps: Flaps,
    /// What the last loss took from the bucket of the base id, until it is given back.
    spent: Duration,
}

impl StubDamping {
    pub(crate) fn new(timers: &Timers) -> Self {
        Self {
            hold: timers.flap_hold,
            hold_max: timers.flap_hold_max,
            memory: timers.flap_memory,
            leaving: BTreeMap::new(),
            losses: LruCache::unbounded_with_hasher(BuildHasherDefault::new()),
            bases: LruCache::unbounded_with_hasher(BuildHasherDefault::new()),
            held: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// A process of the stub has attached itself. Returns until when it is held back, `None` if it
    /// is not.
    pub(crate) fn on_session_up(
        &mut self,
        stub: &NodeId,
        instance: u64,
        now: Instant,
    ) -> Option<Instant> {
        if self.leaving.contains_key(stub) {
            // The record lists it still, and perhaps without a gap.
            return None;
        }
        let base = self.bases.peek_mut(&stub.base());
        let returned = self.losses.peek_mut(stub).filter(|losses| losses.flaps.concern(instance));
        let until = match (returned, base) {
            (Some(losses), base) => {
                losses.flaps.prune(self.memory, now);
                // The stub was not lost for good.
                let spent = std::mem::take(&mut losses.spent);
                base.into_iter().for_each(|bucket| bucket.give_back(spent));
                now + losses.flaps.hold(self.hold, self.hold_max)
            }
            (None, Some(base)) => base.ready_at(now),
            (None, None) => now,
        };
        (until > now).then(|| {
            self.held.insert(stub.clone(), until);
            self.due.insert((until, stub.clone()));
            until
        })
    }

    /// The session with a process of a stub has ended. `listed` if this node's record lists the
    /// stub.
    pub(crate) fn on_session_down(&mut self, stub: &NodeId, instance: u64, listed: bool) {
        if let Some(until) = self.held.remove(stub) {
            self.due.remove(&(until, stub.clone()));
        }
        if listed {
            self.leaving.insert(stub.clone(), instance);
        }
    }

    /// This node's record was replaced. `lists` says whether the new one lists a stub.
    pub(crate) fn on_spoken(&mut self, lists: impl Fn(&NodeId) -> bool, now: Instant) {
        for (stub, instance) in std::mem::take(&mut self.leaving) {
            if !lists(&stub) {
                self.on_lost(&stub, instance, now);
            }
        }
    }

    fn on_lost(&mut self, stub: &NodeId, instance: u64, now: Instant) {
        let full = || Bucket::new(BASE_BURST, BASE_EVERY, now);
        let spent = self.bases.get_or_insert_mut(stub.base(), full).take_within(self.hold_max, now);
        let losses = self.losses.get_or_insert_mut(stub.clone(), Losses::default);
        losses.flaps.on_loss(instance, now);
        losses.spent = spent;
        if self.losses.len() > MAX_REMEMBERED {
            self.losses.pop_lru();
        }
        if self.bases.len() > MAX_REMEMBERED {
            self.bases.pop_lru();
        }
    }

    pub(crate) fn is_held(&self, stub: &NodeId) -> bool {
        self.held.contains_key(stub)
    }

    pub(crate) fn held_until(&self, stub: &NodeId) -> Option<Instant> {
        self.held.get(stub).copied()
    }

    /// The stubs that are held back, and until when; ascending by id.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&NodeId, Instant)> {
        self.held.iter().map(|(stub, until)| (stub, *until))
    }

    pub(crate) fn next_release(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Ends the holds that are over, and returns their stubs.
    pub(crate) fn poll_releases(&mut self, now: Instant) -> Vec<NodeId> {
        let mut released = Vec::new();
        while self.next_release().is_some_and(|at| at <= now)
            && let Some((_, stub)) = self.due.pop_first()
        {
            self.held.remove(&stub);
            released.push(stub);
        }
        released
    }

    /// How many stubs and base ids are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.losses.len() + self.bases.len()
    }

    pub(crate) fn next_forget(&self) -> Option<Instant> {
        let losses =
            self.losses.peek_lru().and_then(|(_, losses)| losses.flaps.forgotten_at(self.memory));
        let bases = self.bases.peek_lru().map(|(_, bucket)| bucket.full_at());
        losses.into_iter().chain(bases).fold(None, earlier)
    }

    /// Forgets losses that have no effect any more.
    pub(crate) fn poll_forget(&mut self, now: Instant) {
        let memory = self.memory;
        let old = |losses: &Losses| losses.flaps.forgotten_at(memory).is_none_or(|at| at <= now);
        while self.losses.peek_lru().is_some_and(|(_, losses)| old(losses)) {
            self.losses.pop_lru();
        }
        while self.bases.peek_lru().is_some_and(|(_, bucket)| bucket.full_at() <= now) {
            self.bases.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_that_is_lost_twice_is_held_back_ever_longer() {
        let (mut damping, now) = damping();
        let mut holds = Vec::new();
        for _ in 0..9 {
            holds.push(up(&mut damping, "s~1", 7, now));
            damping.on_lost(&id("s~1"), 7, now);
        }
        assert_eq!(holds, [0, 0, 1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(up(&mut damping, "other", 7, now), 0, "others are not");
    }

    #[test]
    fn new_processes_and_suffixes_share_the_bucket_of_the_base_id() {
        let (mut damping, now) = damping();
        for nth in 0..u64::from(BASE_BURST) {
            assert_eq!(up(&mut damping, &format!("s~{nth}"), nth, now), 0, "{nth}");
            damping.on_lost(&id(&format!("s~{nth}")), nth, now);
        }
        assert_eq!(up(&mut damping, "s~new", 1, now), 4);
        assert_eq!(up(&mut damping, "s~0", 1_000, now), 4, "a restart");
        assert_eq!(up(&mut damping, "other~new", 1, now), 0);
        // However many are lost, the next one waits for the longest hold at most.
        (0..1_000).for_each(|nth| damping.on_lost(&id("s~x"), nth, now));
        assert_eq!(up(&mut damping, "s~new", 1, now), 64);
        assert_eq!(up(&mut damping, "s~new", 1, now + 64 * SECOND), 0);
    }

    #[test]
    fn stubs_that_all_return_after_one_loss_are_not_held_back() {
        let (mut damping, now) = damping();
        let names: Vec<String> = (0..500).map(|nth| format!("s~{nth}")).collect();
        names.iter().for_each(|name| damping.on_lost(&id(name), 7, now));
        for name in &names {
            assert_eq!(up(&mut damping, name, 7, now + SECOND), 0, "{name}");
        }
        assert_eq!(up(&mut damping, "s~new", 1, now + SECOND), 0, "nor is a new one");
    }

    #[test]
    fn a_token_is_given_back_once_for_each_loss() {
        let (mut damping, now) = damping();
        (0..2).for_each(|_| damping.on_lost(&id("s~flap"), 7, now));
        (0..BASE_BURST - 1).for_each(|nth| damping.on_lost(&id(&format!("s~{nth}")), 7, now));
        (0..9).for_each(|_| _ = up(&mut damping, "s~flap", 7, now));
        // One loss of s~flap and those of the others are spent.
        assert_eq!(up(&mut damping, "s~new", 1, now), 4);
    }

    #[test]
    fn a_gap_that_the_record_does_not_show_is_no_loss() {
        let (mut damping, now) = damping();
        for instance in 0..99 {
            assert_eq!(up(&mut damping, "s", instance, now), 0);
            damping.on_session_down(&id("s"), instance, true);
        }
        assert_eq!(up(&mut damping, "s", 99, now), 0);
        damping.on_spoken(|_| true, now);
        damping.on_session_down(&id("s"), 99, false);
        damping.on_spoken(|_| false, now);
        assert_eq!(damping.remembered(), 0, "nor is the end of a stub that was never listed");
        damping.on_session_down(&id("s"), 99, true);
        damping.on_spoken(|_| false, now);
        assert_eq!(damping.remembered(), 2);
    }

    #[test]
    fn a_hold_ends_in_time_or_with_the_session() {
        let (mut damping, now) = damping();
        (0..2).for_each(|_| damping.on_lost(&id("s"), 7, now));
        assert_eq!(up(&mut damping, "s", 7, now), 1);
        assert!(damping.is_held(&id("s")) && damping.poll_releases(now).is_empty());
        assert_eq!(damping.poll_releases(now + SECOND), [id("s")]);
        assert!(!damping.is_held(&id("s")));
        assert_eq!(up(&mut damping, "s", 7, now), 1);
        damping.on_session_down(&id("s"), 7, false);
        assert_eq!((damping.next_release(), damping.held().count()), (None, 0));
    }

    #[test]
    fn losses_are_bounded_and_forgotten() {
        let (mut damping, now) = damping();
        (0..3 * MAX_REMEMBERED).for_each(|nth| damping.on_lost(&id(&format!("s{nth}")), 7, now));
        assert_eq!(damping.remembered(), 2 * MAX_REMEMBERED);
        let end = now + Timers::default().flap_memory;
        while let Some(at) = damping.next_forget() {
            assert!(at <= end, "{:?}", at - now);
            damping.poll_forget(at);
        }
        assert_eq!(damping.remembered(), 0);
    }

    /// For how many seconds it is held back.
    fn up(damping: &mut StubDamping, stub: &str, instance: u64, now: Instant) -> u64 {
        let until = damping.on_session_up(&id(stub), instance, now);
        until.map_or(0, |until| (until - now).as_secs())
    }

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn damping() -> (StubDamping, Instant) {
        (StubDamping::new(&Timers::default()), Instant::now())
    }
}
