//! Volleys from fresh ports.

use std::time::Instant;

use super::{Context, FIRST_VOLLEY, Session};
use crate::punch::event::Event;
use crate::punch::gather::candidate::{Candidate, CandidateKind, canonical, is_portable};
use crate::punch::peer::schedule::Checks;
use crate::punch::peer::volley::{Due, Volleys};
use crate::punch::role::Role;
use crate::punch::wire::message::{Message, Volley};

impl Session {
    pub(super) fn handle_prepare(&mut self, volley: Volley, context: &mut Context<'_>) {
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

    pub(super) fn handle_ready(&mut self, volley: Volley, context: &mut Context<'_>) {
        let (round, number) = (volley.round, volley.number);
        let theirs = self.fresh_of_peer(volley.candidates);
        let volleys = self.volleys_of(round);
        if volleys.is_some_and(|volleys| volleys.ready(number, theirs, context.now)) {
            context.out.message(context.peer, Message::Go { round, number });
        } else {
            context.out.counters.messages_stale += 1;
        }
    }

    pub(super) fn handle_go(&mut self, round: u64, number: u8, context: &mut Context<'_>) {
        if self.volleys_of(round).is_some_and(|volleys| volleys.go(number, context.now)) {
            self.fire(number, None, context);
        } else {
            context.out.counters.messages_stale += 1;
        }
    }

    /// The volleys of the newest round, if this is its id.
    pub(super) fn volleys_of(&mut self, round: u64) -> Option<&mut Volleys> {
        self.round.as_mut().filter(|newest| newest.id == round).map(|round| &mut round.volleys)
    }

    /// What a peer may have volleys sent to: IPv4 addresses of the NAT that it named in its terms.
    pub(super) fn fresh_of_peer(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
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
    pub(super) fn want_ports(&mut self, count: usize, context: &mut Context<'_>) {
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

    pub(super) fn step_volleys(&mut self, context: &mut Context<'_>) {
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

    /// Sends the probes of a volley without a pause between them: what counts is that they leave
    /// now.
    pub(super) fn fire(&mut self, number: u8, at: Option<Instant>, context: &mut Context<'_>) {
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
    pub(super) fn release_ports(&mut self, context: &mut Context<'_>) {
        let volleys = self.round.as_ref().map(|round| &round.volleys);
        let needed = |port| {
            volleys.is_some_and(|volleys| volleys.has_port(port))
                || self.paths.iter().any(|path| path.local_port == Some(port))
        };
        for port in self.ports.release(needed, context.now) {
            context.out.events.push_back(Event::ClosePort { port });
        }
    }
}
