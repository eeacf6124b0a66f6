//! What a link costs by its round trip, damped: a round trip contains queues, and a cost that
//! followed them would send traffic to and fro.
//!
//! ```text
//!   samples ─▶ lowest of each window ─▶ weighted mean ─▶ bucket ─▶ differs long enough, and by enough? ─▶ cost
//! ```

use std::time::{Duration, Instant};

use crate::id::Cost;

/// The costs that a link can have, and the longest round trip, in milliseconds, that each stands
/// for: about the same ratio from each to the next. A round trip beyond the last costs the last.
const BUCKETS: [u16; 20] =
    [1, 2, 3, 5, 8, 13, 20, 32, 50, 80, 130, 200, 320, 500, 800, 1_300, 2_000, 3_200, 5_000, 8_000];

/// The cost of one link by its round trip: about the round trip in milliseconds, rounded up to one
/// of few numbers.
///
/// Of the samples in every [`WINDOW`](Self::WINDOW) the lowest counts, a quarter of it for the
/// mean. The first sample gives the first cost. It changes when the mean stands for another cost
/// for [`HOLD`](Self::HOLD) on end and is a quarter or more away from what the last cost was made
/// of, and at most once every [`PAUSE`](Self::PAUSE).
///
/// It is independent of the router. Feed it often, and pass what it returns to the router:
/// [`Router::set_cost`](crate::router::Router::set_cost). `now` never goes back from one call to
/// the next.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use receptor_quic::router::RttCost;
///
/// let mut now = Instant::now();
/// let mut link = RttCost::new(Duration::from_millis(4), now);
/// assert_eq!(link.cost().get(), 5);
/// let changes = (0..60).filter_map(|_| {
///     now += Duration::from_secs(1);
///     link.on_sample(Duration::from_millis(70), now)
/// });
/// assert!(changes.map(|cost| cost.get()).eq([80]));
/// ```
#[derive(Clone, Debug)]
pub struct RttCost {
    window_ends: Instant,
    lowest: Option<Duration>,
    mean: Duration,
    /// The mean that the cost was made of.
    made_of: Duration,
    differs_since: Option<Instant>,
    changed_at: Option<Instant>,
}

impl RttCost {
    /// How long samples are gathered before the lowest of them counts.
    pub const WINDOW: Duration = Duration::from_secs(2);
    /// How long the mean must stand for another cost.
    pub const HOLD: Duration = Duration::from_secs(10);
    /// The shortest time between two changes.
    pub const PAUSE: Duration = Duration::from_secs(30);
    /// The weight of a window in the mean is one of this many parts.
    const PARTS: u32 = 4;

    /// A link with this round trip.
    #[must_use]
    pub fn new(rtt: Duration, now: Instant) -> Self {
        Self {
            window_ends: now + Self::WINDOW,
            lowest: None,
            mean: rtt,
            made_of: rtt,
            differs_since: None,
            changed_at: None,
        }
    }

    /// The cost as it is now.
    #[must_use]
    pub fn cost(&self) -> Cost {
        bucket(self.made_of)
    }

    /// A round trip was measured. Gives the new cost, if it has changed.
    #[must_use]
    pub fn on_sample(&mut self, rtt: Duration, now: Instant) -> Option<Cost> {
        let lowest = self.lowest.map_or(rtt, |lowest| lowest.min(rtt));
        self.lowest = Some(lowest);
        if now >= self.window_ends {
            self.window_ends = now + Self::WINDOW;
            self.lowest = None;
            self.mean = self.mean / Self::PARTS * (Self::PARTS - 1) + lowest / Self::PARTS;
        }
        if bucket(self.mean) == self.cost() {
            self.differs_since = None;
            return None;
        }
        let since = *self.differs_since.get_or_insert(now);
        let held = now >= since + Self::HOLD;
        let paused = self.changed_at.is_none_or(|at| now >= at + Self::PAUSE);
        let enough = self.mean.abs_diff(self.made_of) >= self.made_of / 4;
        (held && paused && enough).then(|| {
            self.made_of = self.mean;
            self.changed_at = Some(now);
            self.differs_since = None;
            self.cost()
        })
    }
}

fn bucket(rtt: Duration) -> Cost {
    let fits = BUCKETS.iter().find(|&&most| rtt <= Duration::from_millis(most.into()));
    let cost = fits.or(BUCKETS.last()).copied().unwrap_or(1);
    Cost::try_from(u32::from(cost)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_costs_its_milliseconds_rounded_up_to_one_of_few() {
        let costs = [0, 999, 1_000, 1_001, 4_000, 20_000, 20_001, 100_000, 60_000_000];
        let costs = costs.map(|micros| bucket(Duration::from_micros(micros)).get());
        assert_eq!(costs, [1, 1, 1, 2, 5, 20, 32, 130, 8_000]);
    }

    #[test]
    fn a_lasting_change_is_told_after_ten_seconds_and_then_once_in_thirty() {
        // The mean closes in on 100 ms by a quarter every 2 s; from 2 s on it stands for another
        // cost.
        assert_eq!(changes(10.0, |_| 100.0, 120), [(12, 130)]);
        // 40 ms for half a minute, then 400: the mean moves on, and the next change waits for its
        // turn.
        assert_eq!(
            changes(10.0, |s| if s < 30 { 40.0 } else { 400.0 }, 120),
            [(12, 50), (42, 500)]
        );
    }

    #[test]
    fn a_change_back_within_ten_seconds_is_never_told() {
        for period in [4, 8, 12] {
            let told = changes(10.0, |s| if s % period < period / 2 { 10.0 } else { 60.0 }, 600);
            assert!(told.len() <= 1, "{period}: {told:?}");
        }
        assert_eq!(changes(10.0, |s| if (30..36).contains(&s) { 200.0 } else { 10.0 }, 24), []);
    }

    #[test]
    fn a_mean_on_the_edge_of_two_costs_changes_nothing() {
        assert_eq!(changes(19.0, |s| if (s / 20) % 2 == 0 { 19.0 } else { 21.0 }, 3_600), []);
        // Another cost, but less than a quarter away.
        assert_eq!(changes(19.0, |_| 23.0, 600), []);
        assert_eq!(changes(19.0, |_| 24.5, 600).len(), 1);
    }

    #[test]
    fn queues_that_come_and_go_within_a_window_do_not_count() {
        assert_eq!(
            changes_every(Duration::from_millis(100), 10.0, |n| [900.0, 10.0, 400.0][n % 3], 6_000),
            []
        );
    }

    #[test]
    fn good_news_waits_as_long_as_bad() {
        // 150 ms still cost what 200 ms do: the mean leaves that after two windows.
        assert_eq!(changes(200.0, |_| 1.0, 60), [(14, 32), (44, 2)]);
    }

    /// The seconds at which the cost changes, and to what, with one sample a second, in
    /// milliseconds.
    fn changes(first: f64, rtt: impl Fn(usize) -> f64, seconds: usize) -> Vec<(u64, u32)> {
        changes_every(Duration::from_secs(1), first, rtt, seconds)
    }

    fn changes_every(
        every: Duration,
        first: f64,
        rtt: impl Fn(usize) -> f64,
        n: usize,
    ) -> Vec<(u64, u32)> {
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let start = Instant::now();
        let millis = |ms: f64| Duration::from_secs_f64(ms / 1_000.0);
        let mut link = RttCost::new(millis(first), start);
        let sample = |nth: usize| {
            let after = every * (nth as u32 + 1);
            let cost = link.on_sample(millis(rtt(nth)), start + after)?;
            assert_eq!(cost, link.cost());
            Some((after.as_secs(), cost.get()))
        };
        (0..n).filter_map(sample).collect()
    }
}
