//! The rate at which a path delivers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Maximum number of instants of sending that are remembered: a second in bursts of a millisecond.
/// Beyond it, packets count as sent with those before.
const MAX_POINTS: usize = 1_024;
/// Rounds whose highest rate counts. Short, because the window after congestion follows from it: a
/// flow that shares its path with a new one should forget the rate that it had alone.
const ROUNDS: usize = 6;

/// Estimates the delivery rate as BBR does (draft-ietf-ccwg-bbr, "Delivery Rate Samples"): what was
/// acknowledged between the sending of a packet and its acknowledgement, by the time that took.
#[derive(Clone, Debug)]
pub(super) struct DeliveryRate {
    /// Bytes acknowledged so far.
    delivered: u64,
    /// When the last of them was acknowledged.
    delivered_at: Instant,
    /// When the newest packet was sent that has been acknowledged.
    newest_sent: Instant,
    /// What had been delivered at each instant of sending, oldest first.
    points: VecDeque<Point>,
    /// The highest rate of each of the last rounds, in bytes a second; the current round is first.
    highest: [f64; ROUNDS],
}

#[derive(Clone, Copy, Debug)]
struct Point {
    sent: Instant,
    delivered: u64,
    delivered_at: Instant,
    newest_sent: Instant,
}

impl DeliveryRate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            newest_sent: now,
            points: VecDeque::new(),
            highest: [0.0; ROUNDS],
        }
    }

    /// Whether everything that is remembered was acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.points.is_empty()
    }

    /// Packets were sent. Not to be called for small ones: those that only acknowledge are never
    /// acknowledged themselves, and would be remembered without end.
    pub(super) fn on_sent(&mut self, now: Instant) {
        let Some(last) = self.points.back() else {
            // After a pause, the time since the last acknowledgement says nothing about the path.
            self.delivered_at = now;
            self.newest_sent = now;
            self.push(now);
            return;
        };
        if last.sent < now && self.points.len() < MAX_POINTS {
            self.push(now);
        }
    }

    fn push(&mut self, now: Instant) {
        self.points.push_back(Point {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            newest_sent: self.newest_sent,
        });
    }

    pub(super) fn on_ack(&mut self, now: Instant, bytes: u64) {
        self.delivered += bytes;
        self.delivered_at = now;
    }

    /// The end of a batch of acknowledgements, of which `sent` is the newest packet.
    pub(super) fn on_end_acks(&mut self, now: Instant, sent: Instant, app_limited: bool) {
        let mut point = None;
        while let Some(first) = self.points.front().copied().filter(|point| point.sent <= sent) {
            point = Some(first);
            self.points.pop_front();
        }
        if self.points.is_empty() {
            // A connection at rest holds no memory.
            self.points = VecDeque::new();
        }
        self.newest_sent = self.newest_sent.max(sent);
        let Some(point) = point else { return };
        // The longer of the two intervals: acknowledgements may arrive in bursts.
        let acked = now.saturating_duration_since(point.delivered_at);
        let sending = point.sent.saturating_duration_since(point.newest_sent);
        let interval = acked.max(sending);
        if interval.is_zero() {
            return;
        }
        let rate = (self.delivered - point.delivered) as f64 / interval.as_secs_f64();
        // A rate that the application has limited is only a lower bound.
        if !app_limited || rate > self.bytes_per_second() {
            self.highest[0] = self.highest[0].max(rate);
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.points.len()
    }

    /// A round trip has passed in which the window was used.
    pub(super) fn next_round(&mut self) {
        self.highest.rotate_right(1);
        self.highest[0] = 0.0;
    }

    pub(super) fn bytes_per_second(&self) -> f64 {
        self.highest.iter().copied().fold(0.0, f64::max)
    }

    /// Bytes that are in flight at this rate, in this round trip.
    pub(super) fn product(&self, round_trip: Duration) -> u64 {
        (self.bytes_per_second() * round_trip.as_secs_f64()) as u64
    }

    /// The same at the rate of this round and the one before. If the path is full, these are the
    /// flow's share of it; the highest rates of several flows add up to more than the path has.
    pub(super) fn recent_product(&self, round_trip: Duration) -> u64 {
        (self.highest[0].max(self.highest[1]) * round_trip.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Packets of 1,000 bytes, one a millisecond, each acknowledged 10 ms later.
    fn steady(rate: &mut DeliveryRate, start: Instant, packets: u32, app_limited: bool) {
        for at in 0..packets + 10 {
            let now = start + at * MS;
            if at < packets {
                rate.on_sent(now);
            }
            if at >= 10 {
                rate.on_ack(now, 1_000);
                rate.on_end_acks(now, now - 10 * MS, app_limited);
            }
        }
    }

    #[test]
    fn a_steady_flow_has_the_rate_of_its_acknowledgements() {
        let start = tokio::time::Instant::now().into_std();
        let mut rate = DeliveryRate::new(start);
        steady(&mut rate, start, 100, false);
        let seen = rate.bytes_per_second();
        assert!((0.95e6..1.15e6).contains(&seen), "{seen}");
        assert!((9_500..11_500).contains(&rate.product(10 * MS)));
    }

    #[test]
    fn a_burst_of_acknowledgements_is_no_higher_rate() {
        let start = tokio::time::Instant::now().into_std();
        let mut rate = DeliveryRate::new(start);
        for at in 0..100 {
            rate.on_sent(start + at * MS);
        }
        // All at once, a round trip after the last.
        for at in 0..100 {
            rate.on_ack(start + 110 * MS, 1_000);
            rate.on_end_acks(start + 110 * MS, start + at * MS, false);
        }
        assert!(rate.bytes_per_second() <= 1.02e6, "{}", rate.bytes_per_second());
    }

    #[test]
    fn the_highest_rate_is_forgotten_after_some_rounds() {
        let start = tokio::time::Instant::now().into_std();
        let mut rate = DeliveryRate::new(start);
        steady(&mut rate, start, 100, false);
        for _ in 0..ROUNDS - 1 {
            rate.next_round();
        }
        assert!(rate.bytes_per_second() > 0.0);
        rate.next_round();
        assert_eq!(rate.bytes_per_second(), 0.0);
    }

    #[test]
    fn no_more_instants_are_kept_than_the_bound() {
        let start = tokio::time::Instant::now().into_std();
        let mut rate = DeliveryRate::new(start);
        for at in 0..3 * MAX_POINTS as u32 {
            rate.on_sent(start + at * MS);
        }
        assert_eq!(rate.points.len(), MAX_POINTS);
        rate.on_ack(start + 99_999 * MS, 1_000);
        rate.on_end_acks(start + 99_999 * MS, start + 99_998 * MS, false);
        assert!(rate.points.is_empty());
    }
}
