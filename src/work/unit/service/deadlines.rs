//! When units have to be looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::UnitClock;
use crate::sync::lock;
use crate::work::unit::machine::time::UnitTime;

/// The longest wait: the timer of the runtime has a bound.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// When units have to be looked at again: one time for each, and one task that waits for the
/// earliest.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    table: Mutex<Table<K>>,
    earlier: Notify,
}

#[derive(Debug)]
struct Table<K> {
    due: BTreeMap<K, UnitTime>,
    order: BTreeSet<(UnitTime, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        let table = Table { due: BTreeMap::new(), order: BTreeSet::new() };
        Self { table: Mutex::new(table), earlier: Notify::new() }
    }
}

impl<K: Clone + Ord> Deadlines<K> {
    /// Sets when a unit is due. `None` if it is not.
    pub(super) fn set(&self, key: &K, at: Option<UnitTime>) {
        let mut table = self.table();
        if table.due.get(key).copied() == at {
            return;
        }
        if let Some(before) = table.due.remove(key) {
            table.order.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            table.due.insert(key.clone(), at);
            table.order.insert((at, key.clone()));
            if table.order.first().is_some_and(|first| *first == (at, key.clone())) {
                self.earlier.notify_one();
            }
        }
    }

    /// Waits until units are due, removes them, and returns them. Cancel safe.
    pub(super) async fn next(&self, clock: &UnitClock) -> Vec<K> {
        loop {
            let now = clock.now();
            let (due, first) = self.take(now);
            if !due.is_empty() {
                return due;
            }
            let wait = first.map_or(MAX_WAIT, |at| now.until(at).min(MAX_WAIT));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// The units that are due, and when the next one is.
    fn take(&self, now: UnitTime) -> (Vec<K>, Option<UnitTime>) {
        let mut table = self.table();
        let mut due = Vec::new();
        while let Some((at, key)) = table.order.first().cloned() {
            if at > now {
                return (due, Some(at));
            }
            table.order.remove(&(at, key.clone()));
            table.due.remove(&key);
            due.push(key);
        }
        (due, None)
    }

    fn table(&self) -> MutexGuard<'_, Table<K>> {
        lock(&self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn units_are_due_in_order_and_a_changed_time_counts() {
        let clock = UnitClock::new(UnitTime(0));
        let deadlines = Deadlines::default();
        let start = clock.now();
        deadlines.set(&1, Some(start.plus(5_000)));
        deadlines.set(&2, Some(start.plus(3_000)));
        deadlines.set(&3, Some(start.plus(1_000)));
        deadlines.set(&3, None);
        assert_eq!(deadlines.next(&clock).await, [2]);
        assert_eq!(clock.now(), start.plus(3_000));
        deadlines.set(&1, Some(start.plus(4_000)));
        assert_eq!(deadlines.next(&clock).await, [1]);
        assert_eq!(clock.now(), start.plus(4_000));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_time_interrupts_the_wait() {
        let clock = UnitClock::new(UnitTime(0));
        let deadlines = Deadlines::default();
        let start = clock.now();
        deadlines.set(&1, Some(start.plus(60_000)));
        let set = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            deadlines.set(&2, Some(start.plus(2_000)));
        };
        let (due, ()) = tokio::join!(deadlines.next(&clock), set);
        assert_eq!((due, clock.now()), (vec![2], start.plus(2_000)));
    }
}
