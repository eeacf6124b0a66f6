//! How long packets wait on their path.

use std::time::{Duration, Instant};

/// How long the lowest round trip counts as that of the empty path. A route may have changed since.
const BASE_FOR: Duration = Duration::from_secs(10);
/// What the longest queue seen keeps with each round, so that it follows a path that has changed.
const LONGEST_KEPT: f64 = 0.98;
/// Queueing delay that is noise on any path.
const NOISE: Duration = Duration::from_micros(100);
/// Queueing delay that is more than noise on a path without jitter, however long.
const MAX_NOISE: Duration = Duration::from_millis(8);

/// The queueing delay of a path: the round trip beyond that of the empty path.
///
/// Round trips are averaged over a round first, because jitter is not a queue: on a radio link the
/// lowest round trip of a single packet is one that no window attains.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// The lowest average of the current and of the previous period of [`BASE_FOR`] / 2.
    base: [Option<Duration>; 2],
    /// When the current period began.
    period: Instant,
    /// When the path was last seen empty, or the window last gave way for that.
    empty_at: Instant,
    /// Queueing delay now: of single packets, smoothed.
    now: Duration,
    /// The longest of it, which fades.
    longest: Duration,
    /// How far single packets are from it, smoothed: jitter.
    deviation: Duration,
    /// Round trips of the current round: their sum and number.
    round: (Duration, u32),
    /// The average of the last round.
    last: Duration,
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: [None; 2],
            period: now,
            empty_at: now,
            now: Duration::ZERO,
            longest: Duration::ZERO,
            deviation: Duration::ZERO,
            round: (Duration::ZERO, 0),
            last: Duration::ZERO,
        }
    }

    /// The round trip of a packet that was acknowledged just now.
    pub(super) fn on_round_trip(&mut self, round_trip: Duration) {
        self.round.0 += round_trip;
        self.round.1 += 1;
        let queued = round_trip.saturating_sub(self.base().unwrap_or(round_trip));
        self.deviation = (self.deviation * 15 + queued.abs_diff(self.now)) / 16;
        self.now = (self.now * 3 + queued) / 4;
        self.longest = self.longest.max(self.now);
    }

    /// The round trip of the empty path, as far as it has been seen; `None` in the first round.
    pub(super) fn base(&self) -> Option<Duration> {
        self.base.iter().flatten().min().copied()
    }

    /// The round trip of the last round.
    pub(super) fn round_trip(&self) -> Duration {
        self.last
    }

    /// Variation of round trips that is not a queue.
    fn noise(&self) -> Duration {
        (self.base().unwrap_or_default() / 16).clamp(NOISE, MAX_NOISE).max(self.deviation * 3)
    }

    /// Whether packets wait now, so that a loss is likely to be the end of a queue: for longer than
    /// half of the longest time seen.
    pub(super) fn is_long(&self) -> bool {
        self.now > self.noise() && self.now >= self.longest / 2
    }

    /// How long the path has not been seen empty.
    pub(super) fn never_empty_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.empty_at)
    }

    /// The window has given way, so that the empty path should be seen soon.
    pub(super) fn drained(&mut self, now: Instant) {
        self.empty_at = now;
    }

    /// Ends a round; returns its average queueing delay, if anything was acknowledged in it.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Duration> {
        self.longest = self.longest.mul_f64(LONGEST_KEPT);
        let (sum, count) = std::mem::take(&mut self.round);
        let average = sum.checked_div(count)?;
        self.last = average;
        let age = now.saturating_duration_since(self.period);
        if age >= BASE_FOR / 2 {
            // After a pause, even the newer of the two is too old.
            let newer = if age < BASE_FOR { self.base[0] } else { None };
            self.base = [None, newer];
            self.period = now;
        }
        self.base[0] = Some(self.base[0].map_or(average, |base| base.min(average)));
        let queued = average.saturating_sub(self.base().unwrap_or(average));
        if queued <= self.noise() {
            self.empty_at = now;
        }
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn round(queue: &mut Queue, now: Instant, round_trips: &[u32]) -> Duration {
        for round_trip in round_trips {
            queue.on_round_trip(*round_trip * MS);
        }
        queue.next_round(now).unwrap()
    }

    #[test]
    fn what_exceeds_the_lowest_round_trip_is_the_queue() {
        let now = tokio::time::Instant::now().into_std();
        let mut queue = Queue::new(now);
        assert_eq!(round(&mut queue, now, &[40; 20]), Duration::ZERO);
        assert!(!queue.is_long());
        assert_eq!(round(&mut queue, now, &[70; 20]), 30 * MS);
        assert!(queue.is_long());
        assert_eq!(round(&mut queue, now, &[45; 20]), 5 * MS);
        assert!(!queue.is_long(), "it was six times as long");
    }

    #[test]
    fn jitter_is_not_a_queue() {
        let now = tokio::time::Instant::now().into_std();
        let mut queue = Queue::new(now);
        for _ in 0..20 {
            round(&mut queue, now, &[41, 58, 44, 60, 49, 42, 57, 51]);
        }
        assert!(!queue.is_long());
        assert!(queue.base() >= Some(48 * MS), "{:?}", queue.base());
    }

    #[test]
    fn a_longer_route_becomes_the_base_after_a_while() {
        let now = tokio::time::Instant::now().into_std();
        let mut queue = Queue::new(now);
        round(&mut queue, now, &[40; 20]);
        let mut at = now;
        while at < now + BASE_FOR + MS {
            at += 100 * MS;
            round(&mut queue, at, &[90; 20]);
        }
        assert_eq!(queue.base(), Some(90 * MS));
        assert!(!queue.is_long() || queue.now <= queue.noise());
    }

    #[test]
    fn a_round_without_acknowledgements_has_no_delay() {
        let now = tokio::time::Instant::now().into_std();
        assert_eq!(Queue::new(now).next_round(now), None);
    }
}
