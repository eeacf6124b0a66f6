//! Time: what comes next, and what the routers make of it.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{DeadlineReason, Event, Message, NeighbourKind, SessionUp};

use super::{Action, Entry, Session, World};
use crate::measure::carried;

/// How long a link that churn took down stays away.
const CHURN_AWAY: Duration = Duration::from_secs(2);

/// More than the longest that a link is held back after flapping.
const LONGEST_HOLD: Duration = Duration::from_secs(70);

impl World {
    /// Runs until nobody has anything left to do but to forget, which must be within `limit`.
    pub(crate) fn settle(&mut self, limit: Duration) {
        let end = self.now + limit;
        loop {
            while self.in_flight > 0 || self.busy > 0 {
                if !self.step(end) {
                    self.journal
                        .fail(format!("the mesh is not at rest after {} s", limit.as_secs()));
                }
                if self.journal.failure().is_some() {
                    return;
                }
            }
            // A router names its next deadline only: one to forget something may hide that of a
            // link that is held back.
            let sent = self.meter.totals.messages;
            self.run_for(LONGEST_HOLD);
            if self.meter.totals.messages == sent {
                return;
            }
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.journal.failure().is_none() && self.step(end) {}
        self.now = end;
    }

    /// Does the next thing. False: there is none until then.
    fn step(&mut self, end: Instant) -> bool {
        let Some(next) = self.queue.peek_mut().filter(|next| next.0.at <= end) else {
            return false;
        };
        let Reverse(entry) = PeekMut::pop(next);
        self.now = entry.at;
        self.in_flight -= usize::from(entry.action.counts());
        self.journal.progress(self.now, self.meter.totals.messages, self.nodes.len());
        match entry.action {
            Action::Up { session, end } => self.on_up(session, end),
            Action::Down { session, end } => self.on_down(session, end),
            Action::Deliver { session, end } => self.on_arrival(session, end),
            Action::Return { link } => self.connect(link.0, link.1),
            Action::Churn => self.on_churn(),
            Action::Wake(number) => self.on_wake(number),
        }
        true
    }

    pub(super) fn schedule(&mut self, at: Instant, action: Action) {
        self.counter += 1;
        self.in_flight += usize::from(action.counts());
        self.queue.push(Reverse(Entry { at, number: self.counter, action }));
    }

    pub(super) fn schedule_churn(&mut self) {
        if self.churn > 0.0 {
            let wait = self.rng.until_next(self.churn);
            self.schedule(self.now + wait, Action::Churn);
        }
    }

    fn on_up(&mut self, session: usize, end: usize) {
        let Session { ends, instances, broken, .. } = &self.sessions[session];
        if *broken || !self.runs(session, end) {
            return;
        }
        let (me, other) = (ends[end], ends[1 - end]);
        let neighbour = self.nodes[other].id.clone();
        let (instance, cost, kind) = (instances[1 - end], Cost::DEFAULT, NeighbourKind::Full);
        let up = SessionUp { neighbour, instance, cost, kind };
        match self.nodes[me].router.handle_session_up(up, self.now) {
            Ok(()) => {
                self.nodes[me].current.insert(other, session);
            }
            Err(error) => {
                self.journal.fail(format!("{} refuses a session: {error}", self.nodes[me].id))
            }
        }
        self.drain(me);
    }

    fn on_down(&mut self, session: usize, end: usize) {
        let ends = self.sessions[session].ends;
        if !self.runs(session, end) || !self.is_current(session, end) {
            return;
        }
        let neighbour = self.nodes[ends[1 - end]].id.clone();
        let node = &mut self.nodes[ends[end]];
        node.current.remove(&ends[1 - end]);
        node.router.handle_session_down(&neighbour, self.now);
        self.drain(ends[end]);
    }

    /// Takes all of one way that has arrived by now, and puts the next that has not into the queue.
    fn on_arrival(&mut self, session: usize, end: usize) {
        while let Some((at, number, _)) = self.sessions[session].ways[end].frames.front() {
            let (at, number) = (*at, *number);
            if at > self.now {
                self.in_flight += 1;
                self.queue.push(Reverse(Entry {
                    at,
                    number,
                    action: Action::Deliver { session, end },
                }));
                return;
            }
            if let Some((_, _, message)) = self.sessions[session].ways[end].frames.pop_front() {
                self.on_deliver(session, end, message);
            }
        }
    }

    fn on_deliver(&mut self, session: usize, end: usize, message: Message) {
        let ends = self.sessions[session].ends;
        if self.sessions[session].broken
            || !self.runs(session, end)
            || !self.is_current(session, end)
        {
            return;
        }
        let (me, from) = (ends[end], self.nodes[ends[1 - end]].id.clone());
        let update = self.meter.follows().then(|| message.clone());
        let router = &mut self.nodes[me].router;
        let before = router.counters().updates_accepted;
        if let Err(error) = router.handle_message(&from, message, self.now) {
            let me = &self.nodes[me].id;
            return self.journal.fail(format!("{me} refuses a message of {from}: {error}"));
        }
        if router.counters().updates_accepted > before
            && let Some((origin, version)) = update.as_ref().and_then(carried)
        {
            self.meter.on_accepted(
                me,
                ends[1 - end],
                (Self::number_of(&origin), version),
                self.now,
            );
        }
        self.drain(me);
    }

    fn on_wake(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.alive && node.wake == Some(self.now) {
            node.wake = None;
            node.router.handle_timeout(self.now);
            self.drain(number);
        }
    }

    fn on_churn(&mut self) {
        let links: Vec<(usize, usize)> = self.links().collect();
        if self.churn > 0.0 && !links.is_empty() {
            let link = links[self.rng.below(links.len())];
            self.cut(link);
            self.schedule(self.now + CHURN_AWAY, Action::Return { link });
        }
        self.schedule_churn();
    }

    /// The drain rule.
    pub(super) fn drain(&mut self, number: usize) {
        if !self.nodes[number].alive {
            return;
        }
        let mut filled: Vec<NodeId> = Vec::new();
        loop {
            let router = &mut self.nodes[number].router;
            if let Some(transmit) = router.poll_transmit() {
                self.transmit(number, &transmit.to, transmit.message);
                if filled.last() != Some(&transmit.to) {
                    filled.push(transmit.to);
                }
            } else if filled.is_empty() {
                break;
            } else {
                filled.drain(..).for_each(|to| router.handle_writable(&to, self.now));
            }
        }
        while let Some(event) = self.nodes[number].router.poll_event() {
            match event {
                Event::TableChanged
                | Event::NodeReachable(_)
                | Event::NodeUnreachable(_)
                | Event::Synced(_) => {}
                Event::Converged { request, .. } => self.on_answer(number, request, true),
                Event::Partial { request, .. } => self.on_answer(number, request, false),
                event => {
                    self.journal.note(self.now, || format!("{}: {event:?}", self.nodes[number].id))
                }
            }
        }
        let node = &mut self.nodes[number];
        self.meter.on_counters(number, node.router.version(), node.router.counters(), self.now);
        let deadline = node.router.poll_timeout();
        let busy = deadline.is_some_and(|deadline| {
            !matches!(deadline.reason, DeadlineReason::Expire | DeadlineReason::Audit)
        });
        self.busy =
            self.busy + usize::from(busy) - usize::from(std::mem::replace(&mut node.busy, busy));
        let wake = deadline.map(|deadline| deadline.at.max(self.now));
        if std::mem::replace(&mut node.wake, wake) != wake
            && let Some(at) = wake
        {
            self.schedule(at, Action::Wake(number));
        }
    }

    fn transmit(&mut self, from: usize, to: &NodeId, message: Message) {
        let session = self.nodes[from].current[&Self::number_of(to)];
        let (message, len) = match self.post.carry(message) {
            Ok(Some(carried)) => carried,
            Ok(None) => return,
            Err(error) => {
                let from = &self.nodes[from].id;
                return self.journal.fail(format!("{from} sent what cannot be read: {error}"));
            }
        };
        self.meter.on_sent(&message, len);
        let arrival = self.now + self.rng.within(self.latency);
        if self.swallow.is_some_and(|of| self.rng.below(of) == 0) {
            let from = &self.nodes[from].id;
            self.journal.note(self.now, || {
                format!("a message of type {:#x} from {from} to {to} is lost", message.frame_type())
            });
            return;
        }
        let state = &mut self.sessions[session];
        let end = usize::from(state.ends[0] == from);
        let way = &mut state.ways[end];
        way.last = arrival.max(way.last);
        self.counter += 1;
        way.frames.push_back((way.last, self.counter, message));
        if way.frames.len() == 1 {
            let (at, number) = (way.last, self.counter);
            self.in_flight += 1;
            self.queue.push(Reverse(Entry {
                at,
                number,
                action: Action::Deliver { session, end },
            }));
        }
    }

    /// Whether the process that had this end of the session still runs.
    fn runs(&self, session: usize, end: usize) -> bool {
        let session = &self.sessions[session];
        let node = &self.nodes[session.ends[end]];
        node.alive && node.router.version().instance == session.instances[end]
    }

    fn is_current(&self, session: usize, end: usize) -> bool {
        let ends = self.sessions[session].ends;
        self.nodes[ends[end]].current.get(&ends[1 - end]) == Some(&session)
    }
}
