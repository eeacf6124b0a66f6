//! Links whose neighbour the network reports as unreachable: a ping decides. Pure.
//!
//! A host answers a packet to a port without a socket with ICMP "port unreachable", so a neighbour
//! whose process was killed is known to be gone after a few round trips instead of the idle
//! timeout. ICMP is not authenticated, however (RFC 8085 §5.2): it may be forged, or come from a
//! middlebox in a bad moment. A report therefore never ends a link. It prompts a few pings over the
//! link, and the link ends only if nothing is heard from the neighbour meanwhile.
//!
//! ```text
//!   report ──pings──▶ waiting ──┬── pong, or any acknowledgement ─▶ trusted for a while: reports are ignored
//!                               └── deadline ─▶ the link is closed, and its peer is dialled
//! ```
//!
//! A forger can thus cost a link some pings now and then. After each answer further reports are
//! ignored for a time that doubles, so that pings which are lost by chance do not add up to lost
//! links either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::mesh::links::id::LinkId;
use crate::transport::unreachable::Reason;

/// How long an answer may take, in round trips.
const ANSWER_ROUND_TRIPS: u32 = 4;
/// The least time for an answer. QUIC's first repetition comes 25 ms later than the round trip
/// suggests (RFC 9002 §6.2.1), and the neighbour may be busy.
const ANSWER_AT_LEAST: Duration = Duration::from_millis(120);
/// The least time for an answer when it is not the neighbour's host that reports: routes come back
/// within a second.
const ROUTE_AT_LEAST: Duration = Duration::from_secs(1);
/// Pings within the time for an answer, evenly spread: each of them may be lost, or its answer. The
/// last one leaves more than a round trip for the answer.
const PINGS: u32 = 3;
/// Maximum number of links that are pinged or closed in a row. The driver yields to other tasks
/// between two batches.
const MAX_DUES: usize = 64;
/// How long reports are ignored after a first answer.
const TRUST_FIRST: Duration = Duration::from_millis(250);
/// How long they are ignored at most.
const TRUST_AT_MOST: Duration = Duration::from_secs(30);
/// After this long without a report, a link starts with [`TRUST_FIRST`] again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Links that were reported as unreachable; at most one entry for each link in each of the two
/// states.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    waiting: BTreeMap<LinkId, Waiting>,
    /// When each of them is pinged again, or overdue.
    dues: BTreeSet<(Instant, LinkId)>,
    trusted: BTreeMap<LinkId, Trusted>,
}

/// A report about a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) link: LinkId,
    pub(crate) why: Reason,
    /// The link's round trip.
    pub(crate) rtt: Duration,
    /// The acknowledgements that came in by the link so far.
    pub(crate) acks: u64,
}

/// What to do about a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Ping it.
    Ping { link: LinkId, nonce: u64 },
    /// Nothing was heard from the neighbour: close it.
    Silent { link: LinkId },
}

/// A link that has not answered yet.
#[derive(Debug)]
struct Waiting {
    nonce: u64,
    since: Instant,
    patience: Duration,
    /// Pings that went out.
    pings: u32,
    /// The acknowledgements before.
    acks: u64,
    due: Instant,
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
    /// The network reports a link's neighbour as unreachable. Whether the link is doubted from now
    /// on: its first ping, with `nonce`, is due at once.
    pub(crate) fn reported(&mut self, report: Report, nonce: u64, now: Instant) -> bool {
        let Report { link, why, rtt, acks } = report;
        let least = if why == Reason::Port { ANSWER_AT_LEAST } else { ROUTE_AT_LEAST };
        let patience = (rtt * ANSWER_ROUND_TRIPS).max(least);
        if let Some(waiting) = self.waiting.get(&link) {
            // The host itself has more to say about its port than a router about the way there. A
            // report never postpones the verdict, and pings begin again only if there is time.
            if now + patience < waiting.since + waiting.patience {
                let hastened = Waiting { since: now, patience, pings: 0, due: now, ..*waiting };
                self.wait(link, hastened);
            }
            return false;
        }
        if self.trusted.get(&link).is_some_and(|trusted| now < trusted.until) {
            return false;
        }
        self.wait(link, Waiting { nonce, since: now, patience, pings: 0, acks, due: now });
        true
    }

    /// A ping was answered.
    pub(crate) fn answered(&mut self, link: LinkId, nonce: u64, now: Instant) {
        if self.waiting.get(&link).is_some_and(|waiting| waiting.nonce == nonce) {
            self.trust(link, now);
        }
    }

    /// A link has ended.
    pub(crate) fn ended(&mut self, link: LinkId) {
        self.forget_pings(link);
        self.trusted.remove(&link);
    }

    /// What is due, for at most [`MAX_DUES`] links: what is left stays due. `acks` gives the
    /// acknowledgements that came in by a link so far.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        acks: impl Fn(LinkId) -> Option<u64>,
    ) -> Vec<Due> {
        let overdue = self.dues.iter().take_while(|(due, _)| *due <= now);
        let due: Vec<_> = overdue.take(MAX_DUES).map(|(_, link)| *link).collect();
        due.into_iter().filter_map(|link| self.step(link, acks(link), now)).collect()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.dues.first().map(|(due, _)| *due)
    }

    fn step(&mut self, link: LinkId, acks: Option<u64>, now: Instant) -> Option<Due> {
        let waiting = self.waiting.get(&link)?;
        if acks.is_some_and(|acks| acks > waiting.acks) {
            self.trust(link, now);
            return None;
        }
        if now >= waiting.since + waiting.patience {
            self.forget_pings(link);
            return Some(Due::Silent { link });
        }
        let pings = waiting.pings + 1;
        let (nonce, due) =
            (waiting.nonce, waiting.since + waiting.patience / PINGS * pings.min(PINGS));
        // The deadline itself, without what the division leaves.
        let due = if pings >= PINGS { waiting.since + waiting.patience } else { due };
        let again = Waiting { pings, due, ..*waiting };
        self.wait(link, again);
        Some(Due::Ping { link, nonce })
    }

    fn wait(&mut self, link: LinkId, waiting: Waiting) {
        self.forget_pings(link);
        self.dues.insert((waiting.due, link));
        self.waiting.insert(link, waiting);
    }

    fn trust(&mut self, link: LinkId, now: Instant) {
        self.forget_pings(link);
        let before = self.trusted.get(&link).filter(|trusted| now < trusted.since + FORGIVEN_AFTER);
        let disproved = before.map_or(0, |trusted| trusted.disproved);
        let trust = TRUST_FIRST.saturating_mul(1 << disproved.min(16)).min(TRUST_AT_MOST);
        let trusted =
            Trusted { disproved: disproved.saturating_add(1), since: now, until: now + trust };
        self.trusted.insert(link, trusted);
    }

    fn forget_pings(&mut self, link: LinkId) {
        if let Some(Waiting { due, .. }) = self.waiting.remove(&link) {
            self.dues.remove(&(due, link));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    const LINK: LinkId = LinkId(1);

    fn report(why: Reason, rtt_ms: u64) -> Report {
        Report { link: LINK, why, rtt: Duration::from_millis(rtt_ms), acks: 5 }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// What is due up to a time, and when, while nothing is heard.
    fn play(doubts: &mut Doubts, start: Instant, until: Duration) -> Vec<(Duration, Due)> {
        let mut played = Vec::new();
        while let Some(at) = doubts.next_timeout().filter(|at| *at <= start + until) {
            let dues = doubts.handle_timeout(at, |_| Some(5));
            played.extend(dues.into_iter().map(|due| (at - start, due)));
        }
        played
    }

    #[test]
    fn a_link_is_pinged_three_times_before_it_counts_as_silent() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        let ping = Due::Ping { link: LINK, nonce: 7 };
        let silent = Due::Silent { link: LINK };
        let played = play(&mut doubts, now, ms(999));
        assert_eq!(played, [(ms(0), ping), (ms(40), ping), (ms(80), ping), (ms(120), silent)]);
        assert_eq!(doubts.next_timeout(), None);
    }

    #[test]
    fn a_link_that_answers_is_kept() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        doubts.answered(LINK, 8, now + ms(1));
        assert!(doubts.next_timeout().is_some(), "the answer to another ping is none");
        doubts.answered(LINK, 7, now + ms(1));
        assert_eq!(doubts.next_timeout(), None);
    }

    #[test]
    fn an_acknowledgement_is_an_answer() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 1), 7, now));
        assert_eq!(doubts.handle_timeout(now + ms(120), |_| Some(6)), []);
        assert_eq!(doubts.next_timeout(), None);
        assert!(
            !doubts.reported(report(Reason::Port, 1), 8, now + ms(121)),
            "it is trusted for a while"
        );
    }

    #[test]
    fn a_far_neighbour_has_four_round_trips_to_answer() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Port, 600), 7, now));
        assert_eq!(play(&mut doubts, now, ms(9_999)).last().unwrap().0, ms(2_400));
    }

    #[test]
    fn a_report_about_the_way_waits_longer_until_the_host_reports() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Host, 1), 7, now));
        assert!(!doubts.reported(report(Reason::Network, 1), 8, now + ms(1)));
        assert_eq!(play(&mut doubts, now, ms(500)).len(), 2);
        assert!(!doubts.reported(report(Reason::Port, 1), 9, now + ms(500)));
        let last = play(&mut doubts, now, ms(999)).pop();
        assert_eq!(last, Some((ms(620), Due::Silent { link: LINK })));
    }

    #[test]
    fn a_second_report_does_not_postpone_the_verdict() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        assert!(doubts.reported(report(Reason::Host, 1), 7, now));
        assert_eq!(play(&mut doubts, now, ms(950)).len(), 3);
        assert!(!doubts.reported(report(Reason::Port, 1), 8, now + ms(950)));
        assert_eq!(play(&mut doubts, now, ms(9_999)), [(ms(1_000), Due::Silent { link: LINK })]);
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
    fn thousands_of_doubted_links_are_asked_in_batches() {
        let (mut doubts, now) = (Doubts::default(), clock::now());
        for link in 0..4_000 {
            doubts.reported(Report { link: LinkId(link), ..report(Reason::Port, 1) }, link, now);
        }
        let mut batches = 0;
        while doubts.next_timeout() == Some(now) {
            assert!(doubts.handle_timeout(now, |_| Some(5)).len() <= MAX_DUES);
            batches += 1;
        }
        assert_eq!(batches, 4_000_usize.div_ceil(MAX_DUES));
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
