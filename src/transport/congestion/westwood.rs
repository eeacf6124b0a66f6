//! The congestion window.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use super::queue::Queue;
use super::rate::DeliveryRate;

/// Packets of the initial window: 32, as in Chromium's QUIC, where RFC 9002, section 7.2, recommends
/// 10. It leaves room for a new packet when an outage has left many unacknowledged.
const INITIAL_PACKETS: u64 = 32;
/// Packets of the smallest window.
const MIN_PACKETS: u64 = 4;
/// What congestion leaves of the window at least, as in CUBIC (RFC 9438, section 4.6).
const BETA: f64 = 0.7;
/// What an ECN mark leaves of it at most (RFC 8511): the queue that marks is short.
const MARKED: f64 = 0.85;
/// Queueing delay beyond which the window backs off: every call on the path waits as long.
const MAX_QUEUE: Duration = Duration::from_millis(40);
/// The window grows by a packet a round once packets wait for this part of the empty path's round
/// trip, and faster before.
const SHORT_QUEUE: u32 = 16;
const SHORT_QUEUES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));
/// The part of the window by which it grows while the path has no queue.
const PROBE: u64 = 8;
/// Packets by which it grows in a round with a queue: fair to CUBIC, which has the same [`BETA`] (RFC
/// 9438, section 4.3).
const ADDED: f64 = 0.53;
/// While others fill the queue, the window grows by [`ADDED`] for each such part of a round: with
/// rounds as long as their queue, it would otherwise not keep up with them.
const CONTENDED_ROUND: Duration = Duration::from_millis(50);
/// Rounds after congestion in which the window approaches its size at that time by half of the
/// distance.
const CEILING_ROUNDS: u32 = 48;
/// What repeated congestion leaves of the product of rate and round trip: the measured rates of
/// several flows may add up to more than the path has.
const REPEATED: f64 = 0.9;
/// Rounds after congestion within which it counts as repeated.
const REPEATED_ROUNDS: u32 = 8;
/// Loss beyond this share is congestion, whatever the queue: a policer, or a queue too short to be
/// seen. Smoothed over rounds.
const MAX_LOSS: f64 = 0.1;
/// The weight of the newest round in the loss.
const NEWEST_ROUND: f64 = 0.25;
/// Rounds without a rise of the rate by a quarter that end slow start.
const FULL_ROUNDS: u32 = 3;
/// Time without a view of the empty path after which the window gives way, so that the path's own
/// round trip is seen again.
const DRAIN_AFTER: Duration = Duration::from_secs(5);
/// What a drain leaves of the product of rate and round trip.
const DRAIN: f64 = 0.85;
/// The part of a queue above which a cut has not relieved it: this end had a small share in it.
const RELIEF: f64 = 0.9;
/// Cuts in a row without relief that show that others fill the queue.
const CUTS_IN_VAIN: u32 = 2;
/// Rounds during which a queue of others is accepted.
const CONTENDED_ROUNDS: u32 = 32;
/// Rounds of slow growth after [`MAX_LOSS`] was exceeded without a queue.
const WARY_ROUNDS: u32 = 32;

#[derive(Debug)]
pub(super) struct WestwoodConfig;

impl ControllerFactory for WestwoodConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Westwood::new(now, current_mtu.into()))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Westwood {
    mtu: u64,
    window: u64,
    phase: Phase,
    rate: DeliveryRate,
    queue: Queue,
    round: Round,
    /// When the newest packet of the current batch of acknowledgements was sent.
    newest: Option<Instant>,
    /// Bytes of the batch, and those of them by which slow start grows if the window is used.
    batch: u64,
    grown: u64,
    /// Losses of packets sent before this are part of a congestion that was answered.
    recovery: Option<Instant>,
    /// Smoothed share of bytes lost.
    loss: f64,
    /// Rounds left in which a queue longer than [`MAX_QUEUE`] is accepted, because others fill it.
    contended: u32,
    /// Whether the round began with a cut. Most of what is acknowledged in it was sent before, so it
    /// does not show what the cut has done.
    settling: bool,
    /// The queueing delay for which the window was cut last, until the effect is known.
    relieved: Option<Duration>,
    /// Such cuts in a row that had no effect.
    in_vain: u32,
    /// Rounds left of slow growth.
    wary: u32,
    /// The window at the last congestion, and the rounds since.
    ceiling: u64,
    since: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    /// The window doubles each round until the path is full.
    SlowStart {
        /// The rate when it last rose by a quarter, in bytes a second.
        rate: f64,
        /// Rounds since.
        full: u32,
    },
    Avoidance,
}

/// A round trip: it ends with the acknowledgement of a packet sent after it began.
#[derive(Clone, Copy, Debug)]
struct Round {
    start: Instant,
    acked: u64,
    lost: u64,
    /// Whether the window, and not the application, has limited what was sent.
    limited: bool,
}

impl Round {
    fn new(start: Instant) -> Self {
        Self { start, acked: 0, lost: 0, limited: false }
    }
}

impl Westwood {
    fn new(now: Instant, mtu: u64) -> Self {
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu,
            phase: Phase::SlowStart { rate: 0.0, full: 0 },
            rate: DeliveryRate::new(now),
            queue: Queue::new(now),
            round: Round::new(now),
            newest: None,
            batch: 0,
            grown: 0,
            recovery: None,
            loss: 0.0,
            contended: 0,
            settling: false,
            relieved: None,
            in_vain: 0,
            wary: 0,
            ceiling: u64::MAX,
            since: u32::MAX,
        }
    }

    fn least(&self) -> u64 {
        MIN_PACKETS * self.mtu
    }

    /// What fills the path without a queue.
    fn product(&self) -> u64 {
        self.queue.base().map_or(0, |base| self.rate.product(base))
    }

    /// Answers congestion: what the path delivers, and no less than CUBIC would leave.
    fn back_off(&mut self, now: Instant) {
        let kept = (self.window as f64 * BETA) as u64;
        let product = self.queue.base().map_or(0, |base| self.rate.recent_product(base));
        let repeated = self.since < REPEATED_ROUNDS;
        let product = if repeated { (product as f64 * REPEATED) as u64 } else { product };
        self.ceiling = self.window;
        self.since = 0;
        self.window = product.max(kept).min(self.window).max(self.least());
        self.recovery = Some(now);
        self.settle(now);
    }

    /// Begins a round of avoidance with a smaller window.
    fn settle(&mut self, now: Instant) {
        self.phase = Phase::Avoidance;
        self.settling = true;
        self.round = Round::new(now);
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let Some(queued) = self.queue.next_round(now) else { return };
        let sent = round.acked + round.lost;
        if sent > 0 {
            self.loss += NEWEST_ROUND * (round.lost as f64 / sent as f64 - self.loss);
        }
        if !round.limited {
            return;
        }
        self.contended = self.contended.saturating_sub(1);
        self.wary = self.wary.saturating_sub(1);
        self.since = self.since.saturating_add(1);
        match self.phase {
            Phase::SlowStart { rate, full } => self.end_of_slow_start(now, rate, full, queued),
            Phase::Avoidance => self.avoid(now, queued),
        }
        self.rate.next_round();
    }

    fn end_of_slow_start(&mut self, now: Instant, highest: f64, full: u32, queued: Duration) {
        // HyStart++ (RFC 9406, section 4.2): the round trip rises before the queue is full.
        let threshold = (self.queue.base().unwrap_or_default() / 8)
            .clamp(Duration::from_millis(4), Duration::from_millis(16));
        let rate = self.rate.bytes_per_second();
        let (highest, full) = if rate >= 1.25 * highest { (rate, 0) } else { (highest, full + 1) };
        self.phase = Phase::SlowStart { rate: highest, full };
        if queued >= threshold || full >= FULL_ROUNDS {
            self.window = self.product().max(self.window / 2).min(self.window).max(self.least());
            self.settle(now);
        }
    }

    fn avoid(&mut self, now: Instant, queued: Duration) {
        if std::mem::take(&mut self.settling) {
            return;
        }
        let base = self.queue.base().unwrap_or_default();
        // Others keep the queue up if it stays as long, though this end gave way more than once. Once
        // is not enough: the rate of the path may just have fallen.
        if let Some(before) = self.relieved.take() {
            let relieved = queued <= (MAX_QUEUE / 2).max(before.mul_f64(RELIEF));
            self.in_vain = if relieved { 0 } else { self.in_vain + 1 };
            if self.in_vain == CUTS_IN_VAIN {
                self.in_vain = 0;
                self.contended = CONTENDED_ROUNDS;
            }
        }
        if queued > MAX_QUEUE && self.contended == 0 {
            self.relieved = Some(queued);
            return self.back_off(now);
        }
        let short = (base / SHORT_QUEUE).clamp(SHORT_QUEUES.0, SHORT_QUEUES.1);
        let stale = self.queue.never_empty_for(now) >= DRAIN_AFTER && queued > short;
        if stale && self.contended == 0 {
            let drained = (self.product() as f64 * DRAIN).max(self.window as f64 * BETA) as u64;
            self.window = drained.clamp(self.least(), self.window);
            self.queue.drained(now);
            return self.settle(now);
        }
        self.window = self.window.saturating_add(self.growth(queued <= short && self.wary == 0));
    }

    /// Bytes to add for a round, in which the path had a queue or not.
    fn growth(&self, empty: bool) -> u64 {
        let mut added = (self.mtu as f64 * ADDED) as u64;
        if self.contended > 0 {
            let rounds = self.queue.round_trip().div_duration_f64(CONTENDED_ROUND).clamp(1.0, 8.0);
            added = (added as f64 * rounds) as u64;
        }
        if !empty {
            return added;
        }
        if self.since >= CEILING_ROUNDS {
            return self.window / PROBE;
        }
        (self.ceiling.saturating_sub(self.window) / 2).min(self.window / PROBE).max(added)
    }

    /// A packet was acknowledged.
    fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        self.rate.on_ack(now, bytes);
        self.round.acked += bytes;
        self.batch += bytes;
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
        let recovering = self.recovery.is_some_and(|recovery| sent <= recovery);
        if !app_limited && !recovering && matches!(self.phase, Phase::SlowStart { .. }) {
            self.grown += bytes;
        }
    }
}

impl Controller for Westwood {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        // quinn also reports packets that only acknowledge. What fills the path is larger.
        if bytes < self.mtu / 2 {
            return;
        }
        if self.rate.is_idle() {
            // A pause is neither a queue that was never empty nor a part of a round.
            self.queue.drained(now);
            self.round = Round { start: now, limited: false, ..self.round };
        }
        self.rate.on_sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _: &RttEstimator,
    ) {
        self.acknowledge(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        let used = in_flight.saturating_add(std::mem::take(&mut self.batch));
        let grown = std::mem::take(&mut self.grown);
        let Some(sent) = self.newest.take() else { return };
        if used >= self.window / 2 {
            self.window = self.window.saturating_add(grown);
        }
        self.rate.on_end_acks(now, sent, app_limited);
        self.queue.on_round_trip(now.saturating_duration_since(sent));
        // A window of which half was free has limited nothing (see RFC 9002, section 7.8; the half is
        // Linux's). quinn reports a connection as limited by its application only while that has
        // nothing to send.
        self.round.limited |= !app_limited && used >= self.window / 2;
        if sent >= self.round.start {
            self.end_round(now);
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        persistent: bool,
        lost_bytes: u64,
    ) {
        self.round.lost += lost_bytes;
        if persistent {
            // The path is gone, or has changed: start again (RFC 9002, section 7.6.2).
            let (mtu, window) = (self.mtu, self.least());
            *self = Self { window, recovery: Some(now), ..Self::new(now, mtu) };
            return;
        }
        if self.recovery.is_some_and(|recovery| sent <= recovery) {
            return;
        }
        let much = self.loss > MAX_LOSS;
        if lost_bytes == 0 {
            let most = (self.window as f64 * MARKED) as u64;
            self.back_off(now);
            self.window = self.window.min(most).max(self.least());
        } else if self.queue.is_long() {
            self.back_off(now);
        } else if much {
            self.back_off(now);
            self.window = self.window.min(self.product().max(self.least()));
            self.wary = WARY_ROUNDS;
            self.loss = 0.0;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn started() -> (Westwood, Instant) {
        let now = tokio::time::Instant::now().into_std();
        (Westwood::new(now, 1_200), now)
    }

    #[test]
    fn an_end_that_only_acknowledges_remembers_nothing() {
        let (mut westwood, now) = started();
        for at in 0..10_000 {
            westwood.on_sent(now + at * MS, 50, u64::from(at));
        }
        assert_eq!(westwood.rate.remembered(), 0);
    }

    #[test]
    fn persistent_congestion_starts_again_from_the_smallest_window() {
        let (mut westwood, now) = started();
        westwood.on_congestion_event(now + 500 * MS, now, true, 1_200);
        assert_eq!(westwood.window(), MIN_PACKETS * 1_200);
        assert!(matches!(westwood.phase, Phase::SlowStart { .. }));
    }

    #[test]
    fn a_loss_without_a_queue_leaves_the_window() {
        let (mut westwood, now) = started();
        let before = westwood.window();
        westwood.on_congestion_event(now + 50 * MS, now, false, 1_200);
        assert_eq!(westwood.window(), before);
    }

    #[test]
    fn an_ecn_mark_is_congestion_once_in_a_round() {
        let (mut westwood, now) = started();
        let before = westwood.window();
        westwood.on_congestion_event(now + 50 * MS, now, false, 0);
        let after = westwood.window();
        assert_eq!(after, (before as f64 * BETA) as u64);
        westwood.on_congestion_event(now + 60 * MS, now + 10 * MS, false, 0);
        assert_eq!(westwood.window(), after, "that packet was sent before the answer");
    }

    /// Rounds of 40 ms in which this many packets are sent and acknowledged.
    fn rounds(westwood: &mut Westwood, start: Instant, rounds: u32, packets: u64) {
        for round in 0..rounds {
            let (sent, acked) = (start + round * 40 * MS, start + (round + 1) * 40 * MS);
            westwood.on_sent(sent, packets * 1_200, 0);
            for _ in 0..packets {
                westwood.acknowledge(acked, sent, 1_200, false);
            }
            westwood.on_end_acks(acked, 0, false, None);
        }
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let (mut westwood, now) = started();
        rounds(&mut westwood, now, 1_000, 10);
        assert_eq!(westwood.window(), INITIAL_PACKETS * 1_200);
    }

    #[test]
    fn a_window_that_is_used_grows() {
        let (mut westwood, now) = started();
        rounds(&mut westwood, now, 1, 32);
        assert_eq!(westwood.window(), 2 * INITIAL_PACKETS * 1_200);
    }

    #[test]
    fn loss_beyond_a_tenth_is_congestion_without_a_queue() {
        let (mut westwood, now) = started();
        let before = westwood.window();
        for round in 0..10 {
            let sent = now + round * 40 * MS;
            westwood.on_congestion_event(sent + 40 * MS, sent, false, 20_000);
            rounds(&mut westwood, sent, 1, 32);
        }
        assert!(westwood.window() < before, "{}", westwood.window());
    }

    #[test]
    fn a_larger_mtu_raises_the_smallest_window() {
        let (mut westwood, now) = started();
        westwood.on_congestion_event(now + 500 * MS, now, true, 1_200);
        westwood.on_mtu_update(8_952);
        assert_eq!(westwood.window(), MIN_PACKETS * 8_952);
    }
}
