//! The congestion window.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use super::queue::Queue;
use super::rate::DeliveryRate;

/// Packets of the initial window. RFC 9002, section 7.2, says 10; most servers on the web send 32. It
/// also leaves room for a new packet where an outage has left many unacknowledged.
const INITIAL_PACKETS: u64 = 32;
/// Packets of the smallest window.
const MIN_PACKETS: u64 = 4;
/// What congestion leaves of the window at least, as in CUBIC (RFC 9438, section 4.6).
const BETA: f64 = 0.7;
/// A queueing delay that the window does not grow beyond: calls wait as long.
const MAX_QUEUE: Duration = Duration::from_millis(40);
/// The window grows by a packet a round once packets wait for this part of the empty path's round
/// trip, and faster before.
const SHORT_QUEUE: u32 = 16;
const SHORT_QUEUES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));
/// The part of the window by which it grows while the path has no queue.
const PROBE: u64 = 8;
/// Packets by which it grows in a round otherwise: fair to CUBIC, which has the same [`BETA`] (RFC
/// 9438, section 4.3).
const ADDED: f64 = 0.53;
/// While others fill the queue, growth is that of a round trip of this length, or longer rounds
/// would leave the path to them.
const CONTENDED_ROUND: Duration = Duration::from_millis(50);
/// Rounds for which the window of the last congestion is approached in halves, not in eighths.
const CEILING_ROUNDS: u32 = 48;
/// What repeated congestion leaves of the product of rate and round trip: the rates of several
/// flows, each at its best, add up to more than the path has.
const REPEATED: f64 = 0.9;
/// Rounds within which congestion is repeated.
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
/// Rounds during which a queue of others is accepted.
const CONTENDED_ROUNDS: u32 = 32;
/// Rounds of slow growth after a loss of much without a queue.
const WARY_ROUNDS: u32 = 32;

#[derive(Debug)]
pub(super) struct WestwoodConfig;

impl ControllerFactory for WestwoodConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Westwood::new(now, current_mtu))
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
    /// Whether the last cut was for the length of the queue, whose effect is not known yet.
    relieved: bool,
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

const SLOW_START: Phase = Phase::SlowStart { rate: 0.0, full: 0 };

/// A round trip: it ends with the acknowledgement of a packet sent after it began.
#[derive(Clone, Debug)]
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
    fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu.max(1_200),
            phase: SLOW_START,
            rate: DeliveryRate::new(now),
            queue: Queue::new(now),
            round: Round::new(now),
            newest: None,
            batch: 0,
            grown: 0,
            recovery: None,
            loss: 0.0,
            contended: 0,
            relieved: false,
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
        let product = match self.since {
            ..REPEATED_ROUNDS => (product as f64 * REPEATED) as u64,
            _ => product,
        };
        self.ceiling = self.window;
        self.since = 0;
        self.window = product.max(kept).min(self.window).max(self.least());
        self.phase = Phase::Avoidance;
        self.recovery = Some(now);
        // Growth goes on once this window has been in use for a round.
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
            Phase::SlowStart { rate, full } => self.end_of_slow_start(rate, full, queued),
            Phase::Avoidance => self.avoid(now, queued),
        }
        self.rate.next_round();
    }

    fn end_of_slow_start(&mut self, highest: f64, full: u32, queued: Duration) {
        // HyStart++ (RFC 9406, section 4.2): the round trip rises before the queue is full.
        let threshold = (self.queue.base().unwrap_or_default() / 8)
            .clamp(Duration::from_millis(4), Duration::from_millis(16));
        let rate = self.rate.bytes_per_second();
        let (highest, full) = if rate >= 1.25 * highest { (rate, 0) } else { (highest, full + 1) };
        self.phase = Phase::SlowStart { rate: highest, full };
        if queued >= threshold || full >= FULL_ROUNDS {
            self.window = self.product().max(self.window / 2).min(self.window).max(self.least());
            self.phase = Phase::Avoidance;
        }
    }

    fn avoid(&mut self, now: Instant, queued: Duration) {
        let base = self.queue.base().unwrap_or_default();
        // Others keep the queue up if it is as long as before, though this end gave way.
        if std::mem::take(&mut self.relieved) && queued > MAX_QUEUE / 2 {
            self.contended = CONTENDED_ROUNDS;
        }
        if queued > MAX_QUEUE && self.contended == 0 {
            self.relieved = true;
            return self.back_off(now);
        }
        let short = (base / SHORT_QUEUE).clamp(SHORT_QUEUES.0, SHORT_QUEUES.1);
        let stale = self.queue.never_empty_for(now) >= DRAIN_AFTER && queued > short;
        if stale && self.contended == 0 {
            let drained = (self.product() as f64 * DRAIN).max(self.window as f64 * BETA) as u64;
            self.window = drained.clamp(self.least(), self.window);
            self.queue.drained(now);
            return;
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
        match empty {
            true if self.since < CEILING_ROUNDS => {
                (self.ceiling.saturating_sub(self.window) / 2).min(self.window / PROBE).max(added)
            }
            true => self.window / PROBE,
            false => added,
        }
    }
}

impl Controller for Westwood {
    fn on_sent(&mut self, now: Instant, _: u64, _: u64) {
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
        self.rate.on_ack(now, bytes);
        self.round.acked += bytes;
        self.batch += bytes;
        self.newest = Some(self.newest.map_or(sent, |newest| newest.max(sent)));
        let recovering = self.recovery.is_some_and(|recovery| sent <= recovery);
        if !app_limited && !recovering && matches!(self.phase, Phase::SlowStart { .. }) {
            self.grown += bytes;
        }
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
        // Not the window has limited what was sent if half of it was free (RFC 9002, section 7.8).
        // quinn does not call a connection limited by its application that has just sent something.
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
            // The path is gone or another: what is known of it is of no use.
            self.window = self.least();
            self.phase = SLOW_START;
            self.rate.reset();
            self.queue.reset(now);
            self.recovery = Some(now);
            self.round = Round::new(now);
            return;
        }
        if self.recovery.is_some_and(|recovery| sent <= recovery) {
            return;
        }
        let marked = lost_bytes == 0;
        let much = self.loss > MAX_LOSS;
        if marked || self.queue.is_long() {
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

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = Some((self.rate.bytes_per_second() * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu.max(1_200)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
