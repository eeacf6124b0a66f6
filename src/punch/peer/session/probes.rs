//! Sending and handling of probes.

use std::time::Instant;

use super::{Context, MAX_PATHS, Session, WARM};
use crate::punch::gather::candidate::{Candidate, CandidateKind};
use crate::punch::gather::nat::NatClass;
use crate::punch::peer::choice::score;
use crate::punch::peer::path::Watch;
use crate::punch::peer::round::Phase;
use crate::punch::peer::schedule::{Check, Checks};
use crate::punch::wire::probe::{Arrival, CandidatePair, Content, Probe, ProbeError, verify};

impl Session {
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

    pub(super) fn take_probe(
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

    pub(super) fn take_probe_answer(
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
            let (candidate, rtt) =
                round.checks.answered(pair, counter, now).ok_or(ProbeError::Unasked)?;
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

    pub(super) fn open(&mut self, path: Watch, context: &mut Context<'_>) {
        context.out.counters.paths_opened += 1;
        self.paths.push(path);
        let over = !self.round.as_ref().is_some_and(|round| round.phase != Phase::Over);
        self.trim(if over { WARM } else { MAX_PATHS });
    }

    /// Keeps the path in use and the best others.
    pub(super) fn trim(&mut self, most: usize) {
        let used = self.used;
        self.paths
            .sort_by_key(|path| (Some(path.pair()) != used, path.doubted.is_some(), score(path)));
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
    pub(super) fn send_one(
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
}
