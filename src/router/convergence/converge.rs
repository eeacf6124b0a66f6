//! Knowing that the mesh includes this node: requests, the waves made for them, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::{NodeAddr, NodeId};
use crate::router::Router;
use crate::router::config::{Limits, Timers};
use crate::router::convergence::answer::Tally;
use crate::router::convergence::echo::earliest;
use crate::router::convergence::request::{ConvergeError, ConvergeRequest};
use crate::router::event::Event;
use crate::router::neighbour::throttle::Bucket;
use crate::router::neighbour::{NeighbourKind, NeighbourState};

/// Nodes that came or went during a wave, of which every choice is tried: 1,024 sums.
const MAX_DIFFERING: usize = 10;

/// How long a wave is thought to take for each link of the longest path, before any was measured.
const GUESS_PER_LINK: Duration = Duration::from_millis(200);

/// The shortest and the longest time between two waves.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

/// The open requests, and the wave that was made for them.
#[derive(Debug)]
pub(crate) struct Convergence {
    requests: BTreeMap<ConvergeRequest, Open>,
    next: u64,
    /// A record is to be made, and was not yet.
    asked: bool,
    attempt: Option<Attempt>,
    /// The most nodes that have answered a wave since a request was open.
    best: u64,
    /// Waves in a row that did not reach everybody.
    failures: u32,
    /// What the last wave took that reached everybody.
    took: Option<Duration>,
    pace: Bucket,
}

#[derive(Debug)]
struct Open {
    asked_at: Instant,
    deadline: Instant,
}

/// One wave.
#[derive(Debug)]
struct Attempt {
    started: Instant,
    /// What this node could reach at the start.
    before: BTreeSet<NodeAddr>,
    /// The stream to a neighbour that had not answered was replaced: what it would have said is lost, though it is there.
    broken: bool,
    ended: bool,
    /// When the next wave begins, if this one does not reach everybody before.
    retry_at: Instant,
}

/// What this node can reach, and the links to the farthest.
struct Reach {
    nodes: BTreeSet<NodeAddr>,
    depth: u32,
}

impl Convergence {
    /// Waves take half of what this node may originate, so that they never delay news for long.
    pub(crate) fn new(timers: &Timers, now: Instant) -> Self {
        Self {
            requests: BTreeMap::new(),
            next: 0,
            asked: false,
            attempt: None,
            best: 0,
            failures: 0,
            took: None,
            pace: Bucket::new(timers.originate_burst / 2, 2 * timers.originate_interval, now),
        }
    }

    /// Whether the next record is to ask for a wave. All do while a request is open, so that news takes it along.
    pub(crate) fn wants_wave(&self) -> bool {
        !self.requests.is_empty()
    }

    /// A record was made without a wave.
    pub(crate) fn on_plain_record(&mut self) {
        self.asked = false;
        self.attempt = None;
    }

    fn open(&mut self, deadline: Instant, now: Instant) -> ConvergeRequest {
        let request = ConvergeRequest(self.next);
        self.next += 1;
        self.requests.insert(request, Open { asked_at: now, deadline });
        request
    }

    fn close(&mut self, requests: &[ConvergeRequest]) {
        for request in requests {
            self.requests.remove(request);
        }
        if self.requests.is_empty() {
            (self.attempt, self.failures, self.best) = (None, 0, 0);
        }
    }

    fn those(&self, which: impl Fn(&Open) -> bool) -> Vec<ConvergeRequest> {
        self.requests.iter().filter(|(_, open)| which(open)).map(|(request, _)| *request).collect()
    }

    /// When the next wave is due: at once if there is none that began after the oldest request.
    fn next_wave(&self, now: Instant) -> Option<Instant> {
        let oldest = self.requests.values().map(|open| open.asked_at).min()?;
        let due = match &self.attempt {
            _ if self.asked => return None,
            None => now,
            Some(attempt) if attempt.started < oldest => now,
            Some(attempt) => attempt.retry_at,
        };
        Some(due.max(self.pace.ready_at(now)))
    }

    fn retry_after(&self, took: Duration) -> Duration {
        took.saturating_mul(2 << self.failures.min(16)).clamp(RETRY.0, RETRY.1)
    }
}

impl Router {
    /// Asks for word that every node which this one can reach has installed the route to it: the answer is
    /// [`Event::Converged`] or, at the deadline, [`Event::Partial`].
    ///
    /// This node originates a record that asks for a wave (as long as a request is open, all its records do). Where a wave
    /// does not reach everybody, because links or nodes came and went meanwhile, it begins another after twice the time that a wave
    /// takes, doubling up to 30 s, within half of what a node may originate. Requests that are open when a wave begins share it.
    /// Requests survive new sessions and records; [`cancel_converge`](Self::cancel_converge) ends one without an answer.
    ///
    /// A node without neighbours is all of its mesh, and is told so at once. One that syncs with its first neighbour
    /// begins when it has. A wave takes about twice the time of an update, and at most 2E messages over E links.
    ///
    /// # Errors
    /// The request is not taken; the variant says why.
    pub fn converge(&mut self, deadline: Instant, now: Instant) -> Result<ConvergeRequest, ConvergeError> {
        if self.is_done_speaking() {
            return Err(ConvergeError::Leaving);
        }
        let max = Limits::MAX_CONVERGE_REQUESTS;
        if self.convergence.requests.len() >= max {
            return Err(ConvergeError::TooMany { max });
        }
        let request = self.convergence.open(deadline, now);
        self.settle(now);
        Ok(request)
    }

    /// Gives up a request: no event tells its end. One that has ended is ignored.
    pub fn cancel_converge(&mut self, request: ConvergeRequest, now: Instant) {
        self.convergence.close(&[request]);
        self.end_own_wave();
        self.settle(now);
    }

    /// Has a record made that asks for a wave, if one is due. A node that is alone has its answer.
    pub(in crate::router) fn ask_for_wave(&mut self, now: Instant) {
        if self.convergence.requests.is_empty() {
            return;
        }
        if self.is_alone() {
            // Once the table says so, too.
            if !self.schedule.is_wanted() {
                self.succeed(1, |_| true);
            }
        } else if self.next_wave(now).is_some_and(|at| at <= now) {
            if self.convergence.attempt.as_ref().is_some_and(|attempt| attempt.retry_at <= now) {
                self.convergence.failures += 1;
            }
            self.note_best();
            self.convergence.asked = true;
            self.convergence.pace.take(now);
            self.origin.speak_again(now);
        }
    }

    /// This node's record went out, and asks for a wave.
    pub(in crate::router) fn on_own_wave(&mut self, now: Instant) {
        self.counters.waves += 1;
        let reach = self.reach();
        let took = self.convergence.took.unwrap_or(GUESS_PER_LINK * (reach.depth + 1));
        let retry_at = now + self.convergence.retry_after(took);
        self.convergence.asked = false;
        self.convergence.attempt =
            Some(Attempt { started: now, before: reach.nodes, broken: false, ended: false, retry_at });
    }

    /// The session with a neighbour is over; a new one `continues` it if the neighbour is the same process.
    pub(in crate::router) fn on_wave_session_down(&mut self, neighbour: &NodeId, continues: bool) {
        if continues
            && self.echoes.waits_for(self.id(), neighbour)
            && let Some(attempt) = &mut self.convergence.attempt
        {
            attempt.broken = true;
        }
        self.echoes.on_gone(neighbour);
    }

    /// All have answered that are waited for. Called again whenever the paths were computed anew, since what this node
    /// can reach may turn out to be just what has answered.
    pub(in crate::router) fn judge(&mut self, children: Tally, now: Instant) {
        let reach = self.reach();
        let retry_after = |convergence: &Convergence, took: Duration| convergence.retry_after(took);
        let Some(attempt) = &self.convergence.attempt else { return self.end_own_wave() };
        let took = now.saturating_duration_since(attempt.started);
        let tally = children.with(Tally::of([self.id().addr()]));
        if !attempt.broken && matches(&attempt.before, &reach.nodes, tally) {
            let started = attempt.started;
            if !attempt.ended {
                self.convergence.took = Some(took);
            }
            self.convergence.failures = 0;
            self.echoes.forget(&self.config.id);
            self.succeed(tally.count, |open| open.asked_at <= started);
        } else if !attempt.ended {
            let at = (attempt.started + retry_after(&self.convergence, took)).max(now + RETRY.0);
            if let Some(attempt) = &mut self.convergence.attempt {
                (attempt.ended, attempt.retry_at) = (true, at);
            }
        }
    }

    /// Ends the requests whose time is over.
    pub(in crate::router) fn end_requests(&mut self, now: Instant) {
        if self.convergence.those(|open| open.deadline <= now).is_empty() {
            return;
        }
        self.fail(|open| open.deadline <= now);
    }

    /// This node leaves, and nobody is to have a route to it.
    pub(in crate::router) fn end_all_requests(&mut self) {
        self.fail(|_| true);
    }

    /// When something is to be done about requests.
    pub(in crate::router) fn next_converge(&self, now: Instant) -> Option<Instant> {
        let deadline = self.convergence.requests.values().map(|open| open.deadline).min();
        earliest([deadline, self.next_wave(now)])
    }

    /// When the next wave is due. Before a node has synced with a neighbour, nobody would hear of it.
    fn next_wave(&self, now: Instant) -> Option<Instant> {
        let heard = self.neighbours.routers().any(|(_, session)| session.takes_waves());
        if heard && self.may_speak() { self.convergence.next_wave(now) } else { None }
    }

    fn is_alone(&self) -> bool {
        let mut sessions = self.neighbours.routers();
        !sessions.any(|(_, s)| s.kind == NeighbourKind::Full && s.state != NeighbourState::Leaving)
    }

    fn succeed(&mut self, count: u64, which: impl Fn(&Open) -> bool) {
        let requests = self.convergence.those(which);
        self.convergence.close(&requests);
        for request in requests {
            self.event(Event::Converged { request, count });
        }
        // Those that came later want a wave of their own.
        self.convergence.attempt = None;
    }

    fn fail(&mut self, which: impl Fn(&Open) -> bool) {
        let requests = self.convergence.those(which);
        if requests.is_empty() {
            return;
        }
        let expected = self.reach().nodes.len() as u64;
        self.note_best();
        let count = self.convergence.best.min(expected);
        self.convergence.close(&requests);
        self.end_own_wave();
        for request in requests {
            self.counters.partials += 1;
            self.event(Event::Partial { request, count, expected });
        }
    }

    fn note_best(&mut self) {
        let answered = self.echoes.answered(self.id()).count.saturating_add(1);
        self.convergence.best = self.convergence.best.max(answered);
    }

    /// Nobody waits for the wave any more.
    fn end_own_wave(&mut self) {
        if self.convergence.requests.is_empty() {
            self.echoes.forget(&self.config.id);
        }
    }

    /// What this node can reach, itself included, over the links that are up at its end: where a neighbour is to list a new link
    /// yet, it counts. Stubs do not, and neither does what lies behind nodes that refuse transit.
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
            level
                .extend(graph.number(neighbour).filter(|&n| !std::mem::replace(&mut seen[n as usize], true)));
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

/// Whether those that answered are all that could be reached both before and now, and none that could be reached neither
/// before nor now.
fn matches(before: &BTreeSet<NodeAddr>, now: &BTreeSet<NodeAddr>, answered: Tally) -> bool {
    let differing: Vec<Tally> = before.symmetric_difference(now).map(|&addr| Tally::of([addr])).collect();
    if differing.len() > MAX_DIFFERING {
        return [before, now].into_iter().any(|set| Tally::of(set.iter().copied()) == answered);
    }
    let common = Tally::of(before.intersection(now).copied());
    (0..1_u32 << differing.len()).any(|choice| {
        let chosen = differing.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
        chosen.fold(common, |sum, (_, &one)| sum.with(one)) == answered
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_came_or_went_may_have_answered_and_all_others_must() {
        let (before, now) = (set(0..20), set(3..23));
        for (answered, expected) in [
            (3..20, true),
            (0..20, true),
            (3..23, true),
            (2..21, true),
            (4..20, false),
            (3..19, false),
            (0..24, false),
        ] {
            assert_eq!(matches(&before, &now, tally(answered.clone())), expected, "{answered:?}");
        }
        let odd = Tally::of(set(3..20)).with(Tally::of(set(21..22)));
        assert!(matches(&before, &now, odd));
    }

    #[test]
    fn where_many_came_or_went_only_all_before_or_all_now_will_do() {
        let (before, now) = (set(0..20), set(6..26));
        for (answered, expected) in
            [(0..20, true), (6..26, true), (6..20, false), (0..26, false), (1..20, false)]
        {
            assert_eq!(matches(&before, &now, tally(answered.clone())), expected, "{answered:?}");
        }
    }

    #[test]
    fn a_sum_that_matches_for_another_number_of_nodes_does_not_count() {
        let nodes = set(0..5);
        let mut answered = Tally::of(nodes.clone());
        assert!(matches(&nodes, &nodes, answered));
        answered.count = u64::MAX;
        assert!(!matches(&nodes, &nodes, answered));
        assert_eq!(answered.with(answered).count, u64::MAX);
    }

    fn set(nodes: std::ops::Range<u32>) -> BTreeSet<NodeAddr> {
        nodes.map(|n| NodeId::try_from(format!("n{n}").as_str()).unwrap().addr()).collect()
    }

    fn tally(nodes: std::ops::Range<u32>) -> Tally {
        Tally::of(set(nodes))
    }
}
