//! Limits in time: token buckets, the memory of links that flap, and jitter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A token bucket: `burst` at once, then one per `interval`.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    burst: u32,
    interval: Duration,
    /// When the bucket is full again.
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self { burst: burst.max(1), interval, full_at: now }
    }

    /// When the next token can be taken; not before `now`.
    pub(crate) fn ready_at(&self, now: Instant) -> Instant {
        let missing_allowed = self.interval * (self.burst - 1);
        self.full_at.checked_sub(missing_allowed).map_or(now, |at| at.max(now))
    }

    /// When all tokens are there again: all that a bucket is to be remembered by.
    pub(crate) fn full_at(&self) -> Instant {
        self.full_at
    }

    /// Takes a token. Call it at [`ready_at`](Self::ready_at) or later.
    pub(crate) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// Takes a token even if none is there, as long as the next one is then ready within `wait`.
    /// Returns what this has taken, to be [given back](Self::give_back).
    pub(crate) fn take_within(&mut self, wait: Duration, now: Instant) -> Duration {
        let before = self.full_at.max(now);
        let latest = now + self.interval * (self.burst - 1) + wait;
        self.full_at = (before + self.interval).min(latest).max(before);
        self.full_at - before
    }

    /// Undoes a [`take_within`](Self::take_within).
    pub(crate) fn give_back(&mut self, taken: Duration) {
        self.full_at = self.full_at.checked_sub(taken).unwrap_or(self.full_at);
    }
}

/// Spreads what nodes would do in step, by SplitMix64: the same seed gives the same times.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From nothing to `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        most.mul_f64((z >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// The recent losses of the link to one process of a neighbour. The first return is free; each
/// further loss doubles a hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flaps {
    /// The process that the link was lost with.
    instance: u64,
    losses: VecDeque<Instant>,
}

impl Flaps {
    /// Losses that are remembered: more than it takes to reach any sensible longest hold.
    const MAX: usize = 16;

    /// The link to this process of the neighbour was lost. Losses of an earlier process no longer
    /// count.
    pub(crate) fn on_loss(&mut self, instance: u64, now: Instant) {
        if self.instance != instance {
            self.losses.clear();
            self.instance = instance;
        }
        if self.losses.len() == Self::MAX {
            self.losses.pop_front();
        }
        self.losses.push_back(now);
    }

    /// Whether the losses were of the link to this process.
    pub(crate) fn concern(&self, instance: u64) -> bool {
        self.instance == instance
    }

    /// Forgets losses older than `memory`.
    pub(crate) fn prune(&mut self, memory: Duration, now: Instant) {
        while self.losses.front().is_some_and(|&at| now.saturating_duration_since(at) >= memory) {
            self.losses.pop_front();
        }
    }

    /// How long a link that returns is held back.
    pub(crate) fn hold(&self, first: Duration, max: Duration) -> Duration {
        match self.losses.len() as u32 {
            0 | 1 => Duration::ZERO,
            losses => first.saturating_mul(1 << (losses - 2)).min(max),
        }
    }

    /// When the newest loss is forgotten, and everything with it.
    pub(crate) fn forgotten_at(&self, memory: Duration) -> Option<Instant> {
        self.losses.back().map(|&at| at + memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_its_burst_then_one_per_interval() {
        let start = start();
        let mut bucket = Bucket::new(3, SECOND, start);
        for _ in 0..3 {
            assert_eq!(bucket.ready_at(start), start);
            bucket.take(start);
        }
        assert_eq!(bucket.ready_at(start), start + SECOND);
        bucket.take(start + SECOND);
        assert_eq!(bucket.ready_at(start + SECOND), start + 2 * SECOND);
        assert_eq!(bucket.ready_at(start + 9 * SECOND), start + 9 * SECOND);
    }

    #[test]
    fn a_debt_is_bounded_and_what_was_taken_can_be_given_back() {
        let start = start();
        let mut bucket = Bucket::new(3, SECOND, start);
        let taken: Vec<u64> =
            (0..7).map(|_| bucket.take_within(3 * SECOND, start).as_secs()).collect();
        assert_eq!(taken, [1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(bucket.ready_at(start), start + 3 * SECOND);
        bucket.give_back(SECOND);
        assert_eq!(bucket.ready_at(start), start + 2 * SECOND);
    }

    #[test]
    fn holds_double_with_each_loss_after_the_first_and_are_forgotten() {
        let (start, mut flaps) = (start(), Flaps::default());
        let mut holds = Vec::new();
        for _ in 0..10 {
            flaps.on_loss(1, start);
            holds.push(flaps.hold(SECOND, 64 * SECOND).as_secs());
        }
        assert_eq!(holds, [0, 1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(flaps.forgotten_at(300 * SECOND), Some(start + 300 * SECOND));
        flaps.prune(300 * SECOND, start + 300 * SECOND);
        assert_eq!(flaps.hold(SECOND, 64 * SECOND), Duration::ZERO);
    }

    #[test]
    fn losses_of_an_earlier_process_do_not_count() {
        let (start, mut flaps) = (start(), Flaps::default());
        for instance in [1, 1, 1, 2] {
            flaps.on_loss(instance, start);
        }
        assert_eq!(flaps.hold(SECOND, 64 * SECOND), Duration::ZERO);
        assert!(flaps.concern(2) && !flaps.concern(1));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn start() -> Instant {
        Instant::now()
    }
}
