//! Convergence: echo waves, and the requests that they answer.

pub(in crate::router) mod answer;
pub(in crate::router) mod converge;
pub(in crate::router) mod echo;
pub(in crate::router) mod request;

use std::collections::BTreeSet;
use std::time::Instant;

use self::answer::{Echo, Tally};
use self::converge::{Judgement, Reach};
use self::echo::Wave;
use self::request::{ConvergeError, ConvergeRequest};
use super::Router;
use super::event::Event;
use super::neighbour::{NeighbourKind, NeighbourState};
use super::record::Stamp;
use crate::id::NodeId;

/// Requests, the waves made for them, and the verdict.
impl Router {
    /// Asks for word that every node which this one can reach has installed the route to it: the
    /// answer is [`Event::Converged`] or, at the deadline, [`Event::Partial`].
    ///
    /// This node originates a record that asks for a wave (as long as a request is open, all its
    /// records do). If a wave does not reach every node, because links or nodes came and went
    /// meanwhile, it begins another after twice the time that a wave takes, doubling up to 30 s,
    /// within half of what a node may originate. Requests that are open when a wave begins share
    /// it. Requests survive new sessions and records; [`cancel_converge`](Self::cancel_converge)
    /// ends one without an answer.
    ///
    /// For a node without neighbours, which is all of its mesh, the request succeeds at once. One
    /// that syncs with its first neighbour begins when it has. A wave takes about twice the time of
    /// an update, and at most 2E messages over E links.
    ///
    /// # Errors
    /// The request is not taken; the variant says why.
    pub fn converge(
        &mut self,
        deadline: Instant,
        now: Instant,
    ) -> Result<ConvergeRequest, ConvergeError> {
        if self.is_done_speaking() {
            return Err(ConvergeError::Leaving);
        }
        let request = self.convergence.open(deadline, now)?;
        self.settle(now);
        Ok(request)
    }

    /// Gives up a request: no event reports its end. A request that has ended is ignored.
    pub fn cancel_converge(&mut self, request: ConvergeRequest, now: Instant) {
        self.convergence.close(&[request]);
        self.end_unwanted_wave();
        self.settle(now);
    }

    /// Has a record made that asks for a wave, if one is due. A node that is alone has its answer.
    pub(in crate::router) fn ask_for_wave(&mut self, now: Instant) {
        if !self.convergence.wants_wave() {
            return;
        }
        if self.is_alone() {
            // Only once the table agrees.
            if !self.schedule.is_wanted() {
                self.succeed(&self.convergence.all(), 1);
            }
        } else if self.next_wave(now).is_some_and(|at| at <= now) {
            self.best_answer();
            self.convergence.on_asked(now);
            self.origin.speak_again(now);
        }
    }

    /// This node's record went out, and asks for a wave.
    fn on_own_wave(&mut self, now: Instant) {
        self.counters.waves += 1;
        let reach = self.reach();
        self.convergence.on_wave(reach, now);
    }

    /// The session with a neighbour is over; a new one `continues` it if the neighbour is the same
    /// process.
    pub(in crate::router) fn on_wave_session_down(&mut self, neighbour: &NodeId, continues: bool) {
        if continues && self.echoes.waits_for(self.id(), neighbour) {
            self.convergence.on_broken();
        }
        self.echoes.on_gone(neighbour);
    }

    /// All neighbours that were waited for have answered. Called again after each computation of
    /// paths, since what this node can reach may turn out to be exactly what has answered.
    fn judge(&mut self, children: Tally, now: Instant) {
        let reach = self.reach();
        let tally = children.with(Tally::of([self.id().addr()]));
        match self.convergence.judge(tally, &reach, now) {
            Judgement::Unwanted => self.end_unwanted_wave(),
            Judgement::Reached { requests, count } => {
                self.echoes.forget(&self.config.id);
                self.succeed(&requests, count);
            }
            Judgement::Missed => {}
        }
    }

    /// Ends the requests whose deadline has passed.
    pub(in crate::router) fn end_requests(&mut self, now: Instant) {
        self.fail(&self.convergence.overdue(now));
    }

    /// Fails all requests. This node leaves: no node may keep a route to it.
    pub(in crate::router) fn end_all_requests(&mut self) {
        self.fail(&self.convergence.all());
    }

    /// When something is to be done about requests.
    pub(in crate::router) fn next_converge(&self, now: Instant) -> Option<Instant> {
        [self.convergence.next_deadline(), self.next_wave(now)].into_iter().flatten().min()
    }

    /// When the next wave is due. `None` until this node has synced with a neighbour, because a
    /// wave would reach no node before.
    fn next_wave(&self, now: Instant) -> Option<Instant> {
        let heard = self.neighbours.routers().any(|(_, session)| session.takes_waves());
        if heard && self.may_speak() { self.convergence.next_wave(now) } else { None }
    }

    fn is_alone(&self) -> bool {
        let mut sessions = self.neighbours.routers();
        !sessions.any(|(_, s)| s.kind == NeighbourKind::Full && s.state != NeighbourState::Leaving)
    }

    fn succeed(&mut self, requests: &[ConvergeRequest], count: u64) {
        self.convergence.succeed(requests);
        for &request in requests {
            self.event(Event::Converged { request, count });
        }
    }

    fn fail(&mut self, requests: &[ConvergeRequest]) {
        if requests.is_empty() {
            return;
        }
        let expected = self.reach().nodes.len() as u64;
        let count = self.best_answer().min(expected);
        self.convergence.close(requests);
        self.end_unwanted_wave();
        for &request in requests {
            self.counters.partials += 1;
            self.event(Event::Partial { request, count, expected });
        }
    }

    /// The most nodes that have answered a wave since a request was open.
    fn best_answer(&mut self) -> u64 {
        let answered = self.echoes.answered(self.id()).count.saturating_add(1);
        self.convergence.on_answered(answered)
    }

    /// Ends the wave of this node if no request is open.
    fn end_unwanted_wave(&mut self) {
        if !self.convergence.wants_wave() {
            self.echoes.forget(&self.config.id);
        }
    }

    /// What this node can reach over the links that are up at its end: a new link counts before the
    /// neighbour lists it. Stubs do not count, nor does what lies behind nodes that refuse transit.
    fn reach(&self) -> Reach {
        let graph = self.database.graph();
        let mut seen = vec![false; graph.bound()];
        let mut nodes = BTreeSet::from([self.id().addr()]);
        if let Some(me) = graph.number(self.id()) {
            seen[me as usize] = true;
        }
        let mut level = Vec::new();
        for neighbour in self.neighbours.full().iter().filter(|id| self.uses_link(id)) {
            nodes.insert(neighbour.addr());
            level.extend(
                graph
                    .number(neighbour)
                    .filter(|&n| !std::mem::replace(&mut seen[n as usize], true)),
            );
        }
        let mut depth = 0;
        while !level.is_empty() {
            depth += 1;
            let mut next = Vec::new();
            for vertex in level.into_iter().map(|node| graph.vertex(node)) {
                nodes.insert(vertex.record.addr());
                let edges = vertex.edges.iter().filter(|_| vertex.transit).map(|edge| edge.to);
                next.extend(edges.filter(|&to| !std::mem::replace(&mut seen[to as usize], true)));
            }
            level = next;
        }
        Reach { nodes, depth }
    }
}

/// Waves, of this node and of others.
impl Router {
    /// A record was stored, in place of what a wave before it was about. `shown` are neighbours
    /// that hold it already.
    pub(in crate::router) fn begin_wave(
        &mut self,
        origin: &NodeId,
        stamp: Stamp,
        from: Option<&NodeId>,
        shown: &BTreeSet<NodeId>,
        now: Instant,
    ) {
        let listens = |parent: &NodeId| {
            let session = self.neighbours.get(parent);
            let ended = |got_end| got_end || self.credentials.ends(parent);
            session.is_some_and(|s| ended(s.got_end) && s.state != NeighbourState::Leaving)
        };
        // A wave that arrives late, with the sync, is not forwarded: the neighbour does not wait
        // for an answer.
        if !from.is_none_or(listens) {
            return self.echoes.forget(origin);
        }
        let waits = self.neighbours.routers().filter(|(_, session)| session.takes_waves());
        let waits = waits.map(|(id, _)| id).filter(|id| Some(*id) != from && !shown.contains(*id));
        let waits = waits.cloned().collect();
        let installed_at = self.schedule.runs() + u64::from(self.schedule.is_wanted());
        self.echoes
            .begin(origin.clone(), Wave::new(stamp, from.cloned(), waits, installed_at, now));
        if from.is_none() {
            self.on_own_wave(now);
        }
    }

    /// The neighbour shows that it holds what is held here, and need not be sent it; but one that
    /// has part in a wave waits for a sign of this node too.
    pub(in crate::router) fn settle_shown(&mut self, neighbour: &NodeId, origin: &NodeId) {
        let echo = self.database.get(origin).is_some_and(|record| record.echo);
        let Some(outbox) = self.neighbours.outbox(neighbour) else { return };
        if echo {
            outbox.settle_payload(origin);
        } else {
            outbox.settle(origin);
        }
    }

    pub(in crate::router) fn on_echo(&mut self, from: &NodeId, echo: &Echo) {
        if !self.echoes.on_echo(from, echo) {
            self.counters.echoes_ignored += 1;
        }
    }

    /// Answers the waves that wait for nothing any more: neither for neighbours nor for this node's
    /// own table.
    pub(in crate::router) fn answer_waves(&mut self, now: Instant) {
        for origin in self.echoes.take_complete(self.schedule.runs()) {
            let Some(wave) = self.echoes.wave(&origin) else { continue };
            if self.database.stamp(&origin) != Some(wave.stamp) {
                self.echoes.forget(&origin);
                continue;
            }
            let installed = wave.installed_at <= self.schedule.runs();
            let Some(parent) = wave.parent.clone() else {
                // With the newest table, in which those that went are not any more.
                if installed && !self.schedule.is_wanted() {
                    self.judge(wave.children, now);
                }
                continue;
            };
            // Connected first: the records that connect a new node may come after its own.
            if !installed || self.database.unreachable_since(&origin).is_some() {
                continue;
            }
            // A node behind those that refuse transit has part in the flood, and no route.
            let routed = self.table.route(&origin).is_some_and(|route| !route.stub);
            let me = Tally::of(routed.then(|| self.id().addr()));
            let Tally { count, sum } = wave.children.with(me);
            let echo = Echo { origin: origin.clone(), version: wave.stamp.version, count, sum };
            if let Some(outbox) = self.neighbours.outbox(&parent) {
                outbox.echo(echo);
            }
            self.echoes.forget(&origin);
        }
    }
}
