//! Two links to one neighbour: which one stays. Pure.
//!
//! Of two links, one is *tested*: a ping goes out over it. If the answer comes in time, it stays
//! and its *rival* goes; else the rival takes its place. Which one is tested depends on why there
//! are two:
//!
//! - **Duplicate**: both ends dialled, or one dialled twice. The preferred link is the one whose
//!   dialler has the smaller id, then the one with the smaller TLS exporter. It is tested, so that
//!   the other is drained only after the winner is known to be alive. The end that leads conducts
//!   the test; there is no hurry, and no stream is cut off by it.
//! - **Redial**: as a duplicate, but the old link has lasted: somebody who had it dials all the
//!   same, since the network has changed under them. The old link is tested, and soon: if it is
//!   alive, its streams go on; if it is dead, its end is not waited for.
//! - **Restart**: the new link's HELLO has another instance. Either the neighbour restarted, and
//!   the old link is dead; or a second live process has the same id. The old link is tested: an
//!   answer proves the second process, and the new link is refused. A dead process cannot answer,
//!   so a restarted node is back within the test's bound.

use std::time::{Duration, Instant};

use super::id::LinkId;

/// Why there are two links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// One process at the other end, two connections.
    Duplicate,
    /// As before, long after the first one came up.
    Redial,
    /// The new link's process is another one than the old link's.
    Restart,
}

/// A test between two links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contest {
    pub(crate) cause: Cause,
    /// The link that stays if it answers.
    pub(crate) tested: LinkId,
    /// The link that stays if it does not.
    pub(crate) rival: LinkId,
    /// The number in the ping.
    pub(crate) nonce: u64,
    /// When the answer is too late.
    pub(crate) deadline: Instant,
}

impl Contest {
    /// When a ping over a link with the round trip `rtt` is overdue: four round trips, within
    /// bounds. A lost packet must have time to be sent again.
    pub(crate) fn deadline(cause: Cause, now: Instant, rtt: Duration) -> Instant {
        let (least, most) = match cause {
            Cause::Restart | Cause::Redial => (Duration::from_millis(500), Duration::from_secs(1)),
            Cause::Duplicate => (Duration::from_secs(2), Duration::from_secs(5)),
        };
        now + (rtt * 4).clamp(least, most)
    }
}

/// What the preference between two links depends on; the same at both ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Preference<'a> {
    pub(crate) dialler: &'a str,
    pub(crate) exporter: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_prefer_the_smaller_diallers_link_then_the_smaller_exporter() {
        let link = |dialler, exporter| Preference { dialler, exporter: [exporter; 32] };
        assert!(link("a", 9) < link("b", 1));
        assert!(link("a", 1) < link("a", 2));
    }

    #[test]
    fn a_test_waits_for_four_round_trips_within_bounds() {
        let now = crate::mesh::clock::now();
        let wait = |cause, ms| Contest::deadline(cause, now, Duration::from_millis(ms)) - now;
        assert_eq!(wait(Cause::Restart, 0), Duration::from_millis(500));
        assert_eq!(wait(Cause::Restart, 200), Duration::from_millis(800));
        assert_eq!(wait(Cause::Restart, 3_000), Duration::from_secs(1));
        assert_eq!(wait(Cause::Redial, 0), Duration::from_millis(500));
        assert_eq!(wait(Cause::Duplicate, 0), Duration::from_secs(2));
    }
}
