//! Links that were pinged after the network changed, until they answer or are overdue. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::mesh::links::id::LinkId;

/// How long an answer may take, in round trips, within the bounds below: a lost packet is
/// retransmitted in that time.
const ANSWER_ROUND_TRIPS: u32 = 4;
const MIN_PATIENCE: Duration = Duration::from_millis(500);
const MAX_PATIENCE: Duration = Duration::from_secs(1);

/// A ping that has not been answered.
#[derive(Clone, Copy, Debug)]
struct Check {
    nonce: u64,
    deadline: Instant,
}

/// The links that were pinged, at most one ping each. Every operation is logarithmic in their
/// number.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pending: BTreeMap<LinkId, Check>,
    deadlines: BTreeSet<(Instant, LinkId)>,
}

impl Checks {
    /// A link with this round-trip time was pinged. Replaces an earlier ping of the same link.
    pub(crate) fn asked(&mut self, link: LinkId, nonce: u64, rtt: Duration, now: Instant) {
        self.ended(link);
        let deadline = now + (rtt * ANSWER_ROUND_TRIPS).clamp(MIN_PATIENCE, MAX_PATIENCE);
        self.pending.insert(link, Check { nonce, deadline });
        self.deadlines.insert((deadline, link));
    }

    /// A link has answered the ping with this nonce.
    pub(crate) fn answered(&mut self, link: LinkId, nonce: u64) {
        if self.pending.get(&link).is_some_and(|check| check.nonce == nonce) {
            self.ended(link);
        }
    }

    /// A link has ended.
    pub(crate) fn ended(&mut self, link: LinkId) {
        if let Some(Check { deadline, .. }) = self.pending.remove(&link) {
            self.deadlines.remove(&(deadline, link));
        }
    }

    /// Removes and returns a link whose answer is overdue.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<LinkId> {
        let (_, link) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.ended(link);
        Some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    fn overdue(checks: &mut Checks, now: Instant) -> Vec<LinkId> {
        std::iter::from_fn(|| checks.pop_overdue(now)).collect()
    }

    #[test]
    fn a_link_that_answers_is_not_dialled_and_one_that_does_not_is_dialled_once() {
        let (mut checks, now) = (Checks::default(), clock::now());
        checks.asked(LinkId(1), 7, Duration::from_millis(10), now);
        checks.asked(LinkId(2), 8, Duration::from_millis(200), now);
        checks.answered(LinkId(1), 8);
        checks.answered(LinkId(3), 7);
        assert_eq!(overdue(&mut checks, now + Duration::from_millis(499)), []);
        assert_eq!(overdue(&mut checks, now + Duration::from_millis(500)), [LinkId(1)]);
        checks.answered(LinkId(2), 8);
        assert_eq!(overdue(&mut checks, now + Duration::from_secs(9)), []);
    }

    #[test]
    fn a_slow_link_has_a_second_to_answer() {
        let (mut checks, now) = (Checks::default(), clock::now());
        checks.asked(LinkId(1), 1, Duration::from_secs(30), now);
        assert_eq!(overdue(&mut checks, now + MAX_PATIENCE), [LinkId(1)]);
    }

    #[test]
    fn a_second_ping_of_a_link_replaces_the_first() {
        let (mut checks, now) = (Checks::default(), clock::now());
        let later = now + Duration::from_millis(300);
        checks.asked(LinkId(1), 1, Duration::ZERO, now);
        checks.asked(LinkId(1), 2, Duration::ZERO, later);
        checks.answered(LinkId(1), 1);
        assert_eq!(overdue(&mut checks, now + MIN_PATIENCE), []);
        assert_eq!(overdue(&mut checks, later + MIN_PATIENCE), [LinkId(1)]);
    }

    #[test]
    fn nothing_is_left_of_a_link_that_has_ended_or_answered() {
        let (mut checks, now) = (Checks::default(), clock::now());
        checks.asked(LinkId(1), 1, Duration::ZERO, now);
        checks.asked(LinkId(2), 2, Duration::ZERO, now);
        checks.ended(LinkId(1));
        checks.answered(LinkId(2), 2);
        assert!(checks.pending.is_empty() && checks.deadlines.is_empty());
    }

    #[test]
    fn the_overdue_links_come_in_the_order_of_their_deadlines() {
        let (mut checks, now) = (Checks::default(), clock::now());
        for (link, rtt_ms) in [(1, 240), (2, 10), (3, 180)] {
            checks.asked(LinkId(link), link, Duration::from_millis(rtt_ms), now);
        }
        assert_eq!(overdue(&mut checks, now + MAX_PATIENCE), [LinkId(2), LinkId(3), LinkId(1)]);
    }
}
