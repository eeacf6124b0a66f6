//! Who may start next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{Directive, NodeId};
use crate::work::unit::key::UnitKey;

/// The accepted units that wait to be started: a queue for each directive, with a turn for each
/// submitter.
///
/// A submitter with a thousand units delays one with a single unit by one unit at most. Units of
/// one submitter and directive start in the order in which they were accepted.
#[derive(Debug, Default)]
pub(crate) struct StartQueue {
    directives: BTreeMap<Directive, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    running: BTreeSet<UnitKey>,
    by_submitter: BTreeMap<NodeId, VecDeque<UnitKey>>,
    /// The submitters with waiting units, in the order of their turns.
    turns: VecDeque<NodeId>,
}

impl StartQueue {
    /// Lets a unit wait. One that waits or runs already keeps its place.
    pub(crate) fn enqueue(&mut self, directive: &Directive, key: UnitKey) {
        let waiting = self.directives.entry(directive.clone()).or_default();
        if waiting.running.contains(&key) {
            return;
        }
        let units = waiting.by_submitter.entry(key.submitter.clone()).or_default();
        if units.contains(&key) {
            return;
        }
        if units.is_empty() {
            waiting.turns.push_back(key.submitter.clone());
        }
        units.push_back(key);
    }

    /// The next unit of this directive, which counts as running from now on. `None` if none waits,
    /// or if `max_running` run already.
    pub(crate) fn next(&mut self, directive: &Directive, max_running: usize) -> Option<UnitKey> {
        let waiting = self.directives.get_mut(directive)?;
        if waiting.running.len() >= max_running {
            return None;
        }
        let submitter = waiting.turns.pop_front()?;
        let units = waiting.by_submitter.get_mut(&submitter)?;
        let key = units.pop_front()?;
        if units.is_empty() {
            waiting.by_submitter.remove(&submitter);
        } else {
            waiting.turns.push_back(submitter);
        }
        waiting.running.insert(key.clone());
        Some(key)
    }

    /// Counts a unit as running that was started before a restart.
    pub(crate) fn resume(&mut self, directive: &Directive, key: UnitKey) {
        self.directives.entry(directive.clone()).or_default().running.insert(key);
    }

    /// Forgets a unit that has ended, or waits no longer.
    pub(crate) fn remove(&mut self, directive: &Directive, key: &UnitKey) {
        let Some(waiting) = self.directives.get_mut(directive) else { return };
        waiting.running.remove(key);
        if let Some(units) = waiting.by_submitter.get_mut(&key.submitter) {
            units.retain(|unit| unit != key);
            if units.is_empty() {
                waiting.by_submitter.remove(&key.submitter);
                waiting.turns.retain(|submitter| *submitter != key.submitter);
            }
        }
        if waiting.running.is_empty() && waiting.by_submitter.is_empty() {
            self.directives.remove(directive);
        }
    }

    /// How many units of this directive run, and how many wait.
    #[cfg(test)]
    pub(crate) fn counts(&self, directive: &Directive) -> (usize, usize) {
        self.directives.get(directive).map_or((0, 0), |waiting| {
            (waiting.running.len(), waiting.by_submitter.values().map(VecDeque::len).sum())
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(submitter: &str, n: u128) -> UnitKey {
        UnitKey::new(&submitter.parse().unwrap(), Uuid::from_u128(n))
    }

    fn directive() -> Directive {
        "a:b".parse().unwrap()
    }

    fn order(queue: &mut StartQueue, max_running: usize) -> Vec<UnitKey> {
        std::iter::from_fn(|| queue.next(&directive(), max_running)).collect()
    }

    #[test]
    fn submitters_take_turns_and_each_keeps_its_order() {
        let mut queue = StartQueue::default();
        for n in 0..3 {
            queue.enqueue(&directive(), key("many", n));
        }
        queue.enqueue(&directive(), key("one", 9));
        let expected = [key("many", 0), key("one", 9), key("many", 1), key("many", 2)];
        assert_eq!(order(&mut queue, usize::MAX), expected);
    }

    #[test]
    fn the_end_of_a_unit_makes_room_for_the_next() {
        let mut queue = StartQueue::default();
        for n in 0..4 {
            queue.enqueue(&directive(), key("s", n));
        }
        assert_eq!(order(&mut queue, 2).len(), 2);
        queue.remove(&directive(), &key("s", 0));
        assert_eq!(order(&mut queue, 2), [key("s", 2)]);
        assert_eq!(queue.counts(&directive()), (2, 1));
    }

    #[test]
    fn a_unit_that_waits_or_runs_is_not_queued_twice() {
        let mut queue = StartQueue::default();
        queue.enqueue(&directive(), key("s", 0));
        queue.enqueue(&directive(), key("s", 0));
        assert_eq!(order(&mut queue, 9), [key("s", 0)]);
        queue.enqueue(&directive(), key("s", 0));
        assert_eq!(order(&mut queue, 9), []);
    }

    #[test]
    fn a_removed_unit_leaves_nothing_behind() {
        let mut queue = StartQueue::default();
        queue.enqueue(&directive(), key("s", 0));
        queue.resume(&directive(), key("s", 1));
        queue.remove(&directive(), &key("s", 0));
        queue.remove(&directive(), &key("s", 1));
        assert!(queue.directives.is_empty());
    }
}
