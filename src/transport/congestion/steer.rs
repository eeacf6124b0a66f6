//! What the mesh says to the congestion controller of a running connection.
//!
//! quinn offers no way to reach a controller once a connection has it, so each controller is
//! wrapped, and shares a [`Steering`] with the mesh:
//!
//! - A packet that asks whether the peer still hears this end must leave even if the window is full
//!   of packets that a dead relay has lost. QUIC exempts its own probes from the window for the same
//!   reason (RFC 9002, section 7.5).
//! - When the packets take another path, what was learnt about the one before does not apply: the
//!   window starts over (RFC 9000, section 9.4).

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Packets that one grant lets pass beyond the congestion window.
const GRANTED_PACKETS: u64 = 2;

/// The handle to the congestion controller of one connection. Clones of the controller share it.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// Bytes in flight, as far as the controller is notified.
    in_flight: AtomicU64,
    mtu: AtomicU64,
    /// The least window, in bytes, until the next acknowledgement.
    floor: AtomicU64,
    restart: AtomicBool,
}

impl Steering {
    /// The handle of a connection. `None` if its controller is not of this module.
    pub(crate) fn of(connection: &quinn::Connection) -> Option<Arc<Self>> {
        let steered = connection.congestion_state().into_any().downcast::<Steered>().ok()?;
        Some(steered.steering)
    }

    /// Lets [`GRANTED_PACKETS`] pass although the window is full.
    pub(crate) fn grant(&self) {
        let packets = (GRANTED_PACKETS + 1) * self.mtu.load(Ordering::Relaxed);
        self.floor.store(self.in_flight.load(Ordering::Relaxed) + packets, Ordering::Relaxed);
    }

    /// The packets take another path: the controller starts over when it next sends or hears.
    pub(crate) fn restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
    }
}

/// Makes a controller that knows nothing of the path yet, for packets of this length.
pub(super) type Build = fn(Instant, u16) -> Box<dyn Controller>;

/// Wraps the controllers that [`Build`] makes.
#[derive(Debug)]
pub(super) struct SteeredConfig(pub(super) Build);

impl ControllerFactory for SteeredConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let steering = Steering { mtu: AtomicU64::new(mtu.into()), ..Steering::default() };
        Box::new(Steered {
            build: self.0,
            inner: (self.0)(now, mtu),
            steering: Arc::new(steering),
            mtu,
            in_flight: 0,
            restarted: None,
        })
    }
}

/// A controller that the mesh can steer.
struct Steered {
    build: Build,
    inner: Box<dyn Controller>,
    steering: Arc<Steering>,
    mtu: u16,
    in_flight: u64,
    /// When the controller last started over: what was sent before is not counted.
    restarted: Option<Instant>,
}

impl Steered {
    fn set_in_flight(&mut self, bytes: u64) {
        self.in_flight = bytes;
        self.steering.in_flight.store(bytes, Ordering::Relaxed);
    }

    fn restart_if_due(&mut self, now: Instant) {
        if self.steering.restart.load(Ordering::Relaxed) {
            self.steering.restart.store(false, Ordering::Relaxed);
            self.inner = (self.build)(now, self.mtu);
            self.restarted = Some(now);
        }
    }

    /// Whether a packet went by the path before.
    fn is_of_before(&self, sent: Instant) -> bool {
        self.restarted.is_some_and(|restarted| sent < restarted)
    }
}

impl Controller for Steered {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet: u64) {
        self.restart_if_due(now);
        self.set_in_flight(self.in_flight.saturating_add(bytes));
        self.inner.on_sent(now, bytes, last_packet);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        if !self.is_of_before(sent) {
            self.inner.on_ack(now, sent, bytes, app_limited, rtt);
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.restart_if_due(now);
        self.set_in_flight(in_flight);
        self.steering.floor.store(0, Ordering::Relaxed);
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.set_in_flight(self.in_flight.saturating_sub(lost));
        if !self.is_of_before(sent) {
            self.inner.on_congestion_event(now, sent, persistent, lost);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.steering.mtu.store(new_mtu.into(), Ordering::Relaxed);
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().max(self.steering.floor.load(Ordering::Relaxed))
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            build: self.build,
            inner: self.inner.clone_box(),
            steering: Arc::clone(&self.steering),
            mtu: self.mtu,
            in_flight: self.in_flight,
            restarted: self.restarted,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steered").field("mtu", &self.mtu).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quinn::congestion::CubicConfig;

    use super::*;

    const MTU: u64 = 1_200;

    fn steered() -> (Box<Steered>, Arc<Steering>, Instant) {
        let now = tokio::time::Instant::now().into_std();
        let cubic = |now, mtu| Arc::new(CubicConfig::default()).build(now, mtu);
        let built = Arc::new(SteeredConfig(cubic)).build(now, 1_200);
        let steered = built.into_any().downcast::<Steered>().unwrap();
        let steering = Arc::clone(&steered.steering);
        (steered, steering, now)
    }

    #[test]
    fn a_grant_lets_two_packets_pass_a_full_window_once() {
        let (mut steered, steering, now) = steered();
        let window = steered.window();
        steered.on_sent(now, window, 1);
        steering.grant();
        assert_eq!(steered.window(), window + 3 * MTU);
        steered.on_end_acks(now, 0, false, Some(1));
        assert_eq!(steered.window(), window);
    }

    #[test]
    fn a_restarted_window_is_initial_and_ignores_losses_of_before() {
        let (mut steered, steering, now) = steered();
        let later = now + Duration::from_millis(100);
        steered.on_congestion_event(later, now, true, 5 * MTU);
        assert!(steered.window() < steered.initial_window());
        steering.restart();
        steered.on_sent(later, MTU, 2);
        assert_eq!(steered.window(), steered.initial_window());
        steered.on_congestion_event(later, now, false, MTU);
        assert_eq!(steered.window(), steered.initial_window());
    }

    #[test]
    fn clones_are_steered_as_well() {
        let (steered, steering, now) = steered();
        let mut clone = steered.clone_box();
        clone.on_sent(now, 99 * MTU, 1);
        steering.grant();
        assert_eq!(clone.window(), 102 * MTU);
    }
}
