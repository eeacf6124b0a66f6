//! Handling of messages from the peer.

use std::time::Instant;

use super::{Context, PUBLIC_HOLD, Session, in_volleys, may_have_gone};
use crate::punch::gather::nat::NatClass;
use crate::punch::peer::attempt::Cause;
use crate::punch::peer::keys::Keys;
use crate::punch::peer::round::{Phase, Round};
use crate::punch::peer::schedule::{PROBES, worthwhile};
use crate::punch::peer::volley::Volleys;
use crate::punch::role::Role;
use crate::punch::wire::message::{Answer, Message, MessageError, Offer, Terms};
use crate::punch::wire::probe::CandidatePair;
use crate::punch::wire::secret::ProbeKey;

impl Session {
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
            (Message::Go { round, number }, Role::Answerer) => {
                self.handle_go(round, number, context)
            }
            _ => return Err(MessageError::WrongRole),
        }
        Ok(())
    }

    pub(super) fn handle_offer(
        &mut self,
        offer: Offer,
        context: &mut Context<'_>,
    ) -> Result<(), MessageError> {
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
    pub(super) fn answer_again(&mut self, round: u64, context: &mut Context<'_>) {
        let newest = self.round.as_ref().is_some_and(|newest| newest.id == round);
        if newest && self.their_rounds.take(context.now) {
            self.send_answer(round, context);
        }
    }

    pub(super) fn send_answer(&mut self, round: u64, context: &mut Context<'_>) {
        let terms = self.terms(context);
        let probes = terms.candidates.len() * PROBES;
        let answer = Message::Answer(Answer { round, terms });
        context.out.message(context.peer, answer.pad_for(probes));
    }

    pub(super) fn send_offer(&mut self, round: u64, key: ProbeKey, context: &mut Context<'_>) {
        let terms = self.terms(context);
        let probes = terms.candidates.len() * PROBES;
        let offer = Message::Offer(Offer { round, key, terms });
        context.out.message(context.peer, offer.pad_for(probes));
    }

    pub(super) fn handle_request(&mut self, context: &mut Context<'_>) {
        // An offer in flight already satisfies the request.
        let awaiting = matches!(&self.round, Some(Round { phase: Phase::Awaiting(_), .. }));
        if !awaiting {
            context.out.counters.messages_delayed +=
                u64::from(self.own_rounds.ready_at(context.now) > context.now);
            self.renew.get_or_insert(Cause::Peer);
        }
    }

    pub(super) fn take_offer(&mut self, offer: Offer, context: &mut Context<'_>) {
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

    pub(super) fn take_answer(&mut self, answer: Answer, context: &mut Context<'_>) {
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
    pub(super) fn take_terms(
        &mut self,
        mut terms: Terms,
        start: Instant,
        context: &mut Context<'_>,
    ) {
        let now = context.now;
        terms.candidates.truncate(Message::MAX_CANDIDATES);
        // A public end waits for the probe of a peer behind a NAT, which reveals the address to
        // answer.
        let public = context.own.class() == NatClass::Public && terms.class != NatClass::Public;
        let start = if public { now + PUBLIC_HOLD } else { start };
        let mut candidates = worthwhile(&terms.candidates, context.own);
        // Paths to addresses that the peer no longer announces may be gone.
        if let Some(before) = self.theirs.take() {
            self.leave(
                |path| may_have_gone(path.candidate.addr, &before.candidates, &terms.candidates),
                now,
            );
        }
        // A path found by a probe that arrived before this list takes the announced kind.
        for path in &mut self.paths {
            if let Some(listed) =
                candidates.iter().find(|listed| listed.addr == path.candidate.addr)
            {
                path.candidate.kind = listed.kind;
            }
        }
        // Addresses with a path need no check, but the path is probed again.
        candidates.retain(|candidate| {
            !self.has_path(CandidatePair { remote: candidate.addr, local_port: None })
        });
        self.theirs = Some(terms);
        self.paths.iter_mut().for_each(|path| path.ask(now));
        // The rest is checked in the current round, which succeeds at once if a path has answered
        // since its start.
        let Some(round) = &mut self.round else { return };
        round.check(now);
        round.checks.add(candidates, start);
        if self.paths.iter().any(|path| path.is_good_since(round.began)) {
            round.checks.found(public);
            self.succeed(context);
        }
        self.choose(context);
    }
}
