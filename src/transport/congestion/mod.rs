//! Congestion control: which algorithm a connection uses.
//!
//! [`Congestion::Westwood`] is ours. It differs from CUBIC in what a lost packet means:
//!
//! ```text
//!   acknowledgements ─┬─▶ delivery rate: maximum of the last rounds ──┐
//!                     └─▶ queueing delay: round trip beyond the base ─┼─▶ window
//!   losses ──▶ queue is long, or much is lost? ─ yes ─▶ congestion ───┘
//!                                              └ no ──▶ ignored
//! ```

mod queue;
mod rate;
mod steer;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod westwood;

use std::sync::Arc;

use quinn::congestion::{ControllerFactory, CubicConfig};

use self::steer::SteeredConfig;
pub(crate) use self::steer::Steering;
use self::westwood::WestwoodConfig;

/// The congestion control of a connection.
///
/// Each end controls what it sends, so the two ends of a connection may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// Delay-aware and tolerant of random loss: after congestion the window becomes what the path
    /// delivers, as in TCP Westwood+, and a loss while the queue is short is not taken for
    /// congestion. For paths with a radio, such as Wi-Fi, LTE and satellite. On loopback it was up to
    /// 12 % slower than CUBIC.
    Westwood,
    /// CUBIC (RFC 9438) as quinn implements it: every loss is congestion.
    #[default]
    Cubic,
}

impl Congestion {
    pub(crate) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(SteeredConfig(match self {
            Self::Westwood => |now, mtu| Arc::new(WestwoodConfig).build(now, mtu),
            Self::Cubic => |now, mtu| Arc::new(CubicConfig::default()).build(now, mtu),
        }))
    }
}
