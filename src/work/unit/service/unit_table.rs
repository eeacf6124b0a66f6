//! The units of one end, by key.
//!
//! A unit that has not ended needs a lock, a journal and a channel for those who watch it, which
//! together take some kilobytes. Most units that a node keeps have ended, and are not accessed: the
//! table replaces each of these by a record in little memory, and rebuilds the unit from the
//! record when somebody asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

/// How many units are listed or swept before the table is unlocked for others.
pub(super) const PAGE: usize = 256;

/// A unit that can be kept in little memory once it has ended.
pub(super) trait Unit: Sized {
    type Key: Clone + Ord + Debug;
    /// What all units of a table have in common.
    type Home: Debug;
    /// What is kept of a unit that has ended.
    type Ended: Debug;

    /// What is to be kept. `None` unless the unit has ended and is neither watched nor
    /// changed.
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
    retiring: BTreeSet<U::Key>,
}

/// How a unit is held. A unit has a record, or is live: never both.
#[derive(Debug)]
pub(super) enum Held<U: Unit> {
    Live(Arc<U>),
    Ended(Box<U::Ended>),
}

/// What a sweep has done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Swept<Key> {
    /// How many units were replaced by records, or are gone.
    pub(super) replaced: usize,
    /// How many are left in the whole table for later.
    pub(super) left: usize,
    /// The last key that was looked at. `None` if there was none.
    pub(super) last: Option<Key>,
}

impl<U: Unit> UnitTable<U> {
    pub(super) fn new(home: U::Home) -> Self {
        Self { home, units: BTreeMap::new(), retiring: BTreeSet::new() }
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
        self.retiring.insert(key.clone());
        Some(unit)
    }

    /// The units behind a key in the order of their keys, as they are held.
    pub(super) fn behind(&self, key: Bound<&U::Key>) -> impl Iterator<Item = (&U::Key, &Held<U>)> {
        self.units.range((key, Bound::Unbounded))
    }

    /// Lets a unit that has ended be replaced by a record.
    pub(super) fn retire(&mut self, key: &U::Key) {
        self.retiring.insert(key.clone());
    }

    /// Replaces units behind a key that have ended, and that have no other references, by records.
    /// Looks at [`PAGE`] units at most.
    pub(super) fn sweep(&mut self, behind: Bound<&U::Key>) -> Swept<U::Key> {
        let page = self.retiring.range((behind, Bound::Unbounded)).take(PAGE);
        let page: Vec<U::Key> = page.cloned().collect();
        let before = self.retiring.len();
        for key in &page {
            if self.retire_unused(key) {
                self.retiring.remove(key);
            }
        }
        let left = self.retiring.len();
        Swept { replaced: before - left, left, last: page.into_iter().next_back() }
    }

    /// Replaces a unit by a record. False if it has not ended or has other references.
    fn retire_unused(&mut self, key: &U::Key) -> bool {
        let Some(Held::Live(unit)) = self.units.get(key) else { return true };
        // References are handed out under the lock of this table alone.
        let ended = if Arc::strong_count(unit) == 1 { unit.ended() } else { None };
        let Some(ended) = ended else { return false };
        self.units.insert(key.clone(), Held::Ended(Box::new(ended)));
        true
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

    /// A unit with some text, which ends on request.
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

    fn sweep(table: &mut UnitTable<Job>) -> (usize, usize) {
        let swept = table.sweep(Bound::Unbounded);
        (swept.replaced, swept.left)
    }

    #[test]
    fn a_sweep_looks_at_one_page_and_goes_on_behind_it() {
        let mut table = UnitTable::new(());
        let held = Job::new("held", true);
        let page = u32::try_from(PAGE).unwrap();
        (0..page * 2).for_each(|key| table.insert(key, Job::new("over", true)));
        table.insert(3, held.clone());
        // Twice: a unit that is retired again is not counted again.
        (0..page * 2).chain(0..9).for_each(|key| table.retire(&key));
        let first = table.sweep(Bound::Unbounded);
        assert_eq!(first, Swept { replaced: PAGE - 1, left: PAGE + 1, last: Some(page - 1) });
        let second = table.sweep(Bound::Excluded(&(page - 1)));
        assert_eq!(second, Swept { replaced: PAGE, left: 1, last: Some(page * 2 - 1) });
        let third = table.sweep(Bound::Excluded(&(page * 2 - 1)));
        assert_eq!(third, Swept { replaced: 0, left: 1, last: None });
    }

    #[test]
    fn only_what_has_ended_and_is_not_used_becomes_a_record() {
        let mut table = UnitTable::new(());
        let held = Job::new("held", true);
        table.insert(1, held.clone());
        table.insert(2, Job::new("running", false));
        table.insert(3, Job::new("over", true));
        (1..=4).for_each(|key| table.retire(&key));
        assert_eq!((sweep(&mut table), table.records()), ((2, 2), 1));
        drop(held);
        assert_eq!((sweep(&mut table), table.records()), ((1, 1), 2));
        table.get(&2).unwrap().over.store(true, Ordering::Relaxed);
        assert_eq!((sweep(&mut table), table.records()), ((1, 0), 3));
    }

    #[test]
    fn a_record_becomes_one_unit_again_and_then_a_record() {
        let mut table = UnitTable::<Job>::new(());
        table.insert_ended(1, Box::new("one".to_owned()));
        let (unit, again) = (table.get(&1).unwrap(), table.get(&1).unwrap());
        assert!(Arc::ptr_eq(&unit, &again) && unit.text == "one");
        assert_eq!((sweep(&mut table), table.records()), ((0, 1), 0));
        drop((unit, again));
        assert_eq!((sweep(&mut table), table.records()), ((1, 0), 1));
        assert!(table.get(&2).is_none());
    }
}
