//! One peer: its rounds, and the paths that they gave.

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
use super::schedule::{Check, Checks, PROBES, worthwhile};
use super::volley::{Due, Volleys};
use crate::id::NodeId;
use crate::punch::agenda::Dues;
use crate::punch::config::Timers;
use crate::punch::event::Event;
use crate::punch::gather::candidate::{Candidate, CandidateKind, canonical, is_portable};
use crate::punch::gather::nat::NatClass;
use crate::punch::gather::own::{Edition, Own};
use crate::punch::limit::Bucket;
use crate::punch::output::Output;
use crate::punch::random::Random;
use crate::punch::role::Role;
use crate::punch::wire::message::{Answer, Message, MessageError, Offer, Terms, Volley};
use crate::punch::wire::probe::{Arrival, CandidatePair, Content, Probe, ProbeError, verify};
use crate::punch::wire::secret::{PathCookie, ProbeKey};

/// Valid paths during a round.
const MAX_PATHS: usize = 8;
/// Valid paths that are kept warm afterwards.
const WARM: usize = 3;
/// Rounds that are remembered.
const MAX_ATTEMPTS: usize = 16;
/// Rounds of either end at once, before [`Timers::round_interval`] applies.
const ROUND_BURST: u32 = 4;
/// Answers at once: the first half second of a peer with all its candidates, and some. Then 25 a second.
const ANSWER_BURST: u32 = 64;
const ANSWER_INTERVAL: Duration = Duration::from_millis(40);
/// How long a public node leaves it to the peer to reach it.
const PUBLIC_HOLD: Duration = Duration::from_millis(500);
/// Maximum number of probes of the first volley that are sent without a pause; the others follow at [`Timers::pace`].
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
        self.paths.iter_mut().for_each(|path| path.from = path.from.filter(|ip| !gone.contains(ip)));
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
        let settled = self.paths.iter().any(|path| Some(path.pair()) == self.used && path.doubted.is_none());
        self.tell_candidates(settled, context);
    }

    /// Calls for a round if the peer should know of other candidates.
    fn tell_candidates(&mut self, settled: bool, context: &Context<'_>) {
        let newest = context.own.edition();
        if self.edition.is_some_and(|told| newest.outdates(told, settled)) {
            self.renew.get_or_insert(Cause::Candidates);
        }
    }

    // Messages.

    pub(crate) fn handle_message(
        &mut self,
        message: Message,
        context: &mut Context<'_>,
    ) -> Result<(), MessageError> {
        self.allowance.on_message(message.encode().len());
        match (message, self.role) {
            (Message::Offer(offer), Role::Answerer) => self.handle_offer(offer, context)?,
            (Message::Answer(answer), Role::Offerer) => self.take_answer(answer, context),
            (Message::Request, Role::Offerer) => self.handle_request(context),
            (Message::Prepare(volley), Role::Answerer) => self.handle_prepare(volley, context),
            (Message::Ready(volley), Role::Offerer) => self.handle_ready(volley, context),
            (Message::Go { round, number }, Role::Answerer) => self.handle_go(round, number, context),
            _ => return Err(MessageError::WrongRole),
        }
        Ok(())
    }

    fn handle_offer(&mut self, offer: Offer, context: &mut Context<'_>) -> Result<(), MessageError> {
        if let Some(known) = self.keys.find(offer.round) {
            if known.key != offer.key {
                return Err(MessageError::RoundInUse);
            }
            self.answer_again(offer.round, context);
        } else if self.held.is_none() && self.their_rounds.take(context.now) {
            self.take_offer(offer, context);
        } else {
            context.out.counters.messages_delayed += 1;
            self.held = Some(offer);
        }
        Ok(())
    }

    /// A repeated offer: its answer was lost or is in flight.
    fn answer_again(&mut self, round: u64, context: &mut Context<'_>) {
        let newest = self.round.as_ref().is_some_and(|newest| newest.id == round);
        if newest && self.their_rounds.take(context.now) {
            self.send_answer(round, context);
        }
    }

    fn send_answer(&mut self, round: u64, context: &mut Context<'_>) {
        let terms = self.terms(context);
        let probes = terms.candidates.len() * PROBES;
        let answer = Message::Answer(Answer { round, terms });
        context.out.message(context.peer, answer.pad_for(probes));
    }

    fn send_offer(&mut self, round: u64, key: ProbeKey, context: &mut Context<'_>) {
        let terms = self.terms(context);
        let probes = terms.candidates.len() * PROBES;
        let offer = Message::Offer(Offer { round, key, terms });
        context.out.message(context.peer, offer.pad_for(probes));
    }

    fn handle_request(&mut self, context: &mut Context<'_>) {
        // An offer in flight already satisfies the request.
        let awaiting = matches!(&self.round, Some(Round { phase: Phase::Awaiting(_), .. }));
        if !awaiting {
            context.out.counters.messages_delayed +=
                u64::from(self.own_rounds.ready_at(context.now) > context.now);
            self.renew.get_or_insert(Cause::Peer);
        }
    }

    fn take_offer(&mut self, offer: Offer, context: &mut Context<'_>) {
        self.supersede(context);
        self.allowance.renew(Message::Offer(offer.clone()).encode().len());
        self.keys.offer(Keys::new(offer.round, offer.key));
        self.keys.agree(context.now);
        let (began, cause) = match self.asked.take() {
            Some(asked) => (asked.at, asked.cause),
            None => (context.now, Cause::Peer),
        };
        context.out.counters.rounds += 1;
        self.renew = None;
        self.round = Some(Round::new(offer.round, began, cause, Phase::Over));
        self.send_answer(offer.round, context);
        let mut start = context.now;
        if in_volleys(&offer.terms, context.own)
            && let Some(round) = &mut self.round
        {
            (round.volleys, start) = Volleys::hold(context.now);
        }
        self.take_terms(offer.terms, start, context);
    }

    fn take_answer(&mut self, answer: Answer, context: &mut Context<'_>) {
        let awaited = |round: &Round| round.id == answer.round && !round.answered;
        if !self.round.as_ref().is_some_and(awaited) {
            context.out.counters.messages_stale += 1;
            return;
        }
        self.keys.agree(context.now);
        self.allowance.renew(Message::Answer(answer.clone()).encode().len());
        let mut start = context.now;
        if let Some(round) = &mut self.round {
            if in_volleys(&answer.terms, context.own) {
                start = round.volleys.answered(context.now);
                context.out.message(context.peer, Message::Go { round: answer.round, number: 0 });
            } else {
                round.volleys.stop();
            }
        }
        self.take_terms(answer.terms, start, context);
    }

    /// `start`: when probes may start.
    fn take_terms(&mut self, mut terms: Terms, start: Instant, context: &mut Context<'_>) {
        let now = context.now;
        terms.candidates.truncate(Message::MAX_CANDIDATES);
        // A public end waits for the probe of a peer behind a NAT, which reveals the address to answer.
        let public = context.own.class() == NatClass::Public && terms.class != NatClass::Public;
        let start = if public { now + PUBLIC_HOLD } else { start };
        let mut candidates = worthwhile(&terms.candidates, context.own);
        // Paths to addresses that the peer no longer announces may be gone.
        if let Some(before) = self.theirs.take() {
            self.leave(|path| may_have_gone(path.candidate.addr, &before.candidates, &terms.candidates), now);
        }
        // A path found by a probe that arrived before this list takes the announced kind.
        for path in &mut self.paths {
            if let Some(listed) = candidates.iter().find(|listed| listed.addr == path.candidate.addr) {
                path.candidate.kind = listed.kind;
            }
        }
        // Addresses with a path need no check, but the path is probed again.
        candidates
            .retain(|candidate| !self.has_path(CandidatePair { remote: candidate.addr, local_port: None }));
        self.theirs = Some(terms);
        self.paths.iter_mut().for_each(|path| path.ask(now));
        // The rest is checked in the current round, which succeeds at once if a path has answered since
        // its start.
        let Some(round) = &mut self.round else { return };
        round.check(now);
        round.checks.add(candidates, start);
        if self.paths.iter().any(|path| path.is_good_since(round.began)) {
            round.checks.found(public);
            self.succeed(context);
        }
        self.choose(context);
    }

    // Probes.

    pub(crate) fn handle_probe(
        &mut self,
        content: Content,
        datagram: &[u8],
        arrival: Arrival,
        context: &mut Context<'_>,
    ) -> Result<(), ProbeError> {
        if content.sender == self.role {
            return Err(ProbeError::Reflected);
        }
        let keys = self.keys.find(content.round).ok_or(ProbeError::UnknownRound)?;
        if !verify(datagram, &keys.key) {
            return Err(ProbeError::Forged);
        }
        match content.seen {
            None => self.take_probe(content, arrival, context),
            Some(_) => self.take_probe_answer(content, arrival, context),
        }
    }

    fn take_probe(
        &mut self,
        content: Content,
        arrival: Arrival,
        context: &mut Context<'_>,
    ) -> Result<(), ProbeError> {
        let Arrival { from, to, local_port } = arrival;
        let keys = self.keys.find(content.round).ok_or(ProbeError::UnknownRound)?;
        if !keys.window.take(content.counter) {
            return Err(ProbeError::Replayed);
        }
        context.out.counters.probes_received += 1;
        if !self.answers.take(context.now) {
            return Err(ProbeError::TooMany);
        }
        self.allowance.on_probe();
        let bytes = keys.answer(self.role, content.counter, from);
        context.out.counters.answers_sent += 1;
        context.out.probe(Probe { to: from, from: to, local_port, at: None, bytes });
        self.keys.used(content.round, context.now);
        let at_home = self.ports.heard(local_port, context.now);
        // Whatever kept answers from coming through may be over.
        if let Some(path) = self.path_mut(arrival.pair()).filter(|path| path.doubted.is_some()) {
            path.ask(context.now);
        }
        let let_go = self.activity().is_none_or(|last| last + context.timers.let_go <= context.now);
        let wanted = self.paths.len() < WARM && !let_go;
        if let Some(round) = &mut self.round
            && at_home
            && (wanted || round.phase != Phase::Over)
            && !self.paths.iter().any(|path| path.pair() == arrival.pair())
        {
            let candidate = Candidate { addr: from, kind: CandidateKind::PeerReflexive };
            round.checks.trigger(candidate, arrival, context.now);
        }
        Ok(())
    }

    fn take_probe_answer(
        &mut self,
        content: Content,
        arrival: Arrival,
        context: &mut Context<'_>,
    ) -> Result<(), ProbeError> {
        let (pair, to) = (arrival.pair(), arrival.to);
        let Content { round: id, counter, .. } = content;
        let now = context.now;
        let attention = self.attention(pair, now, context.timers);
        let newest = self.round.as_ref().is_some_and(|round| round.id == id);
        if let Some(path) = self.path_mut(pair) {
            if !path.answered(id, counter, to, now, attention, context.timers) {
                return Err(ProbeError::Unasked);
            }
        } else {
            let round = self.round.as_mut().filter(|_| newest).ok_or(ProbeError::Unasked)?;
            let (candidate, rtt) = round.checks.answered(pair, counter, now).ok_or(ProbeError::Unasked)?;
            self.open(Watch::new(candidate, pair.local_port, to, rtt, now), context);
        }
        context.out.counters.answers_received += 1;
        self.keys.used(id, now);
        if newest && self.theirs.is_some() && !self.is_awaiting() {
            let public = context.own.class() == NatClass::Public;
            self.round.iter_mut().for_each(|round| round.checks.found(public));
            self.succeed(context);
        }
        self.choose(context);
        Ok(())
    }

    fn open(&mut self, path: Watch, context: &mut Context<'_>) {
        context.out.counters.paths_opened += 1;
        self.paths.push(path);
        let over = !self.round.as_ref().is_some_and(|round| round.phase != Phase::Over);
        self.trim(if over { WARM } else { MAX_PATHS });
    }

    /// Keeps the path in use and the best others.
    fn trim(&mut self, most: usize) {
        let used = self.used;
        self.paths.sort_by_key(|path| (Some(path.pair()) != used, path.doubted.is_some(), score(path)));
        self.paths.truncate(most);
    }

    /// The probe of a path that is due.
    pub(crate) fn send_watch(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let due = self.paths.iter().filter(|path| path.next <= now).min_by_key(|path| path.next);
        let Some(pair) = due.map(Watch::pair) else { return };
        let attention = self.attention(pair, now, context.timers);
        let Some(keys) = self.keys.agreed() else { return };
        let (counter, bytes) = keys.probe(self.role);
        let id = keys.round;
        if let Some(path) = self.path_mut(pair) {
            path.sent(id, counter, now, attention, context.timers);
            let from = path.from;
            context.out.counters.probes_sent += 1;
            let CandidatePair { remote: to, local_port } = pair;
            context.out.probe(Probe { to, from, local_port, at: None, bytes });
        }
    }

    /// The probe of a candidate that is due.
    pub(crate) fn send_check(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.served = Some(now);
        self.send_one(Checks::take_due, None, context);
    }

    /// Sends the probe of the next check. Returns whether there is one.
    fn send_one(
        &mut self,
        take: impl FnOnce(&mut Checks, Instant) -> Option<&mut Check>,
        at: Option<Instant>,
        context: &mut Context<'_>,
    ) -> bool {
        let now = context.now;
        let (Some(round), Some(keys)) = (&mut self.round, self.keys.newest()) else { return false };
        let found = round.checks.has_found();
        let Some(check) = take(&mut round.checks, now) else { return false };
        if !check.has_answered() && !self.allowance.take_probe() {
            check.withhold();
            context.out.counters.probes_withheld += 1;
            return false;
        }
        let (counter, bytes) = keys.probe(self.role);
        check.sent(counter, at.unwrap_or(now), found);
        let (to, from, local_port) = (check.candidate.addr, check.from, check.local_port);
        round.sent(now);
        context.out.counters.probes_sent += 1;
        context.out.probe(Probe { to, from, local_port, at, bytes });
        true
    }

    // Volleys.

    fn handle_prepare(&mut self, volley: Volley, context: &mut Context<'_>) {
        let theirs = self.fresh_of_peer(volley.candidates);
        let count = theirs.len();
        let volleys = self.volleys_of(volley.round);
        if volleys.is_some_and(|volleys| volleys.prepare(volley.number, theirs, context.now)) {
            // As many as the peer has: the pairs are the square of that.
            self.want_ports(count, context);
        } else {
            context.out.counters.messages_stale += 1;
        }
    }

    fn handle_ready(&mut self, volley: Volley, context: &mut Context<'_>) {
        let (round, number) = (volley.round, volley.number);
        let theirs = self.fresh_of_peer(volley.candidates);
        let volleys = self.volleys_of(round);
        if volleys.is_some_and(|volleys| volleys.ready(number, theirs, context.now)) {
            context.out.message(context.peer, Message::Go { round, number });
        } else {
            context.out.counters.messages_stale += 1;
        }
    }

    fn handle_go(&mut self, round: u64, number: u8, context: &mut Context<'_>) {
        if self.volleys_of(round).is_some_and(|volleys| volleys.go(number, context.now)) {
            self.fire(number, None, context);
        } else {
            context.out.counters.messages_stale += 1;
        }
    }

    /// The volleys of the newest round, if this is its id.
    fn volleys_of(&mut self, round: u64) -> Option<&mut Volleys> {
        self.round.as_mut().filter(|newest| newest.id == round).map(|round| &mut round.volleys)
    }

    /// What a peer may have volleys sent to: IPv4 addresses of the NAT that it named in its terms.
    fn fresh_of_peer(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        let named = self.theirs.iter().flat_map(|terms| &terms.candidates);
        let outside: Vec<_> = named
            .filter(|told| told.kind == CandidateKind::ServerReflexive)
            .map(|told| canonical(told.addr).ip())
            .collect();
        candidates.iter_mut().for_each(|told| told.addr = canonical(told.addr));
        candidates.retain(|told| {
            told.addr.is_ipv4() && is_portable(told.addr) && outside.contains(&told.addr.ip())
        });
        candidates.truncate(Message::MAX_FRESH);
        candidates
    }

    /// Asks for fresh ports, where the NAT lets this end know what they will be outside.
    fn want_ports(&mut self, count: usize, context: &mut Context<'_>) {
        if context.own.keeps_ports() {
            context.out.events.push_back(Event::OpenPorts { peer: context.peer.clone(), count });
        } else {
            self.ports_opened(Vec::new(), context);
        }
    }

    pub(crate) fn ports_opened(&mut self, opened: Vec<u16>, context: &mut Context<'_>) {
        let now = context.now;
        self.ports.opened(&opened);
        let Some(round) = &mut self.round else { return };
        let offers = self.role == Role::Offerer;
        let bases = context.own.bases(&opened);
        let candidates = bases.iter().map(|base| base.outside).collect();
        let Some(number) = round.volleys.opened(bases, offers, now) else { return };
        let probes = round.volleys.most_pairs();
        let volley = Volley { round: round.id, number, candidates, padding: 0 };
        let message = if offers { Message::Prepare(volley) } else { Message::Ready(volley) };
        context.out.message(context.peer, message.pad_for(probes));
    }

    fn step_volleys(&mut self, context: &mut Context<'_>) {
        let offers = self.role == Role::Offerer;
        let Some(round) = &mut self.round else { return };
        let more = round.wants_volley();
        match round.volleys.step(offers, more, context.now) {
            Some(Due::Fire { number, at }) => {
                self.fire(number, Some(at).filter(|at| *at > context.now), context);
            }
            Some(Due::OpenPorts(count)) => self.want_ports(count, context),
            None => {}
        }
    }

    /// Sends the probes of a volley without a pause between them: what counts is that they leave now.
    fn fire(&mut self, number: u8, at: Option<Instant>, context: &mut Context<'_>) {
        let now = context.now;
        let offers = self.role == Role::Offerer;
        let Some(round) = &mut self.round else { return };
        context.out.counters.volleys += 1;
        let most = if number == 0 {
            round.checks.start(now);
            FIRST_VOLLEY
        } else {
            let pairs = round.volleys.pairs(offers);
            let most = pairs.len();
            round.checks.add_volley(pairs, now);
            most
        };
        let take = if number == 0 { Checks::take_first } else { Checks::take_of_volley };
        for _ in 0..most {
            if !self.send_one(take, at, context) {
                break;
            }
        }
    }

    /// The fresh ports that are open for this peer.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.list()
    }

    /// Closes the fresh ports that nothing needs any more.
    fn release_ports(&mut self, context: &mut Context<'_>) {
        let volleys = self.round.as_ref().map(|round| &round.volleys);
        let needed = |port| {
            volleys.is_some_and(|volleys| volleys.has_port(port))
                || self.paths.iter().any(|path| path.local_port == Some(port))
        };
        for port in self.ports.release(needed, context.now) {
            context.out.events.push_back(Event::ClosePort { port });
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
            Some(round) if matches!(round.phase, Phase::Checking(_)) => round.checks.add_proven(dead, now),
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

    /// Asks once more, word for word: a message is lost with the connection that carried it, or where the peer was not ready for it.
    fn repeat_question(&mut self, context: &mut Context<'_>) {
        match (&mut self.round, self.keys.newest()) {
            _ if self.asked.is_some() => context.out.message(context.peer, Message::Request),
            (Some(Round { id, volleys, phase: Phase::Awaiting(_), .. }), Some(keys)) if keys.round == *id => {
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
        Terms { class: context.own.class(), cookie: self.cookie, candidates, volleys: true, padding: 0 }
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
        let Some(round) = self.round.as_mut().filter(|round| round.outcome != Some(Outcome::Direct)) else {
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
        context.out.events.push_back(Event::Round { peer: context.peer.clone(), attempt: attempt.clone() });
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
            (Some(told), Some(path)) if (told.to, told.local_port) == (path.to, path.local_port) => {}
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
        let last =
            self.attempts.iter().map(|attempt| attempt.outcome).find(|last| *last != Outcome::Superseded);
        let why = match last {
            _ if self.used.is_some() => Why::Direct,
            _ if open => Why::Trying,
            None | Some(Outcome::Direct) => Why::Idle,
            Some(outcome) => Why::Failed(outcome),
        };
        let mut spares: Vec<_> = self.paths.iter().filter(|path| Some(path.pair()) != self.used).collect();
        spares.sort_by_key(|path| score(path));
        let checks = self.round.iter().flat_map(|round| round.checks.list());
        let checked = |candidate, probes, rtt| Checked { candidate, probes, rtt };
        let mut their_candidates: Vec<_> =
            checks.map(|check| checked(check.candidate, check.probes, check.rtt)).collect();
        for path in &self.paths {
            match their_candidates.iter_mut().find(|known| known.candidate.addr == path.candidate.addr) {
                Some(known) => known.rtt = Some(path.rtt.smoothed()),
                None => their_candidates.push(checked(path.candidate, 0, Some(path.rtt.smoothed()))),
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

/// Whether the ends synchronise their probes. Where one of them has no NAT, nothing is gained by waiting.
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
    after.len() < Message::MAX_CANDIDATES && !named(after, addr) && near.any(|told| !named(after, told))
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
        let left = |at: &str, after: &[(&str, CandidateKind)]| may_have_gone(addr(at), &before, &told(after));
        let v6 = ("[2001:db8::1]:7", Host);
        assert!(left("192.0.2.1:9", &[outside, ("10.0.0.2:7", Host), v6]), "another address behind the NAT");
        assert!(left("10.0.0.1:7", &[outside, ("10.0.0.2:7", Host), v6]));
        assert!(left("[2001:db8::1]:7", &[outside, inside]));
        assert!(!left("[2001:db8::1]:7", &[outside, ("10.0.0.2:7", Host), v6]), "it is still announced");
        assert!(!left("192.0.2.1:9", &[outside, inside]), "of the other IP version");
        assert!(
            !left("192.0.2.1:9", &[inside, v6, ("10.5.5.5:7", Host), ("192.0.2.1:5", Mapped)]),
            "one more"
        );
        assert!(!left("192.0.2.1:9", &[("192.0.2.1:10", ServerReflexive), inside, v6]), "neighbours can lie");
        assert!(!left("192.0.2.1:9", &[("10.0.0.2:7", Host); Message::MAX_CANDIDATES]), "there was no room");
    }
}
