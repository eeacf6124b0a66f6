//! The units of one end, by key.
//!
//! A unit that has not ended needs a lock, a journal and a channel for those who watch it, which
//! together take some kilobytes. Most units that a node keeps have ended, and nobody looks at them:
//! the table replaces each of these by a record in little memory, and rebuilds the unit from the
//! record when somebody asks for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

/// How many units are listed before the table is unlocked for others.
pub(super) const PAGE: usize = 256;

/// A unit that can be kept in little memory once it has ended.
pub(super) trait Unit: Sized {
    type Key: Clone + Ord + Debug;
    /// What all units of a table have in common.
    type Home: Debug;
    /// What is kept of a unit that has ended.
    type Ended: Debug;

    /// What is to be kept. `None` unless the unit has ended, and nobody watches or changes it.
    fn ended(&self) -> Option<Self::Ended>;

    /// The unit as it was.
    fn revived(home: &Self::Home, key: &Self::Key, ended: Self::Ended) -> Self;
}

/// The units of one end, by key.
#[derive(Debug)]
pub(super) struct UnitTable<U: Unit> {
    home: U::Home,
    units: BTreeMap<U::Key, Held<U>>,
    /// Those that have ended and are not kept as records yet.
    retiring: Vec<U::Key>,
}

/// How a unit is held. A unit has a record, or is live: never both.
#[derive(Debug)]
pub(super) enum Held<U: Unit> {
    Live(Arc<U>),
    Ended(Box<U::Ended>),
}

impl<U: Unit> UnitTable<U> {
    pub(super) fn new(home: U::Home) -> Self {
        Self { home, units: BTreeMap::new(), retiring: Vec::new() }
    }

    pub(super) fn home(&self) -> &U::Home {
        &self.home
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    pub(super) fn insert(&mut self, key: U::Key, unit: Arc<U>) {
        self.units.insert(key, Held::Live(unit));
    }

    /// Adds a unit that has ended.
    pub(super) fn insert_ended(&mut self, key: U::Key, ended: Box<U::Ended>) {
        self.units.insert(key, Held::Ended(ended));
    }

    pub(super) fn remove(&mut self, key: &U::Key) {
        self.units.remove(key);
    }

    /// A unit, which is rebuilt if there is only a record of it.
    pub(super) fn get(&mut self, key: &U::Key) -> Option<Arc<U>> {
        if let Held::Live(unit) = self.units.get(key)? {
            return Some(unit.clone());
        }
        let Some(Held::Ended(ended)) = self.units.remove(key) else { return None };
        let unit = Arc::new(U::revived(&self.home, key, *ended));
        self.insert(key.clone(), unit.clone());
        self.retiring.push(key.clone());
        Some(unit)
    }

    /// The units behind a key in the order of their keys, as they are held.
    pub(super) fn behind(&self, key: Bound<&U::Key>) -> impl Iterator<Item = (&U::Key, &Held<U>)> {
        self.units.range((key, Bound::Unbounded))
    }

    /// Lets a unit that has ended be replaced by a record.
    pub(super) fn retire(&mut self, key: &U::Key) {
        self.retiring.push(key.clone());
    }

    /// Replaces the units that have ended and that nobody else refers to by records. Returns how
    /// many were replaced, and how many are left for later.
    pub(super) fn sweep(&mut self) -> (usize, usize) {
        let mut retiring = std::mem::take(&mut self.retiring);
        retiring.sort_unstable();
        retiring.dedup();
        let before = retiring.len();
        retiring.retain(|key| {
            let Some(held) = self.units.get_mut(key) else { return false };
            let Held::Live(unit) = held else { return false };
            // References are handed out under the lock of this table alone.
            let ended = if Arc::strong_count(unit) == 1 { unit.ended() } else { None };
            let Some(ended) = ended else { return true };
            *held = Held::Ended(Box::new(ended));
            false
        });
        let left = retiring.len();
        self.retiring = retiring;
        (before - left, left)
    }

    /// How many units are records.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.units.values().filter(|held| matches!(held, Held::Ended(_))).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A unit with some text, which ends when it is told to.
    #[derive(Debug)]
    struct Job {
        text: String,
        over: AtomicBool,
    }

    impl Job {
        fn new(text: &str, over: bool) -> Arc<Self> {
            Arc::new(Self { text: text.to_owned(), over: over.into() })
        }
    }

    impl Unit for Job {
        type Key = u32;
        type Home = ();
        type Ended = String;

        fn ended(&self) -> Option<String> {
            self.over.load(Ordering::Relaxed).then(|| self.text.clone())
        }

        fn revived((): &(), _: &u32, text: String) -> Self {
            Self { text, over: true.into() }
        }
    }

    #[test]
    fn only_what_has_ended_and_is_not_used_becomes_a_record() {
        let mut table = UnitTable::new(());
        let held = Job::new("held", true);
        table.insert(1, held.clone());
        table.insert(2, Job::new("running", false));
        table.insert(3, Job::new("over", true));
        (1..=4).for_each(|key| table.retire(&key));
        assert_eq!((table.sweep(), table.records()), ((2, 2), 1));
        drop(held);
        assert_eq!((table.sweep(), table.records()), ((1, 1), 2));
        table.get(&2).unwrap().over.store(true, Ordering::Relaxed);
        assert_eq!((table.sweep(), table.records()), ((1, 0), 3));
    }

    #[test]
    fn a_record_becomes_one_unit_again_and_then_a_record() {
        let mut table = UnitTable::<Job>::new(());
        table.insert_ended(1, Box::new("one".to_owned()));
        let (unit, again) = (table.get(&1).unwrap(), table.get(&1).unwrap());
        assert!(Arc::ptr_eq(&unit, &again) && unit.text == "one");
        assert_eq!((table.sweep(), table.records()), ((0, 1), 0));
        drop((unit, again));
        assert_eq!((table.sweep(), table.records()), ((1, 0), 1));
        assert!(table.get(&2).is_none());
    }
}
