//! One peer: its rounds, and the paths that they gave.

mod messages;
mod probes;
mod volleys;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::attempt::{Attempt, Cause, Outcome};
use super::choice::{choose, review_at, score};
use super::explain::{Checked, Explanation, Why};
use super::keys::{KeyRing, Keys};
use super::path::{Attention, Path, Watch};
use super::ports::Ports;
use super::round::{Phase, Round, failure};
use super::volley::Volleys;
use crate::id::NodeId;
use crate::punch::agenda::Dues;
use crate::punch::config::Timers;
use crate::punch::event::Event;
use crate::punch::gather::candidate::{Candidate, CandidateKind, canonical};
use crate::punch::gather::nat::NatClass;
use crate::punch::gather::own::{Edition, Own};
use crate::punch::limit::Bucket;
use crate::punch::output::Output;
use crate::punch::random::Random;
use crate::punch::role::Role;
use crate::punch::wire::message::{Message, Offer, Terms};
use crate::punch::wire::probe::CandidatePair;
use crate::punch::wire::secret::{PathCookie, ProbeKey};

/// Valid paths during a round.
const MAX_PATHS: usize = 8;
/// Valid paths that are kept warm afterwards.
const WARM: usize = 3;
/// Rounds that are remembered.
const MAX_ATTEMPTS: usize = 16;
/// Rounds of either end at once, before [`Timers::round_interval`] applies.
const ROUND_BURST: u32 = 4;
/// Answers at once: the first half second of a peer with all its candidates, and some. Then 25 a
/// second.
const ANSWER_BURST: u32 = 64;
const ANSWER_INTERVAL: Duration = Duration::from_millis(40);
/// How long a public node leaves it to the peer to reach it.
const PUBLIC_HOLD: Duration = Duration::from_millis(500);
/// Maximum number of probes of the first volley that are sent without a pause; the others follow at
/// [`Timers::pace`].
const FIRST_VOLLEY: usize = 8;

/// One peer: its rounds, and the paths that they gave.
#[derive(Debug)]
pub(crate) struct Session {
    role: Role,
    /// What the peer puts into packets over direct paths.
    pub(crate) cookie: PathCookie,
    keys: KeyRing,
    /// The peer's last terms.
    theirs: Option<Terms>,
    round: Option<Round>,
    /// A request that no offer has followed yet.
    asked: Option<Asked>,
    /// When the offer or request is repeated, if nothing has followed by then.
    ask_again: Option<Instant>,
    /// An offer received too fast.
    held: Option<Offer>,
    paths: Vec<Watch>,
    used: Option<CandidatePair>,
    /// The fresh ports that are open for this peer.
    ports: Ports,
    /// The path as announced, with the round-trip time of that moment.
    told: Option<Path>,
    /// Since when packets go the way they go.
    since: Instant,
    last_sent: Option<Instant>,
    /// What calls for a new round, whatever there is.
    renew: Option<Cause>,
    /// The candidates announced to the peer.
    edition: Option<Edition>,
    /// Failed rounds since the last path.
    failures: u32,
    retry_at: Instant,
    /// Limits rounds started by this end.
    own_rounds: Bucket,
    /// Limits offers and requests that are accepted.
    their_rounds: Bucket,
    answers: Bucket,
    /// Limits probes to addresses that have not answered.
    allowance: Allowance,
    /// When a candidate was last probed: peers take turns.
    served: Option<Instant>,
    attempts: VecDeque<Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    until: Instant,
    cause: Cause,
}

/// What a session sees of the rest.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) peer: &'a NodeId,
    pub(crate) timers: &'a Timers,
    pub(crate) own: &'a mut Own,
    pub(crate) random: &'a mut Random,
    pub(crate) out: &'a mut Output,
}

impl Session {
    pub(crate) fn new(role: Role, context: &mut Context<'_>) -> Self {
        let interval = context.timers.round_interval;
        Self {
            role,
            cookie: PathCookie(context.random.bytes()),
            keys: KeyRing::default(),
            theirs: None,
            round: None,
            asked: None,
            ask_again: None,
            held: None,
            paths: Vec::new(),
            used: None,
            ports: Ports::default(),
            told: None,
            since: context.now,
            last_sent: None,
            renew: None,
            edition: None,
            failures: 0,
            retry_at: context.now,
            own_rounds: Bucket::new(ROUND_BURST, interval),
            their_rounds: Bucket::new(ROUND_BURST, interval),
            answers: Bucket::new(ANSWER_BURST, ANSWER_INTERVAL),
            allowance: Allowance::default(),
            served: None,
            attempts: VecDeque::new(),
        }
    }

    // Commands.

    pub(crate) fn sent(&mut self, context: &mut Context<'_>) {
        let flowed = self.is_flowing(context.now, context.timers);
        self.last_sent = Some(context.now);
        if let Some(path) = self.used_path_mut().filter(|_| !flowed) {
            path.attend(context.timers);
        }
    }

    pub(crate) fn restart(&mut self, context: &mut Context<'_>) {
        if self.is_flowing(context.now, context.timers) || !self.paths.is_empty() {
            self.renew = Some(Cause::Restart);
        }
        self.failures = 0;
        self.retry_at = context.now;
        for path in &mut self.paths {
            path.from = None;
            path.doubt(context.now);
        }
    }

    /// These addresses are no longer on any interface. Paths from them are probed at once, from any
    /// source address, and left until they answer.
    pub(crate) fn interfaces_changed(&mut self, gone: &[IpAddr], context: &Context<'_>) {
        let used = self.used;
        self.leave(|path| path.from.is_none_or(|ip| gone.contains(&ip)), context.now);
        self.paths
            .iter_mut()
            .for_each(|path| path.from = path.from.filter(|ip| !gone.contains(ip)));
        if self.used != used {
            // One round announces all changes to the peer, and starts then.
            self.retry_at = self.retry_at.max(context.now + context.timers.debounce);
        }
    }

    /// The network reports these addresses as unreachable.
    pub(crate) fn reported(&mut self, is_reported: impl Fn(SocketAddr) -> bool, now: Instant) {
        self.paths
            .iter_mut()
            .filter(|path| is_reported(path.candidate.addr))
            .for_each(|path| path.reported(now));
    }

    /// Whether there is a path to one of these addresses.
    pub(crate) fn has_path_to(&self, is_reported: impl Fn(SocketAddr) -> bool) -> bool {
        self.paths.iter().any(|path| is_reported(path.candidate.addr))
    }

    pub(crate) fn candidates_changed(&mut self, context: &mut Context<'_>) {
        let settled =
            self.paths.iter().any(|path| Some(path.pair()) == self.used && path.doubted.is_none());
        self.tell_candidates(settled, context);
    }

    /// Calls for a round if the peer should know of other candidates.
    fn tell_candidates(&mut self, settled: bool, context: &Context<'_>) {
        let newest = context.own.edition();
        if self.edition.is_some_and(|told| newest.outdates(told, settled)) {
            self.renew.get_or_insert(Cause::Candidates);
        }
    }

    // Time.

    /// Handles due timers except probes.
    pub(crate) fn step(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.keys.expire(now);
        if self.their_rounds.ready_at(now) <= now
            && let Some(offer) = self.held.take()
        {
            self.their_rounds.take(now);
            self.take_offer(offer, context);
        }
        if self.ask_again.take_if(|at| *at <= now).is_some() {
            self.repeat_question(context);
        }
        if let Some(asked) = self.asked.take_if(|asked| asked.until <= now) {
            self.remember(asked.at, asked.cause, Outcome::PeerSilent, 0, context);
            self.fail(context);
        }
        self.step_volleys(context);
        self.step_round(context);
        self.step_paths(context);
        self.release_ports(context);
        if let Some((at, cause)) = self.wants_round(now, context.timers)
            && at <= now
        {
            self.begin(cause, context);
        }
    }

    fn step_round(&mut self, context: &mut Context<'_>) {
        let Some(round) = &mut self.round else { return };
        if round.ends_at().is_none_or(|at| at > context.now) {
            return;
        }
        let awaiting = matches!(round.phase, Phase::Awaiting(_));
        let open = round.is_open();
        round.phase = Phase::Over;
        round.checks.stop();
        round.volleys.stop();
        if open {
            let theirs = self.theirs.as_ref().map_or(NatClass::Unknown, |terms| terms.class);
            let found = failure(context.own.class(), theirs, round.probes);
            let outcome = if awaiting { Outcome::PeerSilent } else { found };
            round.outcome = Some(outcome);
            let (began, cause, probes) = (round.began, round.cause, round.probes);
            self.remember(began, cause, outcome, probes, context);
            self.fail(context);
        }
        self.trim(WARM);
    }

    fn step_paths(&mut self, context: &mut Context<'_>) {
        let (now, timers) = (context.now, context.timers);
        let dead = |path: &mut Watch| path.dead_at(timers).is_some_and(|at| at <= now);
        let dead: Vec<_> = self.paths.extract_if(.., dead).map(|path| path.candidate).collect();
        context.out.counters.paths_died += dead.len() as u64;
        let lost = self.used.is_some_and(|used| !self.has_path(used));
        match &mut self.round {
            Some(round) if matches!(round.phase, Phase::Checking(_)) => {
                round.checks.add_proven(dead, now)
            }
            _ => {}
        }
        if lost && !self.round.as_ref().is_some_and(Round::is_open) {
            self.renew.get_or_insert(Cause::PathDied);
        }
        // Packets go through the mesh until the path answers.
        self.leave(|path| path.answer_by.is_some_and(|at| at <= now), now);
        let mut in_doubt = false;
        for path in &mut self.paths {
            if path.missed_at().is_some_and(|at| at <= now) {
                path.miss(now);
                in_doubt |= self.used == Some(path.pair());
            }
        }
        if in_doubt {
            self.paths.iter_mut().for_each(|path| path.ask(now));
            // The cause may be in what neighbours have reported since.
            self.tell_candidates(false, context);
        }
        if self.lets_go_at(timers).is_some_and(|at| at <= now) {
            self.paths.clear();
        }
        self.choose(context);
    }

    /// What this session waits for.
    pub(crate) fn dues(&self, now: Instant, timers: &Timers) -> Dues {
        let held = self.held.as_ref().map(|_| self.their_rounds.ready_at(now));
        let paths = self.paths.iter();
        let timer = [
            self.keys.expires_at(),
            held,
            self.asked.map(|asked| asked.until),
            self.ask_again,
            self.round.as_ref().and_then(Round::ends_at),
            self.round.as_ref().and_then(|round| round.volleys.due_at()),
            self.ports.due_at(now),
            paths.clone().filter_map(Watch::missed_at).min(),
            paths.clone().filter_map(|path| path.answer_by).min(),
            paths.clone().filter_map(|path| path.dead_at(timers)).min(),
            review_at(&self.paths, self.used),
            self.lets_go_at(timers),
            self.wants_round(now, timers).map(|(at, _)| at),
        ];
        let check = self.round.as_ref().and_then(|round| round.checks.due_at());
        Dues {
            timer: timer.into_iter().flatten().min(),
            watch: paths.map(|path| path.next).min(),
            check: check.map(|at| self.served.map_or(at, |served| served.max(at))),
            rounds: self.keys.rounds().collect(),
        }
    }

    // Rounds.

    /// When a round is due, and why.
    fn wants_round(&self, now: Instant, timers: &Timers) -> Option<(Instant, Cause)> {
        let flowing = self.is_flowing(now, timers);
        let open = self.round.as_ref().is_some_and(Round::is_open);
        let (at, cause) = match self.renew {
            _ if self.asked.is_some() => return None,
            Some(cause) if flowing || matches!(cause, Cause::Restart | Cause::Peer) => (now, cause),
            _ if open || self.used.is_some() || !flowing => return None,
            _ if self.failures == 0 => (now.max(self.retry_at), Cause::Traffic),
            _ => (self.retry_at, Cause::Retry),
        };
        Some((at.max(self.own_rounds.ready_at(now)), cause))
    }

    fn begin(&mut self, cause: Cause, context: &mut Context<'_>) {
        let now = context.now;
        let until = now + context.timers.answer;
        self.ask_again = Some(now + context.timers.answer / 2);
        self.own_rounds.take(now);
        self.renew = None;
        if self.role == Role::Answerer {
            self.asked = Some(Asked { at: now, until, cause });
            return context.out.message(context.peer, Message::Request);
        }
        self.supersede(context);
        let (id, key) = (context.random.number(), ProbeKey(context.random.key()));
        self.keys.offer(Keys::new(id, key));
        let volleys = Volleys::offered(context.timers.lead, now);
        self.round = Some(Round { volleys, ..Round::new(id, now, cause, Phase::Awaiting(until)) });
        context.out.counters.rounds += 1;
        self.send_offer(id, key, context);
    }

    /// Asks once more, word for word: a message is lost with the connection that carried it, or
    /// where the peer was not ready for it.
    fn repeat_question(&mut self, context: &mut Context<'_>) {
        match (&mut self.round, self.keys.newest()) {
            _ if self.asked.is_some() => context.out.message(context.peer, Message::Request),
            (Some(Round { id, volleys, phase: Phase::Awaiting(_), .. }), Some(keys))
                if keys.round == *id =>
            {
                volleys.offered_again();
                let (round, key) = (*id, keys.key);
                self.send_offer(round, key, context);
            }
            _ => {}
        }
    }

    /// The terms of this end.
    fn terms(&mut self, context: &mut Context<'_>) -> Terms {
        context.own.refresh();
        self.edition = Some(context.own.edition());
        let candidates = context.own.candidates().to_vec();
        Terms {
            class: context.own.class(),
            cookie: self.cookie,
            candidates,
            volleys: true,
            padding: 0,
        }
    }

    fn supersede(&mut self, context: &mut Context<'_>) {
        if let Some(round) = self.round.take_if(|round| round.is_open()) {
            self.remember(round.began, round.cause, Outcome::Superseded, round.probes, context);
        }
    }

    /// The newest round has its path.
    fn succeed(&mut self, context: &mut Context<'_>) {
        self.failures = 0;
        self.retry_at = context.now;
        let Some(round) =
            self.round.as_mut().filter(|round| round.outcome != Some(Outcome::Direct))
        else {
            return;
        };
        round.outcome = Some(Outcome::Direct);
        round.volleys.stop();
        let (began, cause, probes) = (round.began, round.cause, round.probes);
        self.remember(began, cause, Outcome::Direct, probes, context);
    }

    fn fail(&mut self, context: &mut Context<'_>) {
        let timers = context.timers;
        let doubled = timers.retry.saturating_mul(1 << self.failures.min(16));
        let wait = context.random.around(doubled.min(timers.retry_max));
        // The offerer goes first: one round serves both ends.
        let wait = if self.role == Role::Answerer { wait.mul_f32(1.25) } else { wait };
        self.failures = self.failures.saturating_add(1);
        self.retry_at = context.now + wait;
    }

    fn remember(
        &mut self,
        at: Instant,
        cause: Cause,
        outcome: Outcome,
        probes: u32,
        context: &mut Context<'_>,
    ) {
        let took = context.now.saturating_duration_since(at);
        let mine = context.own.class();
        let theirs = self.theirs.as_ref().map_or(NatClass::Unknown, |terms| terms.class);
        let attempt = Attempt { at, took, cause, outcome, mine, theirs, probes };
        context.out.counters.ended(&attempt);
        context
            .out
            .events
            .push_back(Event::Round { peer: context.peer.clone(), attempt: attempt.clone() });
        self.attempts.truncate(MAX_ATTEMPTS - 1);
        self.attempts.push_front(attempt);
    }

    // Paths.

    /// Probes matching paths at once, and uses none of them until it has answered.
    fn leave(&mut self, such: impl Fn(&Watch) -> bool, now: Instant) {
        for path in self.paths.iter_mut().filter(|path| such(path)) {
            path.doubt(now);
            path.answer_by = None;
            self.used.take_if(|used| *used == path.pair());
        }
    }

    fn choose(&mut self, context: &mut Context<'_>) {
        // Without its cookie the peer accepts no packets.
        let known = self.theirs.is_some();
        self.used = choose(&self.paths, self.used, context.now).filter(|_| known);
        let path = self.path();
        let same = |told: Path, path: Path| Path { rtt: path.rtt, ..told } == path;
        match (self.told, path) {
            (None, None) => return,
            (Some(told), Some(path)) if same(told, path) => return,
            (Some(told), Some(path))
                if (told.to, told.local_port) == (path.to, path.local_port) => {}
            _ => self.since = context.now,
        }
        self.told = path;
        context.out.counters.paths_changed += 1;
        context.out.events.push_back(Event::Path { peer: context.peer.clone(), path });
    }

    pub(crate) fn path(&self) -> Option<Path> {
        let used = self.used?;
        self.paths.iter().find(|path| path.pair() == used).and_then(|path| self.show(path))
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    fn show(&self, path: &Watch) -> Option<Path> {
        let cookie = self.theirs.as_ref()?.cookie;
        let Candidate { addr: to, kind } = path.candidate;
        let (from, local_port) = (path.from, path.local_port);
        Some(Path { to, from, local_port, cookie, rtt: path.rtt.smoothed(), kind })
    }

    fn has_path(&self, pair: CandidatePair) -> bool {
        self.paths.iter().any(|path| path.pair() == pair)
    }

    fn path_mut(&mut self, pair: CandidatePair) -> Option<&mut Watch> {
        self.paths.iter_mut().find(|path| path.pair() == pair)
    }

    fn used_path_mut(&mut self) -> Option<&mut Watch> {
        self.path_mut(self.used?)
    }

    fn attention(&self, pair: CandidatePair, now: Instant, timers: &Timers) -> Attention {
        let close = self.used == Some(pair) && self.is_flowing(now, timers);
        if close { Attention::Close } else { Attention::Loose }
    }

    fn is_flowing(&self, now: Instant, timers: &Timers) -> bool {
        self.last_sent.is_some_and(|at| now < at + timers.flowing)
    }

    fn is_awaiting(&self) -> bool {
        matches!(&self.round, Some(Round { phase: Phase::Awaiting(_), .. }))
    }

    fn lets_go_at(&self, timers: &Timers) -> Option<Instant> {
        let last = self.activity().filter(|_| !self.paths.is_empty())?;
        Some(last + timers.let_go)
    }

    /// When somebody last wanted a path.
    fn activity(&self) -> Option<Instant> {
        self.last_sent.max(self.round.as_ref().map(|round| round.began))
    }

    pub(crate) fn explain(&self, own: &Own, now: Instant, timers: &Timers) -> Explanation {
        let open = self.asked.is_some() || self.round.as_ref().is_some_and(Round::is_open);
        let last = self
            .attempts
            .iter()
            .map(|attempt| attempt.outcome)
            .find(|last| *last != Outcome::Superseded);
        let why = match last {
            _ if self.used.is_some() => Why::Direct,
            _ if open => Why::Trying,
            None | Some(Outcome::Direct) => Why::Idle,
            Some(outcome) => Why::Failed(outcome),
        };
        let mut spares: Vec<_> =
            self.paths.iter().filter(|path| Some(path.pair()) != self.used).collect();
        spares.sort_by_key(|path| score(path));
        let checks = self.round.iter().flat_map(|round| round.checks.list());
        let checked = |candidate, probes, rtt| Checked { candidate, probes, rtt };
        let mut their_candidates: Vec<_> =
            checks.map(|check| checked(check.candidate, check.probes, check.rtt)).collect();
        for path in &self.paths {
            match their_candidates
                .iter_mut()
                .find(|known| known.candidate.addr == path.candidate.addr)
            {
                Some(known) => known.rtt = Some(path.rtt.smoothed()),
                None => {
                    their_candidates.push(checked(path.candidate, 0, Some(path.rtt.smoothed())))
                }
            }
        }
        Explanation {
            why,
            path: self.path(),
            since: self.since,
            spares: spares.into_iter().filter_map(|path| self.show(path)).collect(),
            mine: own.class(),
            theirs: self.theirs.as_ref().map_or(NatClass::Unknown, |terms| terms.class),
            my_candidates: own.candidates().to_vec(),
            their_candidates,
            attempts: self.attempts.iter().cloned().collect(),
            next_round: self.wants_round(now, timers).map(|(at, _)| at),
        }
    }
}

/// Whether the ends synchronise their probes. Where one of them has no NAT, nothing is gained by
/// waiting.
fn in_volleys(theirs: &Terms, own: &Own) -> bool {
    theirs.volleys && theirs.class != NatClass::Public && own.class() != NatClass::Public
}

/// Whether a peer that announces other candidates than before may have left this address. It still
/// has an interface address that it announces. Any other address leads to one of its interfaces
/// through a NAT, possibly to one that is gone.
fn may_have_gone(addr: SocketAddr, before: &[Candidate], after: &[Candidate]) -> bool {
    let named = |list: &[Candidate], addr| {
        list.iter().any(|told| told.kind == CandidateKind::Host && canonical(told.addr) == addr)
    };
    let interfaces = before.iter().filter(|told| told.kind == CandidateKind::Host);
    let mut near =
        interfaces.map(|told| canonical(told.addr)).filter(|told| told.is_ipv4() == addr.is_ipv4());
    // A full list may have had no room for it.
    after.len() < Message::MAX_CANDIDATES
        && !named(after, addr)
        && near.any(|told| !named(after, told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::testing::addr;

    fn told(list: &[(&str, CandidateKind)]) -> Vec<Candidate> {
        list.iter().map(|(text, kind)| Candidate { addr: addr(text), kind: *kind }).collect()
    }

    #[test]
    fn a_peer_may_have_left_an_address_if_one_of_its_interfaces_has_gone_that_may_be_behind_it() {
        use CandidateKind::{Host, Mapped, ServerReflexive};
        let (outside, inside) = (("192.0.2.1:9", ServerReflexive), ("10.0.0.1:7", Host));
        let before = told(&[outside, inside, ("[2001:db8::1]:7", Host)]);
        let left = |at: &str, after: &[(&str, CandidateKind)]| {
            may_have_gone(addr(at), &before, &told(after))
        };
        let v6 = ("[2001:db8::1]:7", Host);
        assert!(
            left("192.0.2.1:9", &[outside, ("10.0.0.2:7", Host), v6]),
            "another address behind the NAT"
        );
        assert!(left("10.0.0.1:7", &[outside, ("10.0.0.2:7", Host), v6]));
        assert!(left("[2001:db8::1]:7", &[outside, inside]));
        assert!(
            !left("[2001:db8::1]:7", &[outside, ("10.0.0.2:7", Host), v6]),
            "it is still announced"
        );
        assert!(!left("192.0.2.1:9", &[outside, inside]), "of the other IP version");
        assert!(
            !left("192.0.2.1:9", &[inside, v6, ("10.5.5.5:7", Host), ("192.0.2.1:5", Mapped)]),
            "one more"
        );
        assert!(
            !left("192.0.2.1:9", &[("192.0.2.1:10", ServerReflexive), inside, v6]),
            "neighbours can lie"
        );
        assert!(
            !left("192.0.2.1:9", &[("10.0.0.2:7", Host); Message::MAX_CANDIDATES]),
            "there was no room"
        );
    }
}
