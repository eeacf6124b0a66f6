//! What a puncher is made of: identity, seed, durations.

use std::time::Duration;

use crate::id::NodeId;

/// The configuration of a [`Puncher`](super::Puncher).
#[derive(Clone)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The seed of probe keys, round ids, cookies and jitter: 32 bytes from the system's
    /// randomness, drawn at each start. Secret: its holder can forge probes. Tests use a fixed seed
    /// for reproducible histories.
    pub seed: [u8; 32],
    /// Durations of everything that waits.
    pub timers: Timers,
}

impl Config {
    /// A configuration with default values for all but identity and seed.
    #[must_use]
    pub fn new(me: NodeId, seed: [u8; 32]) -> Self {
        Self { me, seed, timers: Timers::default() }
    }
}

// The seed is a secret: it does not go into logs.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("me", &self.me)
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

/// Durations of everything that waits. They are each node's own; nodes with different ones work
/// together.
#[derive(Clone, Debug)]
pub struct Timers {
    /// How long before a volley is due its probes are given out, for the caller to send them at
    /// [`Probe::at`]. Default: zero. Timers of runtimes are exact to a millisecond, and where NATs
    /// are near, that is not enough.
    ///
    /// [`Probe::at`]: super::Probe::at
    pub lead: Duration,
    /// Minimum interval between any two probes of the node, answers excluded. Default: 5 ms, which
    /// is 200 per second or some 18 KB/s. With a longer interval, many peers at once take longer to
    /// reach.
    pub pace: Duration,
    /// How long an answer to an offer, or an offer after a request, is awaited; after half of it
    /// the question is repeated once. Default: 5 s: a relayed round trip with losses.
    pub answer: Duration,
    /// How long changes of this node's candidates are collected before they are announced. Default:
    /// 200 ms.
    pub debounce: Duration,
    /// How long packets count as flowing after a call of [`sent`](super::Puncher::sent). Default: 2
    /// s; must be longer than the interval between calls.
    pub flowing: Duration,
    /// How often the path in use is probed while packets flow. Default: 1 s.
    pub check: Duration,
    /// How often a path is probed otherwise, be it in use or a spare one. Default: 5 s. NATs forget
    /// a UDP mapping after 30 s at the earliest, most of them.
    pub keep: Duration,
    /// Interval between probes of a path after an unanswered one. Default: 250 ms.
    pub doubt: Duration,
    /// How long a path may leave probes unanswered before it is dead. Default: 3 s. Shorter: a
    /// burst of loss kills a good path.
    pub dead: Duration,
    /// How long the paths of a pair without packets are kept. Default: 10 min. Afterwards the first
    /// packets are relayed again, until a new round has found a path.
    pub let_go: Duration,
    /// How long to wait after a failed round; doubles with each further failure. Default: 10 s.
    pub retry: Duration,
    /// Maximum of that wait. Default: 5 min.
    pub retry_max: Duration,
    /// One offer or request of a peer is accepted per this time, after a burst of four; a later one
    /// waits, and only the newest is kept. Rounds of this node are limited likewise. Default: 5 s.
    pub round_interval: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            lead: Duration::ZERO,
            pace: Duration::from_millis(5),
            answer: Duration::from_secs(5),
            debounce: Duration::from_millis(200),
            flowing: Duration::from_secs(2),
            check: Duration::from_secs(1),
            keep: Duration::from_secs(5),
            doubt: Duration::from_millis(250),
            dead: Duration::from_secs(3),
            let_go: Duration::from_secs(600),
            retry: Duration::from_secs(10),
            retry_max: Duration::from_secs(300),
            round_interval: Duration::from_secs(5),
        }
    }
}
