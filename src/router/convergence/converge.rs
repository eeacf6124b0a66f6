//! Knowing that the mesh includes this node: requests, the waves made for them, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::id::NodeAddr;
use crate::router::config::{Limits, Timers};
use crate::router::convergence::answer::Tally;
use crate::router::convergence::request::{ConvergeError, ConvergeRequest};
use crate::router::neighbour::throttle::Bucket;

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
    /// Waves in a row that did not reach every node.
    failures: u32,
    /// Duration of the last wave that reached every node.
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
    /// The stream to a neighbour that had not answered was replaced: what it would have said is
    /// lost, though it is there.
    broken: bool,
    ended: bool,
    /// When the next wave begins, if this one does not reach every node before.
    retry_at: Instant,
}

/// What this node can reach, itself included.
pub(super) struct Reach {
    pub(super) nodes: BTreeSet<NodeAddr>,
    /// Links on the way to the farthest node.
    pub(super) depth: u32,
}

/// What the answers to a wave of this node mean.
pub(super) enum Judgement {
    /// No request waits for the wave.
    Unwanted,
    /// It reached every node, and these requests have their answer.
    Reached { requests: Vec<ConvergeRequest>, count: u64 },
    /// It missed at least one node.
    Missed,
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

    /// Whether the next record is to ask for a wave. All do while a request is open, so that news
    /// takes it along.
    pub(crate) fn wants_wave(&self) -> bool {
        !self.requests.is_empty()
    }

    /// A record was made without a wave.
    pub(crate) fn on_plain_record(&mut self) {
        self.asked = false;
        self.attempt = None;
    }

    /// Adds a request.
    pub(super) fn open(
        &mut self,
        deadline: Instant,
        now: Instant,
    ) -> Result<ConvergeRequest, ConvergeError> {
        let max = Limits::MAX_CONVERGE_REQUESTS;
        if self.requests.len() >= max {
            return Err(ConvergeError::TooMany { max });
        }
        let request = ConvergeRequest(self.next);
        self.next += 1;
        self.requests.insert(request, Open { asked_at: now, deadline });
        Ok(request)
    }

    /// Removes requests, and forgets the wave with the last one.
    pub(super) fn close(&mut self, requests: &[ConvergeRequest]) {
        for request in requests {
            self.requests.remove(request);
        }
        if self.requests.is_empty() {
            (self.attempt, self.failures, self.best) = (None, 0, 0);
        }
    }

    /// All open requests.
    pub(super) fn all(&self) -> Vec<ConvergeRequest> {
        self.requests.keys().copied().collect()
    }

    /// The requests whose deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> Vec<ConvergeRequest> {
        self.requests
            .iter()
            .filter(|(_, open)| open.deadline <= now)
            .map(|(request, _)| *request)
            .collect()
    }

    /// The next deadline of a request.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.requests.values().map(|open| open.deadline).min()
    }

    /// When the next wave is due: at once if there is none that began after the oldest request.
    pub(super) fn next_wave(&self, now: Instant) -> Option<Instant> {
        let oldest = self.requests.values().map(|open| open.asked_at).min()?;
        let due = match &self.attempt {
            _ if self.asked => return None,
            None => now,
            Some(attempt) if attempt.started < oldest => now,
            Some(attempt) => attempt.retry_at,
        };
        Some(due.max(self.pace.ready_at(now)))
    }

    /// A record that asks for a wave is about to be made, because the last wave failed.
    pub(super) fn on_asked(&mut self, now: Instant) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.retry_at <= now) {
            self.failures += 1;
        }
        self.asked = true;
        self.pace.take(now);
    }

    /// A record that asks for a wave was sent.
    pub(super) fn on_wave(&mut self, reach: Reach, now: Instant) {
        let took = self.took.unwrap_or(GUESS_PER_LINK * (reach.depth + 1));
        let retry_at = now + self.retry_after(took);
        self.asked = false;
        self.attempt = Some(Attempt {
            started: now,
            before: reach.nodes,
            broken: false,
            ended: false,
            retry_at,
        });
    }

    /// The answer of a neighbour to the wave is lost, though the neighbour is still there.
    pub(super) fn on_broken(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.broken = true;
        }
    }

    /// So many nodes, this one included, have answered the wave so far.
    pub(super) fn on_answered(&mut self, count: u64) -> u64 {
        self.best = self.best.max(count);
        self.best
    }

    /// All neighbours that were waited for have answered: `tally` is the sum, this node included.
    pub(super) fn judge(&mut self, tally: Tally, reach: &Reach, now: Instant) -> Judgement {
        let Some(attempt) = &self.attempt else { return Judgement::Unwanted };
        let started = attempt.started;
        let took = now.saturating_duration_since(started);
        if !attempt.broken && matches(&attempt.before, &reach.nodes, tally) {
            if !attempt.ended {
                self.took = Some(took);
            }
            self.failures = 0;
            let asked_before = self.requests.iter().filter(|(_, open)| open.asked_at <= started);
            let requests = asked_before.map(|(request, _)| *request).collect();
            return Judgement::Reached { requests, count: tally.count };
        }
        let retry_at = (started + self.retry_after(took)).max(now + RETRY.0);
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.ended) {
            (attempt.ended, attempt.retry_at) = (true, retry_at);
        }
        Judgement::Missed
    }

    /// These requests are answered. Later ones need a wave of their own.
    pub(super) fn succeed(&mut self, requests: &[ConvergeRequest]) {
        self.close(requests);
        self.attempt = None;
    }

    fn retry_after(&self, took: Duration) -> Duration {
        took.saturating_mul(2 << self.failures.min(16)).clamp(RETRY.0, RETRY.1)
    }
}

/// Whether those that answered are all that could be reached both before and now, and none that
/// could be reached neither before nor now.
fn matches(before: &BTreeSet<NodeAddr>, now: &BTreeSet<NodeAddr>, answered: Tally) -> bool {
    let differing: Vec<Tally> =
        before.symmetric_difference(now).map(|&addr| Tally::of([addr])).collect();
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
    use crate::id::NodeId;

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
