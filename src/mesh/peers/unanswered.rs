//! Whether the packets of a connection arrive at both ends: what routing cannot see.
//!
//! A relay that keeps its links and forwards nothing looks healthy to its neighbours. Only the ends
//! of a connection notice. Each end sees whether packets of the other arrive, and not whether its
//! own do, so it says so when none does:
//!
//! ```text
//!   sent, and nothing arrives ──▶ complain to the peer, repeatedly, ──▶ still nothing: this end's packets
//!                                 by all first hops                     may be lost, too: take another way
//!                                        │
//!                                        ▼
//!   the peer gets complaints through another neighbour than before: its packets go that way, too
//!   the peer gets complaints, although it has answered the first one: its packets are lost, it takes another way
//! ```
//!
//! Copies of the complaint through the other first hops (equal cost or loop-free alternates) cost a
//! packet each and change no route. The path that delivers one is the path that both ends follow:
//! the peer because the complaint came that way, this end because the answer does. Where packets
//! came through another neighbour than this end's went to all along, this proves nothing.
//!
//! A client that repeats its handshake although the server is done with it complains as well: its
//! congestion window may be full, so that it can say nothing else.
//!
//! The first complaint on a young connection is conclusive if the peer's packets come through
//! another neighbour than this end's go to: the client's handshake got no answer by the usual path
//! and took another one, which works in both directions since handshakes are answered the way they
//! came.
//!
//! The counts of QUIC's frames would not do. An end that only acknowledges expects no answer, and
//! packets repeat ACK frames that are old, so neither the lack of ACK frames nor their arrival says
//! anything about packets sent since.

use std::time::{Duration, Instant};

use quinn::ConnectionStats;

use crate::id::NodeAddr;

/// How far the round trip that an end waits for may exceed the shortest one: the jitter of a radio
/// link in both directions. Longer ones come of packets that were lost and sent again.
const MAX_JITTER: Duration = Duration::from_millis(700);
/// The same for packets of the handshake that are repeated: those that were lost at first add more
/// to its round trips.
const YOUNG_JITTER: Duration = Duration::from_millis(300);
/// How long nothing arrives before this end complains, at least and in round trips.
const DOUBT_AT_LEAST: Duration = Duration::from_millis(150);
const DOUBT_ROUND_TRIPS: u32 = 2;
/// Samples before that in which packets were sent: the first one, and a probe of QUIC's.
const SENDS: u32 = 2;
/// The time between two complaints is a round trip, and at least this.
const COMPLAIN_EVERY: Duration = Duration::from_millis(100);
/// How much longer than a round trip the answer to a complaint may take: QUIC delays an
/// acknowledgement by up to 25 ms, and both ends sample.
const ANSWER_SLACK: Duration = Duration::from_millis(50);
/// How long this end complains before it takes another way, at least and in round trips. The peer
/// has the time for it first.
const SILENT_AT_LEAST: Duration = Duration::from_millis(400);
const SILENT_ROUND_TRIPS: u32 = 3;
/// The same while the connection is young: its handshake may have taken a shorter path.
const YOUNG_ROUND_TRIPS: u32 = 5;
/// Without a complaint for this long, at least and in round trips, the next one is about another
/// silence: a lost packet now and then must not add up.
const FORGET_AT_LEAST: Duration = Duration::from_millis(500);
const FORGET_ROUND_TRIPS: u32 = 4;
/// Pokes after a silence, and the time between two of them, at least and in parts of a round trip:
/// quinn has backed off, so that its next probe may be seconds away, and one poke may be lost.
const POKES: u32 = 5;
/// Pokes that answer a complaint.
const POKES_TO_COMPLAINT: u32 = 2;
const POKE_EVERY: Duration = Duration::from_millis(40);
const POKES_PER_ROUND_TRIP: u32 = 2;
/// How long a neighbour that the peer complained about is not followed.
const FAULTY_FOR: Duration = Duration::from_secs(10);
/// How long both directions of a connection count as taking the same first hop here since they last
/// did.
const SYMMETRIC_FOR: Duration = Duration::from_secs(60);
/// Samples with packets that have to show it: copies take other ways than packets usually do.
const SYMMETRIC_SAMPLES: u32 = 4;

/// What the peer said since the last sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// Its part of a handshake that this end is done with.
    Handshake,
    /// That nothing arrives there.
    Complaint,
    /// That nothing arrives there by the path that this end's packets take, and the peer's own take
    /// another one that works.
    Conclusive,
}

/// What a sample of a connection shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answers {
    /// Nothing new.
    Unchanged,
    /// Nothing arrives: complain to the peer.
    Complain,
    /// The complaint has been sent: copies of it go through the other first hops.
    TryOthers,
    /// Packets arrive again after a silence, or take another way: poke the peer.
    Poke,
    /// The peer's packets come through this neighbour since those through the usual one stopped:
    /// follow them.
    Follow(NodeAddr),
    /// This end's packets are lost, as far as it can tell: take another way. Repeated while that
    /// lasts.
    Silent,
    /// Packets arrive, and the peer has stopped complaining.
    Resumed,
}

/// The neighbours that packets of a connection pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Hops {
    /// The one that the last packet of the peer came through.
    pub(super) heard: Option<NodeAddr>,
    /// The one that this end's packets go to.
    pub(super) used: Option<NodeAddr>,
}

impl Hops {
    /// The neighbour that the peer's packets come through, if this end's go to another one.
    fn elsewhere(self) -> Option<NodeAddr> {
        self.heard.filter(|heard| self.used.is_some_and(|used| used != *heard))
    }
}

/// What a connection has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Frames sent that ask for an acknowledgement, path MTU probes left out: losing those is how
    /// the path MTU is found.
    sent: u64,
    /// Frames received, padding left out. Duplicates have none: a copy of a packet that arrived
    /// before, which goes to every address a peer may have, does not count as an answer.
    received: u64,
}

/// Judges a connection by samples of its statistics.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    counts: Counts,
    /// When something was sent first since a packet arrived, and in how many samples.
    since: Option<Instant>,
    sends: u32,
    /// The first complaint, and the last.
    complained: Option<(Instant, Instant)>,
    /// The peer's first complaint about a silence, and the last.
    peer_complained: Option<(Instant, Instant)>,
    /// Whether the peer has ever complained. Complaints that are on their way while this end
    /// changes its first hop say nothing about the new one.
    complained_before: bool,
    /// Whether the last verdict was [`Answers::Silent`].
    silent: bool,
    /// Whether copies of the last complaint are still to be sent.
    copies_due: bool,
    /// When both directions last took the same first hop, if they did before the silence.
    symmetric: Option<Instant>,
    /// Samples in a row in which they did.
    symmetric_samples: u32,
    /// Whether the handshake was recent.
    young: bool,
    /// The neighbour that the peer complained about last, and when. Its packets still come through
    /// it if only one direction is lost, and must not be followed.
    faulty: Option<(NodeAddr, Instant)>,
    /// The average round trip while the connection is young: packets of the handshake that arrive
    /// within it do not count as complaints.
    handshake_rtt: Duration,
    /// Pokes left, and when the last one was sent.
    pokes: u32,
    poked: Option<Instant>,
}

impl Unanswered {
    /// Takes a sample, and what the peer said since the last one.
    pub(super) fn sample(
        &mut self,
        stats: &ConnectionStats,
        said: Said,
        hops: Hops,
        now: Instant,
    ) -> Answers {
        let path = &stats.path;
        let rtt = self.longest_round_trip(path.min_rtt, path.rtt);
        self.handshake_rtt =
            if self.young { path.rtt.min(path.min_rtt + YOUNG_JITTER) } else { Duration::ZERO };
        self.take(Counts::of(stats), said, hops, rtt, now)
    }

    /// The longest round trip to wait for. As far beyond the average as that is beyond the shortest
    /// one, which is right where jitter is uniform.
    fn longest_round_trip(&self, shortest: Duration, smoothed: Duration) -> Duration {
        // The first round trips include the handshake's packets that were lost.
        if self.young {
            return shortest;
        }
        let jitter = smoothed.saturating_sub(shortest) * 2;
        shortest + jitter.min(MAX_JITTER)
    }

    /// Whether the connection's handshake was recent.
    pub(super) fn set_young(&mut self, young: bool) {
        self.young = young;
    }

    /// Whether an answer is overdue, so that samples should be taken more often.
    pub(super) fn is_doubted(&self) -> bool {
        self.complained.is_some() || self.pokes > 0
    }

    fn take(
        &mut self,
        counts: Counts,
        said: Said,
        hops: Hops,
        rtt: Duration,
        now: Instant,
    ) -> Answers {
        let complained = self.complained.is_some();
        let verdict = self.judge(counts, said, hops, rtt, now);
        let recovers = complained && self.complained.is_none();
        if recovers || matches!(verdict, Answers::Silent | Answers::Follow(_)) {
            (self.pokes, self.poked) = (POKES, None);
        }
        if verdict == Answers::Unchanged && said == Said::Complaint {
            // Its answer may be lost by chance, and the peer complains again.
            (self.pokes, self.poked) = (self.pokes.max(POKES_TO_COMPLAINT), None);
        }
        if verdict != Answers::Unchanged || self.pokes == 0 {
            return verdict;
        }
        let pause = POKE_EVERY.max(rtt / POKES_PER_ROUND_TRIP);
        if self.poked.is_some_and(|at| now.saturating_duration_since(at) < pause) {
            return verdict;
        }
        (self.pokes, self.poked) = (self.pokes - 1, Some(now));
        Answers::Poke
    }

    fn judge(
        &mut self,
        counts: Counts,
        said: Said,
        hops: Hops,
        rtt: Duration,
        now: Instant,
    ) -> Answers {
        let before = std::mem::replace(&mut self.counts, counts);
        let received = counts.received > before.received;
        let complained = self.complained.is_some();
        let follow = hops
            .elsewhere()
            .filter(|through| self.was_symmetric(now) && !self.is_faulty(*through, now));
        if received {
            (self.since, self.sends, self.complained) = (None, 0, None);
            self.copies_due = false;
            if !complained && said == Said::Nothing && hops.heard.is_some() {
                let same = hops.heard == hops.used;
                self.symmetric_samples =
                    if same { self.symmetric_samples.saturating_add(1) } else { 0 };
                self.symmetric = same.then_some(now);
            }
        } else if counts.sent > before.sent {
            self.since.get_or_insert(now);
            self.sends = self.sends.saturating_add(1);
        }
        let first = !self.complained_before;
        self.complained_before |= matches!(said, Said::Complaint | Said::Conclusive);
        if let Some(through) = follow
            && received
            && (complained || matches!(said, Said::Complaint | Said::Conclusive))
        {
            (self.peer_complained, self.silent) = (None, true);
            (self.symmetric, self.symmetric_samples) = (None, 0);
            return Answers::Follow(through);
        }
        match said {
            Said::Nothing => {}
            Said::Conclusive if first => {
                (self.peer_complained, self.silent) = (None, true);
                return Answers::Silent;
            }
            Said::Handshake | Said::Complaint | Said::Conclusive => {
                let rtt = if said == Said::Handshake { rtt.max(self.handshake_rtt) } else { rtt };
                let verdict = self.on_complaint(rtt, now);
                if verdict == Answers::Silent {
                    self.faulty = hops.used.map(|used| (used, now));
                }
                return verdict;
            }
        }
        if received && std::mem::take(&mut self.silent) {
            return Answers::Resumed;
        }
        self.judge_silence(rtt, now)
    }

    /// The peer's packets arrive, and this end acknowledged its first complaint at once. Another
    /// one a round trip later means that it did not hear that.
    fn on_complaint(&mut self, rtt: Duration, now: Instant) -> Answers {
        let forgotten = FORGET_AT_LEAST.max(rtt * FORGET_ROUND_TRIPS);
        let lasts = |at: Instant| now.saturating_duration_since(at);
        let before = self.peer_complained.filter(|(_, last)| lasts(*last) < forgotten);
        let first = before.map_or(now, |(first, _)| first);
        if lasts(first) < COMPLAIN_EVERY.max(rtt + rtt / 4) + ANSWER_SLACK {
            self.peer_complained = Some((first, now));
            return Answers::Unchanged;
        }
        self.peer_complained = None;
        self.silent = true;
        Answers::Silent
    }

    fn is_faulty(&self, hop: NodeAddr, now: Instant) -> bool {
        let recent = |at| now.saturating_duration_since(at) < FAULTY_FOR;
        self.faulty.is_some_and(|(faulty, at)| faulty == hop && recent(at))
    }

    fn was_symmetric(&self, now: Instant) -> bool {
        let recent = |at| now.saturating_duration_since(at) < SYMMETRIC_FOR;
        self.symmetric_samples >= SYMMETRIC_SAMPLES && self.symmetric.is_some_and(recent)
    }

    fn judge_silence(&mut self, rtt: Duration, now: Instant) -> Answers {
        let Some(since) = self.since else { return Answers::Unchanged };
        if std::mem::take(&mut self.copies_due) {
            return Answers::TryOthers;
        }
        let lasts = |from: Instant| now.saturating_duration_since(from);
        let round_trips = if self.young { YOUNG_ROUND_TRIPS } else { SILENT_ROUND_TRIPS };
        match self.complained {
            None if self.sends >= SENDS
                && lasts(since) >= DOUBT_AT_LEAST.max(rtt * DOUBT_ROUND_TRIPS) =>
            {
                (self.complained, self.copies_due) = (Some((now, now)), true);
                Answers::Complain
            }
            None => Answers::Unchanged,
            Some((first, _)) if lasts(first) >= SILENT_AT_LEAST.max(rtt * round_trips) => {
                // The next complaints go the other way, and have as long.
                self.complained = None;
                self.silent = true;
                Answers::Silent
            }
            Some((first, last)) if lasts(last) >= COMPLAIN_EVERY.max(rtt) => {
                (self.complained, self.copies_due) = (Some((first, now)), true);
                Answers::Complain
            }
            Some(_) => Answers::Unchanged,
        }
    }
}

impl Counts {
    fn of(stats: &ConnectionStats) -> Self {
        let tx = &stats.frame_tx;
        let eliciting = [
            tx.crypto,
            tx.data_blocked,
            tx.datagram,
            tx.immediate_ack,
            tx.max_data,
            tx.max_stream_data,
            tx.max_streams_bidi,
            tx.max_streams_uni,
            tx.ping,
            tx.reset_stream,
            tx.stop_sending,
            tx.stream,
        ];
        let rx = &stats.frame_rx;
        let received = [
            rx.acks,
            rx.crypto,
            rx.data_blocked,
            rx.datagram,
            rx.handshake_done.into(),
            rx.immediate_ack,
            rx.max_data,
            rx.max_stream_data,
            rx.max_streams_bidi,
            rx.max_streams_uni,
            rx.new_connection_id,
            rx.path_challenge,
            rx.path_response,
            rx.ping,
            rx.reset_stream,
            rx.stop_sending,
            rx.stream,
            rx.stream_data_blocked,
        ];
        // A path MTU probe has a PING and an IMMEDIATE_ACK.
        let probes = 2 * stats.path.sent_plpmtud_probes;
        Self {
            sent: eliciting.iter().sum::<u64>().saturating_sub(probes),
            received: received.iter().sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);
    const PACE: Duration = Duration::from_millis(100);

    /// Plays samples of (sent, received, complained), one each [`PACE`]; returns what they told,
    /// and when.
    fn play(
        rtt: Duration,
        samples: impl IntoIterator<Item = (u64, u64, bool)>,
    ) -> Vec<(usize, Answers)> {
        let (mut unanswered, start) = (Unanswered::default(), crate::mesh::clock::now());
        let told = (0..).zip(samples).map(|(nth, (sent, received, complained))| {
            let at = start + PACE * u32::try_from(nth).unwrap();
            let said = if complained { Said::Complaint } else { Said::Nothing };
            (nth, unanswered.take(Counts { sent, received }, said, Hops::default(), rtt, at))
        });
        told.filter(|(_, answers)| !matches!(answers, Answers::Unchanged | Answers::Poke)).collect()
    }

    #[test]
    fn an_end_that_hears_nothing_complains_then_takes_another_way() {
        let told = play(RTT, (1..=14).map(|sent| (sent, 0, false)));
        let complains =
            told.iter().filter(|(_, answers)| *answers == Answers::Complain).map(|(at, _)| *at);
        assert_eq!(complains.collect::<Vec<_>>(), [2, 4, 7, 9, 12]);
        let silent =
            told.iter().filter(|(_, answers)| *answers == Answers::Silent).map(|(at, _)| *at);
        assert_eq!(silent.collect::<Vec<_>>(), [6, 11]);
    }

    #[test]
    fn jitter_is_waited_for_within_bounds() {
        let mut unanswered = Unanswered::default();
        assert_eq!(unanswered.longest_round_trip(RTT, RTT), RTT);
        assert_eq!(unanswered.longest_round_trip(RTT, RTT * 31), RTT * 61);
        assert_eq!(unanswered.longest_round_trip(RTT, RTT * 999), RTT + MAX_JITTER);
        unanswered.set_young(true);
        assert_eq!(unanswered.longest_round_trip(RTT, RTT * 31), RTT);
    }

    #[test]
    fn a_complaint_is_copied_once_at_the_next_sample() {
        let told = play(RTT, (1..=5).map(|sent| (sent, 0, false)));
        assert_eq!(told[..2], [(2, Answers::Complain), (3, Answers::TryOthers)]);
    }

    /// The verdict on a packet that comes after a silence through `heard`, while this end's go to
    /// neighbour 1; before, the peer's came through `before`.
    fn after_silence(before: u8, heard: u8) -> Answers {
        let hops =
            |heard: u8| Hops { heard: Some(NodeAddr([heard; 8])), used: Some(NodeAddr([1; 8])) };
        let (mut unanswered, start) = (Unanswered::default(), crate::mesh::clock::now());
        let mut take = |nth: u32, sent, received, heard| {
            let counts = Counts { sent, received };
            unanswered.take(counts, Said::Nothing, hops(heard), RTT, start + PACE * nth)
        };
        for nth in 0..SYMMETRIC_SAMPLES {
            take(nth, 1 + u64::from(nth), 1 + u64::from(nth), before);
        }
        let received = u64::from(SYMMETRIC_SAMPLES);
        let silence: Vec<_> =
            (4..8).map(|nth| take(nth, 1 + u64::from(nth), received, before)).collect();
        assert!(silence.contains(&Answers::Complain), "{silence:?}");
        take(8, 9, received + 1, heard)
    }

    #[test]
    fn packets_that_come_another_way_after_a_silence_are_followed() {
        assert_eq!(after_silence(1, 2), Answers::Follow(NodeAddr([2; 8])));
        assert_eq!(after_silence(1, 1), Answers::Poke, "it was a delay");
        assert_eq!(after_silence(2, 2), Answers::Poke, "they always came that way");
    }

    #[test]
    fn one_packet_that_is_lost_is_no_silence() {
        assert_eq!(play(RTT, (0..100).map(|_| (1, 0, false))), []);
        // It is repeated, and the copy is answered.
        assert_eq!(play(RTT, [(1, 0, false), (2, 0, false), (2, 1, false), (2, 1, false)]), []);
    }

    #[test]
    fn an_idle_connection_is_not_silent() {
        assert_eq!(play(RTT, (0..100).map(|_| (0, 0, false))), []);
        assert_eq!(play(RTT, (0..100).map(|n| (n, n, false))), []);
    }

    #[test]
    fn a_peer_that_complains_after_an_answer_does_not_hear_this_end() {
        assert_eq!(play(RTT, [(0, 1, true), (1, 2, false), (1, 3, true)]), [(2, Answers::Silent)]);
        // It heard the answer to the first one, or is far away.
        assert_eq!(play(RTT, [(0, 1, true), (1, 2, false), (1, 3, false)]), []);
        assert_eq!(play(PACE * 3, [(0, 1, true), (1, 2, true), (1, 3, true), (1, 3, false)]), []);
    }

    #[test]
    fn a_complaint_by_another_path_is_conclusive() {
        let (mut unanswered, now) = (Unanswered::default(), crate::mesh::clock::now());
        let counts = Counts { sent: 1, received: 1 };
        assert_eq!(
            unanswered.take(counts, Said::Conclusive, Hops::default(), RTT, now),
            Answers::Silent
        );
        let counts = Counts { sent: 2, received: 2 };
        assert_eq!(
            unanswered.take(counts, Said::Nothing, Hops::default(), RTT, now + PACE),
            Answers::Resumed
        );
        // Another one may have been on its way while the first hop changed.
        let counts = Counts { sent: 3, received: 3 };
        let late = unanswered.take(counts, Said::Conclusive, Hops::default(), RTT, now + 2 * PACE);
        assert_eq!(late, Answers::Poke);
    }

    #[test]
    fn a_complaint_of_long_ago_is_forgotten() {
        let samples = (0..36).map(|n| (n, n, [0, 8, 31, 35].contains(&n)));
        assert_eq!(play(RTT, samples), [(35, Answers::Silent)]);
    }

    #[test]
    fn what_arrives_after_silence_is_reported_once() {
        let silent = (1..=7).map(|sent| (sent, 0, false));
        let told = play(RTT, silent.chain([(8, 1, false), (9, 2, false)]));
        assert_eq!(told.last_chunk(), Some(&[(6, Answers::Silent), (7, Answers::Resumed)]));
    }

    #[test]
    fn a_far_peer_has_the_time_to_answer() {
        let rtt = Duration::from_millis(300);
        let told = play(rtt, (1..=30).map(|sent| (sent, 0, false)));
        assert_eq!(told.first(), Some(&(6, Answers::Complain)));
        assert_eq!(
            told.iter().find(|(_, answers)| *answers == Answers::Silent),
            Some(&(15, Answers::Silent))
        );
    }
}
