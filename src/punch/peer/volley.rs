//! Volleys: both ends send their first probes at the same moment.
//!
//! A NAT that does not filter its own input (such as plain Linux masquerade) tracks a probe that
//! arrives before the node behind it has sent anything there. It treats that probe as a separate
//! flow and assigns the node's own probe another port, which the peer's NAT rejects. So neither
//! probe may arrive before the other has left. The ends synchronise over the relays, as DCUtR of
//! libp2p does, and retry from fresh local ports, which no NAT tracks, if they missed.
//!
//! ```text
//!   offers                                         answers
//!     │ ── OFFER ──────────────────────────────────▶ │
//!     │ ◀───────────────────────────────── ANSWER ── │   one round trip
//!     │ ── GO 0 ───────────────────────────────────▶ │ fires
//!     │ half a round trip after GO: fires            │
//!     │ no answer: opens fresh ports                 │
//!     │ ── PREPARE 1: their addresses ─────────────▶ │ opens fresh ports
//!     │ ◀────────────────── READY 1: addresses ───── │   another round trip
//!     │ ── GO 1 ───────────────────────────────────▶ │ fires
//!     │ half a round trip after GO: fires            │
//! ```
//!
//! A volley from fresh ports covers all pairs of this end's and the peer's ports, in an order that
//! the ends traverse in opposite directions. If the moments differ by less than the duration of a
//! volley, some pair in the middle is sent by both ends at the same time.

use std::time::{Duration, Instant};

use crate::punch::gather::candidate::Candidate;

/// Fresh ports that one end opens for a volley: 4 at each end make 16 pairs.
const PORTS: usize = 4;
/// Volleys of one round.
const VOLLEYS: u8 = 12;
/// Below this relayed round trip, the NATs may be so near to each other that a volley must be exact
/// to some 10 µs. No clock is: what helps is more pairs, 64 a volley, and more volleys. In a lab of
/// two NATs on one bridge about every fifth volley of 64 pairs found a path, and hardly any of 16.
const NEAR: Duration = Duration::from_millis(5);
const PORTS_NEAR: usize = 8;
const VOLLEYS_NEAR: u8 = 24;
/// Maximum wait for GO after ANSWER: the end that answers then probes without it.
const GO_WITHIN: Duration = Duration::from_secs(1);
/// Maximum wait for READY, for ports, and for the GO of a volley from fresh ports.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// How long a volley is given to be answered: twice the relayed round trip within these bounds.
const MIN_RESULT: Duration = Duration::from_millis(100);
const MAX_RESULT: Duration = Duration::from_secs(1);

/// The volleys of one round, at one end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volleys {
    state: State,
    /// The newest volley.
    number: u8,
    /// When the message was sent whose answer measures the relayed round trip. `None` if it was
    /// repeated.
    asked: Option<Instant>,
    /// How much earlier than it is due a volley is made ready.
    lead: Duration,
    /// The shortest relayed round trip of this round.
    round_trip: Option<Duration>,
    /// This end's ports and their addresses outside, and the peer's addresses.
    own: Vec<Base>,
    theirs: Vec<Candidate>,
}

/// Where a volley leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// `None`: the node's own socket.
    pub(crate) local_port: Option<u16>,
    /// The external address, as far as it is known.
    pub(crate) outside: Candidate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing more will happen.
    #[default]
    Off,
    /// Waits for ANSWER or READY, until then.
    Asked(Option<Instant>),
    /// Waits for GO, until then.
    Holding(Instant),
    /// Waits for fresh ports, until then.
    Opening(Instant),
    /// Fires then.
    Armed(Instant),
    /// Has fired, and waits for answers until then.
    Fired(Instant),
}

/// The action to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send the volley with this number then, which may be up to
    /// [`Timers::lead`](crate::punch::Timers::lead) from now.
    Fire { number: u8, at: Instant },
    /// Open this many ports.
    OpenPorts(usize),
}

impl Volleys {
    // The end that offers.

    /// OFFER has been sent.
    pub(crate) fn offered(lead: Duration, now: Instant) -> Self {
        Self { state: State::Asked(None), asked: Some(now), lead, ..Self::default() }
    }

    /// OFFER has been sent again: its answer measures nothing.
    pub(crate) fn offered_again(&mut self) {
        self.asked = None;
    }

    /// ANSWER arrived, and both ends support volleys. Returns when to fire; GO is to be sent now.
    pub(crate) fn answered(&mut self, now: Instant) -> Instant {
        self.arm(now)
    }

    /// READY arrived. Returns whether GO is to be sent now.
    pub(crate) fn ready(&mut self, number: u8, theirs: Vec<Candidate>, now: Instant) -> bool {
        let awaited = matches!(self.state, State::Asked(Some(_))) && number == self.number;
        if awaited {
            self.theirs = theirs;
            self.arm(now);
        }
        awaited
    }

    // The end that answers.

    /// ANSWER was sent, and both ends support volleys. Returns until when probes wait for GO.
    pub(crate) fn hold(now: Instant) -> (Self, Instant) {
        let until = now + GO_WITHIN;
        (Self { state: State::Holding(until), ..Self::default() }, until)
    }

    /// PREPARE arrived. Returns whether ports are to be opened for it.
    pub(crate) fn prepare(&mut self, number: u8, theirs: Vec<Candidate>, now: Instant) -> bool {
        let next = self.state != State::Off && number > self.number && number < VOLLEYS_NEAR;
        if next {
            self.number = number;
            self.theirs = theirs;
            self.own.clear();
            self.state = State::Opening(now + READY_WITHIN);
        }
        next
    }

    /// GO arrived. Returns whether to fire now.
    pub(crate) fn go(&mut self, number: u8, now: Instant) -> bool {
        let awaited = matches!(self.state, State::Holding(_)) && number == self.number;
        if awaited {
            self.state = State::Fired(now + READY_WITHIN);
        }
        awaited
    }

    // Both.

    /// The ports are open: PREPARE or READY is to be sent now. Returns the number of the volley;
    /// `None` if none waits for ports.
    pub(crate) fn opened(&mut self, own: Vec<Base>, offers: bool, now: Instant) -> Option<u8> {
        if !matches!(self.state, State::Opening(_)) {
            return None;
        }
        self.own = own;
        let until = now + READY_WITHIN;
        self.state = if offers { State::Asked(Some(until)) } else { State::Holding(until) };
        self.asked = Some(now);
        Some(self.number)
    }

    pub(crate) fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Off | State::Asked(None) => None,
            // The probes are made ready before they are sent.
            State::Armed(at) => Some(at.checked_sub(self.lead).unwrap_or(at)),
            State::Asked(Some(at)) | State::Holding(at) | State::Opening(at) | State::Fired(at) => {
                Some(at)
            }
        }
    }

    /// Handles due timers. `more`: another volley would be useful.
    pub(crate) fn step(&mut self, offers: bool, more: bool, now: Instant) -> Option<Due> {
        if self.due_at().is_none_or(|at| at > now) {
            return None;
        }
        match self.state {
            State::Armed(at) => {
                let round_trip = self.round_trip.unwrap_or(MAX_RESULT);
                self.state = State::Fired(now + (round_trip * 2).clamp(MIN_RESULT, MAX_RESULT));
                Some(Due::Fire { number: self.number, at: at.max(now) })
            }
            // GO was lost with the connection that carried it.
            State::Holding(_) if self.number == 0 => {
                self.state = State::Fired(now + READY_WITHIN);
                Some(Due::Fire { number: 0, at: now })
            }
            State::Fired(_) if offers && more && self.number + 1 < self.volleys() => {
                self.number += 1;
                self.own.clear();
                self.state = State::Opening(now + READY_WITHIN);
                Some(Due::OpenPorts(if self.is_near() { PORTS_NEAR } else { PORTS }))
            }
            // The end that answers waits for the next PREPARE as long as the round lasts.
            State::Fired(_) if !offers && more => {
                self.state = State::Fired(now + READY_WITHIN);
                None
            }
            State::Off
            | State::Asked(_)
            | State::Holding(_)
            | State::Opening(_)
            | State::Fired(_) => {
                self.stop();
                None
            }
        }
    }

    fn is_near(&self) -> bool {
        self.round_trip.is_some_and(|round_trip| round_trip < NEAR)
    }

    fn volleys(&self) -> u8 {
        if self.is_near() { VOLLEYS_NEAR } else { VOLLEYS }
    }

    /// No more volleys: a path was found, or the round is over.
    pub(crate) fn stop(&mut self) {
        self.state = State::Off;
        self.own.clear();
    }

    /// Whether the port belongs to the newest volley.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.own.iter().any(|base| base.local_port == Some(port))
    }

    /// The local port and the peer's address of each probe of a volley, in the order of this end.
    pub(crate) fn pairs(&self, offers: bool) -> Vec<(Option<u16>, Candidate)> {
        if offers {
            let from = |base: &Base| {
                self.theirs.iter().map({
                    let port = base.local_port;
                    move |to| (port, *to)
                })
            };
            return self.own.iter().flat_map(from).collect();
        }
        let from = |to: &Candidate| {
            self.own.iter().map({
                let to = *to;
                move |base| (base.local_port, to)
            })
        };
        let mut pairs: Vec<_> = self.theirs.iter().flat_map(from).collect();
        pairs.reverse();
        pairs
    }

    /// Maximum number of pairs of the newest volley: an end that does not know the other's ports
    /// yet expects as many as it has itself.
    pub(crate) fn most_pairs(&self) -> usize {
        self.own.len() * self.own.len().max(self.theirs.len())
    }

    /// The relayed round trip is measured; half of it from now on GO has arrived.
    fn arm(&mut self, now: Instant) -> Instant {
        if let Some(asked) = self.asked.take() {
            let sample = now.saturating_duration_since(asked);
            self.round_trip = Some(self.round_trip.map_or(sample, |known| known.min(sample)));
        }
        let at = now + self.round_trip.unwrap_or_default() / 2;
        self.state = State::Armed(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::gather::candidate::CandidateKind;
    use crate::punch::testing::{addr, start};

    const MS: Duration = Duration::from_millis(1);

    fn outside(port: u16) -> Candidate {
        let addr = addr(&format!("192.0.2.1:{port}"));
        Candidate { addr, kind: CandidateKind::ServerReflexive }
    }

    fn base(port: u16) -> Base {
        Base { local_port: Some(port), outside: outside(port) }
    }

    #[test]
    fn the_offerer_fires_half_a_round_trip_after_go() {
        let now = start();
        let mut volleys = Volleys::offered(Duration::ZERO, now);
        assert_eq!(volleys.due_at(), None);
        let fires = volleys.answered(now + 80 * MS);
        assert_eq!(fires, now + 120 * MS);
        assert_eq!(volleys.step(true, true, now + 119 * MS), None);
        assert_eq!(volleys.step(true, true, fires), Some(Due::Fire { number: 0, at: fires }));
        assert_eq!(volleys.due_at(), Some(fires + 160 * MS), "then answers are awaited");
    }

    #[test]
    fn a_volley_is_made_ready_before_it_is_due() {
        let now = start();
        let mut volleys = Volleys::offered(2 * MS, now);
        let at = volleys.answered(now + 20 * MS);
        assert_eq!(volleys.due_at(), Some(at - 2 * MS));
        assert_eq!(volleys.step(true, true, at - 2 * MS), Some(Due::Fire { number: 0, at }));
    }

    #[test]
    fn an_offer_that_was_repeated_measures_nothing() {
        let now = start();
        let mut volleys = Volleys::offered(Duration::ZERO, now);
        volleys.offered_again();
        let at = now + 2_500 * MS;
        assert_eq!(volleys.answered(at), at);
    }

    #[test]
    fn a_volley_without_an_answer_is_followed_by_one_from_fresh_ports() {
        let now = start();
        let mut volleys = Volleys::offered(Duration::ZERO, now);
        let fires = volleys.answered(now + 100 * MS);
        volleys.step(true, true, fires);
        let missed = volleys.due_at().unwrap();
        assert_eq!(volleys.step(true, true, missed), Some(Due::OpenPorts(PORTS)));
        assert_eq!(volleys.opened(vec![base(1), base(2)], true, missed), Some(1));
        assert!(volleys.has_port(2));
        assert!(!volleys.ready(0, Vec::new(), missed), "that is another volley's");
        // The shorter of the two round trips counts.
        assert!(volleys.ready(1, vec![outside(8), outside(9)], missed + 60 * MS));
        assert_eq!(volleys.due_at(), Some(missed + 90 * MS));
        let at = missed + 90 * MS;
        assert_eq!(volleys.step(true, true, at), Some(Due::Fire { number: 1, at }));
    }

    #[test]
    fn no_volley_follows_a_path_or_the_last_one() {
        let mut now = start();
        let mut volleys = Volleys::offered(Duration::ZERO, now);
        volleys.answered(now + MS);
        let mut fired = 0;
        while let Some(at) = volleys.due_at() {
            now = at;
            match volleys.step(true, true, now) {
                Some(Due::Fire { .. }) => fired += 1,
                Some(Due::OpenPorts(_)) => {
                    let number = volleys.opened(vec![base(1)], true, now).unwrap();
                    volleys.ready(number, vec![outside(9)], now);
                }
                None => {}
            }
        }
        assert_eq!(fired, VOLLEYS_NEAR);
        let mut volleys = Volleys::offered(Duration::ZERO, now);
        let fires = volleys.answered(now);
        volleys.step(true, true, fires);
        assert_eq!(volleys.step(true, false, now + MAX_RESULT), None);
        assert_eq!(volleys.due_at(), None);
    }

    #[test]
    fn the_answerer_fires_at_go_or_after_a_second_without() {
        let now = start();
        let (mut volleys, until) = Volleys::hold(now);
        assert!(!volleys.go(1, now));
        assert!(volleys.go(0, now));
        assert!(!volleys.go(0, now), "once");
        let (mut volleys, until_without) = Volleys::hold(now);
        assert_eq!(until, until_without);
        assert_eq!(volleys.step(false, true, until), Some(Due::Fire { number: 0, at: until }));
    }

    #[test]
    fn the_answerer_prepares_each_volley_once_and_a_bounded_number() {
        let now = start();
        let (mut volleys, _) = Volleys::hold(now);
        volleys.go(0, now);
        assert!(volleys.prepare(1, vec![outside(9)], now));
        assert!(!volleys.prepare(1, vec![outside(9)], now));
        assert_eq!(volleys.opened(vec![base(1)], false, now), Some(1));
        assert_eq!(volleys.opened(vec![base(1)], false, now), None, "nothing waits for ports");
        assert!(volleys.go(1, now));
        assert!(!volleys.prepare(VOLLEYS_NEAR, vec![outside(9)], now));
        assert!(
            !Volleys::default().prepare(1, vec![outside(9)], now),
            "the ends did not agree on volleys"
        );
    }

    #[test]
    fn the_ends_walk_through_the_pairs_in_opposite_directions() {
        let now = start();
        let mut offers =
            Volleys { own: vec![base(1), base(2)], ..Volleys::offered(Duration::ZERO, now) };
        offers.theirs = vec![outside(8), outside(9)];
        let mut answers = Volleys { own: vec![base(8), base(9)], ..Volleys::hold(now).0 };
        answers.theirs = vec![outside(1), outside(2)];
        let ports = |pairs: Vec<(Option<u16>, Candidate)>| -> Vec<_> {
            pairs.into_iter().map(|(from, to)| (from.unwrap(), to.addr.port())).collect()
        };
        assert_eq!(ports(offers.pairs(true)), [(1, 8), (1, 9), (2, 8), (2, 9)]);
        assert_eq!(ports(answers.pairs(false)), [(9, 2), (8, 2), (9, 1), (8, 1)]);
    }
}
