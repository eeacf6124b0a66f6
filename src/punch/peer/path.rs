//! Validated paths to a peer, and their liveness.
//!
//! ```text
//!            no answer in time            no answer for 3 s, to 3 probes at least
//!   good ──────────────────────▶ in doubt ──────────────────────────────────────▶ dead
//!    ▲        an answer              │
//!    └───────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::punch::config::Timers;
use crate::punch::gather::candidate::{Candidate, CandidateKind};
use crate::punch::wire::probe::CandidatePair;
use crate::punch::wire::secret::PathCookie;

/// A direct path to a peer: packets may go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The peer's address.
    pub to: SocketAddr,
    /// The local address to send from, where it is known.
    pub from: Option<IpAddr>,
    /// The fresh local port to send from, see [`Event::OpenPorts`](crate::punch::Event::OpenPorts);
    /// `None` if it is the node's own socket.
    pub local_port: Option<u16>,
    /// The cookie that the peer requires in packets.
    pub cookie: PathCookie,
    /// The smoothed round trip.
    pub rtt: Duration,
    /// How the address is known.
    pub kind: CandidateKind,
}

/// Probes that follow at once when a path is found: the peer may not have heard this node yet.
const EAGER: [Duration; 3] =
    [Duration::from_millis(33), Duration::from_millis(67), Duration::from_millis(133)];
/// Probes whose answers are awaited at a time.
const MAX_PENDING: usize = 16;
/// The fewest probes without an answer that a dead path has seen.
const DEAD_PROBES: u32 = 3;
/// Minimum time before an answer counts as missed.
const MIN_PATIENCE: Duration = Duration::from_millis(50);
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// Minimum time for an answer after a report that the address is unreachable.
const REPORT_PATIENCE: Duration = Duration::from_millis(200);
/// Time after an answer in which such reports are ignored.
const REPORT_HEEDED_AFTER: Duration = Duration::from_millis(250);

/// A valid path and the results of its probes.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) candidate: Candidate,
    pub(crate) local_port: Option<u16>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) rtt: RoundTrip,
    /// Round, counter and time of probes whose answers are awaited.
    pending: VecDeque<(u64, u32, Instant)>,
    /// How many probes of [`EAGER`] have gone.
    eager: usize,
    last_probe: Option<Instant>,
    pub(crate) last_answer: Instant,
    /// Since when probes have gone unanswered, and how many.
    unanswered: Option<(Instant, u32)>,
    /// Since when an answer is missed.
    pub(crate) doubted: Option<Instant>,
    /// Deadline for an answer after a report that the address is unreachable.
    pub(crate) answer_by: Option<Instant>,
    pub(crate) next: Instant,
}

/// How closely a path is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// It is in use, and packets flow.
    Close,
    /// It is in use without packets, or a spare one.
    Loose,
}

impl Watch {
    pub(crate) fn new(
        candidate: Candidate,
        local_port: Option<u16>,
        from: Option<IpAddr>,
        rtt: Duration,
        now: Instant,
    ) -> Self {
        Self {
            candidate,
            local_port,
            from,
            rtt: RoundTrip::new(rtt),
            pending: VecDeque::new(),
            eager: 0,
            last_probe: None,
            last_answer: now,
            unanswered: None,
            doubted: None,
            answer_by: None,
            next: now + EAGER[0],
        }
    }

    pub(crate) fn pair(&self) -> CandidatePair {
        CandidatePair { remote: self.candidate.addr, local_port: self.local_port }
    }

    /// Records that a probe is sent.
    pub(crate) fn sent(
        &mut self,
        round: u64,
        counter: u32,
        now: Instant,
        attention: Attention,
        timers: &Timers,
    ) {
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((round, counter, now));
        let (_, probes) = self.unanswered.get_or_insert((now, 0));
        *probes += 1;
        self.last_probe = Some(now);
        self.eager += 1;
        self.next = now + self.wait(attention, timers);
    }

    /// The answer to one of the probes.
    pub(crate) fn answered(
        &mut self,
        round: u64,
        counter: u32,
        to: Option<IpAddr>,
        now: Instant,
        attention: Attention,
        timers: &Timers,
    ) -> bool {
        let of = |pending: &(u64, u32, Instant)| (pending.0, pending.1) == (round, counter);
        let Some(at) = self.pending.iter().position(of) else { return false };
        let (_, _, sent) = self.pending[at];
        self.pending.drain(..=at);
        self.rtt.sample(now.saturating_duration_since(sent));
        self.from = to.or(self.from);
        self.last_answer = now;
        self.answer_by = None;
        self.unanswered = self.pending.front().map(|(_, _, at)| (*at, self.pending.len() as u32));
        if self.doubted.take().is_some() {
            self.next = now + self.wait(attention, timers);
        }
        true
    }

    /// Packets start to flow over the path: probes it if the last probe was long ago.
    pub(crate) fn attend(&mut self, timers: &Timers) {
        if let Some(last) = self.last_probe {
            self.next = self.next.min(last + timers.check);
        }
    }

    /// Evidence against the path: probes it at once, and gives it the timeout of a dead path from
    /// now on.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.pending.clear();
        self.unanswered = Some((now, 0));
        self.doubted = Some(now);
        self.next = now;
    }

    /// The network reports the address as unreachable, which can be forged: probes at once unless
    /// an answer has just arrived. A lost probe is repeated before the answer is due.
    pub(crate) fn reported(&mut self, now: Instant) {
        if self.answer_by.is_none() && now >= self.last_answer + REPORT_HEEDED_AFTER {
            self.answer_by = Some(now + (self.rtt.smoothed() * 4).max(REPORT_PATIENCE));
            self.ask(now);
        }
    }

    /// Asks at once, without doubt.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// When an answer will be missed.
    pub(crate) fn missed_at(&self) -> Option<Instant> {
        let (since, _) = self.unanswered.filter(|_| self.doubted.is_none())?;
        Some(since + self.rtt.patience())
    }

    /// An answer is missed.
    pub(crate) fn miss(&mut self, now: Instant) {
        self.doubted = Some(now);
        self.next = now;
    }

    /// When the path will be dead.
    pub(crate) fn dead_at(&self, timers: &Timers) -> Option<Instant> {
        let (since, probes) = self.unanswered?;
        (probes >= DEAD_PROBES).then_some(since + timers.dead)
    }

    /// Whether the path has answered a probe sent after `time`.
    pub(crate) fn is_good_since(&self, time: Instant) -> bool {
        self.doubted.is_none() && self.last_answer >= time
    }

    fn wait(&self, attention: Attention, timers: &Timers) -> Duration {
        match (self.doubted, EAGER.get(self.eager), attention) {
            (Some(_), ..) => timers.doubt,
            (None, Some(wait), _) => *wait,
            (None, None, Attention::Close) => timers.check,
            (None, None, Attention::Loose) => timers.keep,
        }
    }
}

/// A round trip, smoothed as in RFC 6298.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    fn new(sample: Duration) -> Self {
        Self { smoothed: sample, variation: sample / 2 }
    }

    fn sample(&mut self, sample: Duration) {
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
        self.smoothed = (self.smoothed * 7 + sample) / 8;
    }

    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// How long to wait for an answer before it is missed.
    fn patience(&self) -> Duration {
        (self.smoothed + self.variation * 4).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }
}
