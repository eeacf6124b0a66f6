//! How much verification a neighbour may cause with records that turn out not to be trusted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::router::neighbour::throttle::Bucket;

/// Records of one neighbour that may turn out not to be trusted in a row. Each costs a search for a
/// path to a root, up to half a millisecond for a chain of five certificates.
const BURST: u32 = 256;

/// The interval after which one more is allowed: 20 a second are about 1 % of a core.
const EVERY: Duration = Duration::from_millis(50);

/// Maximum number of neighbours whose budget is not full; beyond that the one that refills first is
/// forgotten.
const MAX_PEERS: usize = 1_024;

/// The budgets of all neighbours that have used theirs in the last seconds.
///
/// A budget belongs to the neighbour's id, not to its session, so a reconnect does not renew it.
/// While it is used up, what the neighbour sends is not verified but pulled again later, and nobody
/// is blamed.
#[derive(Debug, Default)]
pub(crate) struct DistrustBudgets(BTreeMap<NodeId, Bucket>);

impl DistrustBudgets {
    /// Whether a record of this neighbour may be verified now.
    pub(crate) fn allows(&self, neighbour: &NodeId, now: Instant) -> bool {
        self.0.get(neighbour).is_none_or(|bucket| bucket.ready_at(now) <= now)
    }

    /// A record of this neighbour was verified and is not trusted.
    pub(crate) fn spend(&mut self, neighbour: &NodeId, now: Instant) {
        if let Some(bucket) = self.0.get_mut(neighbour) {
            return bucket.take(now);
        }
        self.make_room(now);
        let mut bucket = Bucket::new(BURST, EVERY, now);
        bucket.take(now);
        self.0.insert(neighbour.clone(), bucket);
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < MAX_PEERS {
            return;
        }
        self.0.retain(|_, bucket| bucket.full_at() > now);
        if self.0.len() >= MAX_PEERS {
            let first =
                self.0.iter().min_by_key(|(_, bucket)| bucket.full_at()).map(|(id, _)| id.clone());
            first.and_then(|id| self.0.remove(&id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::id;

    #[test]
    fn a_budget_is_spent_and_refills_with_time_alone() {
        let (mut budgets, start) = (DistrustBudgets::default(), start());
        for _ in 0..BURST {
            assert!(budgets.allows(&id("n"), start));
            budgets.spend(&id("n"), start);
        }
        assert!(!budgets.allows(&id("n"), start) && budgets.allows(&id("other"), start));
        assert!(budgets.allows(&id("n"), start + EVERY));
        budgets.spend(&id("n"), start + EVERY);
        assert!(!budgets.allows(&id("n"), start + EVERY));
    }

    #[test]
    fn of_many_spenders_the_ones_that_spent_least_are_forgotten() {
        let (mut budgets, start) = (DistrustBudgets::default(), start());
        (0..BURST).for_each(|_| budgets.spend(&id("liar"), start));
        for nth in 0..3 * MAX_PEERS {
            budgets.spend(&id(&format!("n{nth}")), start);
        }
        assert_eq!(budgets.0.len(), MAX_PEERS);
        assert!(!budgets.allows(&id("liar"), start));
        budgets.spend(&id("late"), start + BURST * EVERY);
        assert_eq!(budgets.0.len(), 1, "full budgets need no memory");
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn start() -> Instant {
        Instant::now()
    }
}
