//! Links whose neighbour the network reports as unreachable: a ping decides. Pure.
//!
//! A host answers a packet to a port without a socket with ICMP "port unreachable", so a neighbour whose process was
//! killed is known to be gone after a few round trips instead of the idle timeout. ICMP is not authenticated, however
//! (RFC 8085 §5.2): it may be forged, or come from a middlebox in a bad moment. A report therefore never ends a link.
//! It prompts a ping over the link, and only a ping that stays unanswered ends it.
//!
//! ```text
//!   report ──ping──▶ waiting ──┬── pong ─────▶ trusted for a while: reports are ignored
//!                              └── deadline ─▶ the link is closed, and its peer is dialled
//! ```
//!
//! A forger can thus cost a link one ping now and then. After each answer further reports are ignored for a time that
//! doubles, so that pings which are lost by chance do not add up to lost links either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::link::LinkId;
use crate::transport::unreachable::Reason;

/// How long an answer may take, in round trips: QUIC repeats a lost ping after two or three of them.
const ANSWER_ROUND_TRIPS: u32 = 4;
/// The least time for an answer. QUIC's first repetition comes 25 ms later than the round trip suggests (RFC 9002
/// §6.2.1), and the neighbour may be busy.
const ANSWER_AT_LEAST: Duration = Duration::from_millis(120);
/// The least time for an answer when it is not the neighbour's host that reports: routes come back within a second.
const ROUTE_AT_LEAST: Duration = Duration::from_secs(1);
/// How long reports are ignored after a first answer.
const TRUST_FIRST: Duration = Duration::from_millis(250);
/// How long they are ignored at most.
const TRUST_AT_MOST: Duration = Duration::from_secs(30);
/// After this long without a report, a link starts with [`TRUST_FIRST`] again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Links that were reported as unreachable; at most one entry for each link in each of the two states.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    waiting: BTreeMap<LinkId, Waiting>,
    deadlines: BTreeSet<(Instant, LinkId)>,
    trusted: BTreeMap<LinkId, Trusted>,
}

/// A report about a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) link: LinkId,
    pub(super) why: Reason,
    /// The link's round trip.
    pub(super) rtt: Duration,
}

/// A ping that is not answered yet.
#[derive(Debug)]
struct Waiting {
    nonce: u64,
    deadline: Instant,
}

/// A link that has answered.
#[derive(Debug)]
struct Trusted {
    /// How many reports in a row turned out to be wrong.
    disproved: u32,
    since: Instant,
    until: Instant,
}

impl Doubts {
    /// The network reports a link's neighbour as unreachable. Whether a ping with `nonce` is to go out over the link.
    pub(super) fn reported(&mut self, report: Report, nonce: u64, now: Instant) -> bool {
        let Report { link, why, rtt } = report;
        let least = if why == Reason::Port { ANSWER_AT_LEAST } else { ROUTE_AT_LEAST };
        let deadline = now + (rtt * ANSWER_ROUND_TRIPS).max(least);
        if let Some(waiting) = self.waiting.get_mut(&link) {
            // The host itself has more to say about its port than a router about the way there.
            if deadline < waiting.deadline {
                self.deadlines.remove(&(waiting.deadline, link));
                self.deadlines.insert((deadline, link));
                waiting.deadline = deadline;
            }
            return false;
        }
        if self.trusted.get(&link).is_some_and(|trusted| now < trusted.until) {
            return false;
        }
        self.waiting.insert(link, Waiting { nonce, deadline });
        self.deadlines.insert((deadline, link));
        true
    }

    /// A ping was answered.
    pub(super) fn answered(&mut self, link: LinkId, nonce: u64, now: Instant) {
        if self.waiting.get(&link).is_none_or(|waiting| waiting.nonce != nonce) {
            return;
        }
        self.forget_ping(link);
        let before = self.trusted.get(&link).filter(|trusted| now < trusted.since + FORGIVEN_AFTER);
        let disproved = before.map_or(0, |trusted| trusted.disproved);
        let trust = TRUST_FIRST.saturating_mul(1 << disproved.min(16)).min(TRUST_AT_MOST);
        let trusted = Trusted { disproved: disproved.saturating_add(1), since: now, until: now + trust };
        self.trusted.insert(link, trusted);
    }

    /// A link has ended.
    pub(super) fn ended(&mut self, link: LinkId) {
        self.forget_ping(link);
        self.trusted.remove(&link);
    }

    /// Takes out the links whose answer is overdue.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<LinkId> {
        let late = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        let overdue: Vec<_> = late.map(|(_, link)| *link).collect();
        overdue.iter().for_each(|link| self.forget_ping(*link));
        overdue
    }

    /// When [`overdue`](Self::overdue) has something next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn forget_ping(&mut self, link: LinkId) {
        if let Some(Waiting { deadline, .. }) = self.waiting.remove(&link) {
            self.deadlines.remove(&(deadline, link));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    const LINK: LinkId = LinkId(1);

    fn report(why: Reason, rtt_ms: u64) -> Report {
        Report { link: LINK, why, rtt: Duration::from_millis(rtt_ms) }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_link_that_does_not_answer_in_time_is_overdue_once() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        assert_eq!(doubts.next_timeout(), Some(now + ms(120)));
        assert_eq!(doubts.overdue(now + ms(119)), []);
        assert_eq!(doubts.overdue(now + ms(120)), [LINK]);
        assert_eq!(doubts.overdue(now + ms(999)), []);
        assert_eq!(doubts.next_timeout(), None);
    }

    #[test]
    fn a_link_that_answers_is_not_overdue() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        doubts.answered(LINK, 8, now + ms(1));
        assert_eq!(doubts.next_timeout(), Some(now + ms(120)), "the answer to another ping is none");
        doubts.answered(LINK, 7, now + ms(1));
        assert_eq!(doubts.overdue(now + ms(999)), []);
    }

    #[test]
    fn a_far_neighbour_has_four_round_trips_to_answer() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 600), 7, now));
        assert_eq!(doubts.next_timeout(), Some(now + ms(2_400)));
    }

    #[test]
    fn a_report_about_the_way_waits_longer_until_the_host_reports() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Host, 1), 7, now));
        assert_eq!(doubts.next_timeout(), Some(now + ms(1_000)));
        assert!(!doubts.reported(report(Reason::Network, 1), 8, now + ms(1)));
        assert_eq!(doubts.next_timeout(), Some(now + ms(1_000)));
        assert!(!doubts.reported(report(Reason::Port, 1), 9, now + ms(2)));
        assert_eq!(doubts.next_timeout(), Some(now + ms(122)));
        assert_eq!(doubts.overdue(now + ms(122)), [LINK]);
    }

    #[test]
    fn many_false_reports_cost_few_pings() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        let mut pings = 0;
        for millis in 0..60_000 {
            let now = start + ms(millis);
            if doubts.reported(report(Reason::Port, 1), millis, now) {
                pings += 1;
                doubts.answered(LINK, millis, now);
            }
        }
        // At 0, 0.25, 0.75, 1.75, ... seconds, and every thirty seconds from then on.
        assert_eq!(pings, 8);
    }

    #[test]
    fn a_false_report_is_forgiven_after_a_minute() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        let ask = |doubts: &mut Doubts, at: Duration| {
            let asked = doubts.reported(report(Reason::Port, 1), 7, start + at);
            doubts.answered(LINK, 7, start + at);
            asked
        };
        assert!(ask(&mut doubts, ms(0)) && ask(&mut doubts, ms(250)));
        assert!(!ask(&mut doubts, ms(500)), "ignored for half a second");
        assert!(ask(&mut doubts, ms(60_250)));
        assert!(ask(&mut doubts, ms(60_500)), "a quarter of a second again");
    }

    #[test]
    fn nothing_is_left_of_a_link_that_has_ended() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        doubts.answered(LINK, 7, now);
        assert!(doubts.reported(report(Reason::Port, 1), 8, now + ms(250)));
        doubts.ended(LINK);
        assert_eq!(doubts.next_timeout(), None);
        assert!(doubts.reported(report(Reason::Port, 1), 9, now + ms(251)));
    }
}
