//! A budget that sources share fairly: no source can take what another needs.
//!
//! A source is a path from broad to narrow, such as a prefix of addresses, a longer prefix, and the
//! address. A source may use every place that no other needs. When all are taken, the next to
//! enter displaces the oldest entry of the source that holds most, on each level of the path in
//! turn:
//!
//! ```text
//!   broadest key that holds most ─▶ within it, the narrower key that holds most ─▶ … ─▶ its oldest entry
//! ```
//!
//! So a source that holds less than an even part of the places never loses one: with 512 places and
//! three prefixes, each is sure of 170, whatever the others do. Entries are found by scanning,
//! since a budget has some hundred places.

use std::collections::BTreeMap;

/// One key per level, from broad to narrow. A key is compared with others that have the same
/// broader keys only.
pub(crate) type Source<const LEVELS: usize> = [u128; LEVELS];

/// Places, and who holds them.
#[derive(Debug)]
pub(crate) struct Budget<const LEVELS: usize> {
    places: usize,
    next: u64,
    /// By order of arrival.
    held: BTreeMap<u64, Source<LEVELS>>,
}

impl<const LEVELS: usize> Budget<LEVELS> {
    /// A budget with this many places, of which there is at least one.
    pub(crate) const fn new(places: usize) -> Self {
        Self { places, next: 0, held: BTreeMap::new() }
    }

    /// Takes a place. Returns its number, which is never used again, and the number of the entry
    /// that was displaced.
    pub(crate) fn enter(&mut self, source: Source<LEVELS>) -> (u64, Option<u64>) {
        let displaced = (self.held.len() >= self.places).then(|| self.excess(source)).flatten();
        if let Some(displaced) = displaced {
            self.held.remove(&displaced);
        }
        let number = self.next;
        self.next += 1;
        self.held.insert(number, source);
        (number, displaced)
    }

    /// Frees a place. Nothing happens if its entry was displaced.
    pub(crate) fn leave(&mut self, number: u64) {
        self.held.remove(&number);
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.held.len()
    }

    /// Places that a source holds on each level.
    pub(crate) fn held_by(&self, source: &Source<LEVELS>) -> [usize; LEVELS] {
        let mut counts = [0; LEVELS];
        for held in self.held.values() {
            let common = held.iter().zip(source).take_while(|(a, b)| a == b).count();
            counts[..common].iter_mut().for_each(|count| *count += 1);
        }
        counts
    }

    /// The entry to displace in favour of `newcomer`, which counts as if it had its place already.
    fn excess(&self, newcomer: Source<LEVELS>) -> Option<u64> {
        let mut entries: Vec<(u64, &Source<LEVELS>)> =
            self.held.iter().map(|(n, source)| (*n, source)).collect();
        for level in 0..LEVELS {
            let mut holders: BTreeMap<u128, (usize, u64)> = BTreeMap::new();
            for (number, source) in &entries {
                holders.entry(source[level]).or_insert((0, *number)).0 += 1;
            }
            // The newcomer adds to the keys that it shares with the holders chosen so far.
            let shared =
                entries.first().is_some_and(|(_, held)| held[..level] == newcomer[..level]);
            if let Some(own) = holders.get_mut(&newcomer[level]).filter(|_| shared) {
                own.0 += 1;
            }
            // Of equal holders, the one with the oldest entry.
            let most = holders
                .iter()
                .max_by_key(|(_, (count, oldest))| (*count, std::cmp::Reverse(*oldest)));
            let key = *most?.0;
            entries.retain(|(_, source)| source[level] == key);
        }
        entries.first().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SplitMix64;

    #[test]
    fn one_source_may_use_all_places_and_then_displaces_its_oldest() {
        let mut budget = Budget::<1>::new(3);
        let numbers: Vec<_> = (0..5).map(|_| budget.enter([7])).collect();
        assert_eq!(numbers, [(0, None), (1, None), (2, None), (3, Some(0)), (4, Some(1))]);
        assert_eq!(budget.taken(), 3);
    }

    #[test]
    fn a_newcomer_displaces_the_oldest_of_the_one_that_holds_most() {
        let mut budget = Budget::<1>::new(4);
        for source in [1, 2, 2, 2] {
            budget.enter([source]);
        }
        assert_eq!(budget.enter([3]).1, Some(1));
        // One each of 1 and 3, two of 2.
        assert_eq!(budget.enter([4]).1, Some(2));
        budget.leave(3);
        assert_eq!(budget.enter([4]).1, None);
    }

    #[test]
    fn narrow_keys_share_the_part_of_the_broad_one() {
        let mut budget = Budget::<2>::new(6);
        // One prefix with an attacker and a bystander, another with three addresses.
        for source in [[1, 10], [1, 11], [1, 11], [1, 11], [2, 20], [2, 21]] {
            budget.enter(source);
        }
        assert_eq!(budget.held_by(&[1, 11]), [4, 3]);
        assert_eq!(budget.held_by(&[1, 12]), [4, 0]);
        assert_eq!(budget.enter([2, 22]).1, Some(1), "not the bystander's, which is older");
        assert_eq!(budget.enter([1, 12]).1, Some(2));
    }

    #[test]
    fn the_same_narrow_key_below_two_broad_ones_is_two_sources() {
        let mut budget = Budget::<2>::new(4);
        for source in [[1, 5], [2, 5], [2, 6], [2, 6]] {
            budget.enter(source);
        }
        assert_eq!(budget.held_by(&[1, 5]), [1, 1]);
        assert_eq!(budget.enter([1, 5]).1, Some(2));
    }

    /// Against random floods: a source that holds less than an even part of the places keeps all of
    /// them.
    #[test]
    fn nobody_loses_a_place_to_those_who_hold_more() {
        for seed in 0..200_u64 {
            let mut rng = SplitMix64::new(seed);
            let places = 4 + rng.below(29) as usize;
            let broad = 1 + rng.below(5);
            let mut budget = Budget::<2>::new(places);
            let mut held: Vec<(u64, [u128; 2])> = Vec::new();
            for step in 0..400 {
                if rng.one_in(4) && !held.is_empty() {
                    let (number, _) = held.swap_remove(rng.below(held.len() as u64) as usize);
                    budget.leave(number);
                    continue;
                }
                // The first prefix is the flood.
                let prefix = if rng.one_in(2) { 0 } else { rng.below(broad) };
                let source = [u128::from(prefix), u128::from(rng.below(4))];
                let (number, displaced) = budget.enter(source);
                held.push((number, source));
                if let Some(displaced) = displaced {
                    let at = held
                        .iter()
                        .position(|(number, _)| *number == displaced)
                        .expect("it was held");
                    let count =
                        |prefix: u128| held.iter().filter(|(_, held)| held[0] == prefix).count();
                    let victim = held[at].1;
                    assert!(
                        count(victim[0]) >= (0..broad).map(|p| count(p.into())).max().unwrap(),
                        "{seed}/{step}"
                    );
                    assert!(
                        count(victim[0]) * broad as usize > places,
                        "{seed}/{step}: less than an even part"
                    );
                    assert_ne!(displaced, number, "{seed}/{step}: the newcomer");
                    held.remove(at);
                }
                assert!(budget.taken() <= places && budget.taken() == held.len(), "{seed}/{step}");
            }
        }
    }
}
