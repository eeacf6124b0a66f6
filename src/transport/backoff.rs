//! When to dial again. Pure: the random draw comes in by argument.

use std::time::Duration;

/// The delays between dial attempts: zero at first, then exponential with full jitter.
///
/// The upper bound of the draw doubles from [`FIRST`](Self::FIRST) up to a cap:
/// [`FRESH_CAP`](Self::FRESH_CAP) as long as the peer was linked less than
/// [`FRESH_FOR`](Self::FRESH_FOR) ago, so that a relay that restarts finds its edges back within
/// seconds, and [`CAP`](Self::CAP) otherwise, so that a peer that is gone costs little. Full jitter
/// keeps a thousand edges from dialling a returning relay in step.
#[derive(Debug, Default, Clone)]
pub(crate) struct Backoff {
    attempts: u32,
}

/// How a link to the peer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkEnd {
    /// The peer's next process refused its packets.
    Restarted,
    /// The peer announced that it leaves.
    PeerLeft,
    /// Another link to the peer took its place.
    Duplicate,
    /// Any other way.
    Lost,
}

impl Backoff {
    /// The upper bound of the first delay that is not zero.
    pub(crate) const FIRST: Duration = Duration::from_millis(250);
    /// The largest delay while the peer was linked a short while ago.
    pub(crate) const FRESH_CAP: Duration = Duration::from_secs(2);
    /// How long after the loss of a link that holds.
    pub(crate) const FRESH_FOR: Duration = Duration::from_secs(300);
    /// The largest delay.
    pub(crate) const CAP: Duration = Duration::from_secs(30);
    /// A link that lasted this long resets the delays.
    pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(60);

    /// The delay before the next attempt. `draw` is uniform over all u64; `fresh` means that the
    /// peer was linked recently.
    pub(crate) fn next(&mut self, fresh: bool, draw: u64) -> Duration {
        let attempts = self.attempts;
        self.attempts = attempts.saturating_add(1);
        if attempts == 0 {
            return Duration::ZERO;
        }
        let cap = if fresh { Self::FRESH_CAP } else { Self::CAP };
        let bound = Self::FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(cap);
        Self::jittered(bound, draw)
    }

    /// A delay below `bound`, uniformly distributed if `draw` is.
    pub(crate) fn jittered(bound: Duration, draw: u64) -> Duration {
        // The top 32 bits are as random as all of them, and keep the product within u128 and the
        // result exact enough.
        Duration::from_nanos(((bound.as_nanos() * u128::from(draw >> 32)) >> 32) as u64)
    }

    /// Discounts the attempt that [`next`](Self::next) was called for, because it did not reach the
    /// peer.
    pub(crate) fn undo(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// Attempts since the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A link ended that had lasted for `up`.
    pub(crate) fn link_ended(&mut self, end: LinkEnd, up: Duration) {
        match end {
            // A new process listens.
            LinkEnd::Restarted => self.reset(),
            // The delays start over, and the first one is not zero.
            LinkEnd::PeerLeft => self.attempts = 1,
            // The peer is linked: the delays before that link count when it is dialled again.
            LinkEnd::Duplicate => {}
            LinkEnd::Lost if up >= Self::STABLE_AFTER => self.reset(),
            LinkEnd::Lost => self.attempts = self.attempts.max(1),
        }
    }

    /// Resets the delays: the network changed, or the operator requested it.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_made_at_once_and_later_ones_within_a_doubling_bound() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..12).map(|_| backoff.next(false, u64::MAX).as_millis()).collect();
        assert_eq!(delays, [0, 249, 499, 999, 1999, 3999, 7999, 15999, 29999, 29999, 29999, 29999]);
        assert_eq!(backoff.next(false, 0), Duration::ZERO, "full jitter reaches down to nothing");
    }

    #[test]
    fn a_peer_lost_lately_is_dialled_every_other_second_at_least() {
        let mut backoff = Backoff::default();
        for _ in 0..40 {
            assert!(backoff.next(true, u64::MAX) <= Backoff::FRESH_CAP);
        }
    }

    #[test]
    fn only_a_stable_link_resets_the_delays() {
        let mut backoff = Backoff::default();
        backoff.next(false, 0);
        backoff.next(false, 0);
        backoff.link_ended(LinkEnd::Lost, Duration::from_secs(59));
        assert_ne!(backoff.next(false, u64::MAX), Duration::ZERO);
        backoff.link_ended(LinkEnd::Lost, Duration::from_secs(60));
        assert_eq!(backoff.next(false, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_duplicate_changes_no_delay_however_long_it_lasted() {
        for attempts in [0, 1, 5] {
            for up in [0, 59, 60, 3_600] {
                let mut backoff = Backoff { attempts };
                backoff.link_ended(LinkEnd::Duplicate, Duration::from_secs(up));
                assert_eq!(backoff.attempts(), attempts);
            }
        }
    }

    #[test]
    fn a_restarted_peer_is_dialled_at_once() {
        let mut backoff = Backoff { attempts: 7 };
        backoff.link_ended(LinkEnd::Restarted, Duration::ZERO);
        assert_eq!(backoff.next(true, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_peer_that_leaves_often_is_dialled_as_soon_as_the_first_time() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.next(true, u64::MAX);
        }
        backoff.link_ended(LinkEnd::PeerLeft, Duration::ZERO);
        assert_eq!(backoff.next(true, u64::MAX).as_millis(), 249);
    }
}
