//! The names that rules allow, so that one is found without trying every rule.
//!
//! Names without wildcards are sorted. Patterns are sorted by what their names begin with, or, if
//! that is longer, end with, and found by narrowing the range byte by byte:
//!
//! ```text
//!   name "eu-7"      patterns by prefix     after "e"       after "eu"     after "eu-"
//!                    "" ap- eu- eu-7* us-   eu- eu-7*       eu- eu-7*      eu- ◀ tried, then eu-7*
//! ```

use std::sync::Arc;

use super::glob::Glob;

/// The number of a rule.
pub(super) type RuleIndex = u32;

/// The names of one verb that a peer is allowed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// The first rule that allows every name.
    every: Option<RuleIndex>,
    exact: Vec<(Arc<str>, RuleIndex)>,
    by_prefix: Patterns,
    /// By their reversed suffixes.
    by_suffix: Patterns,
}

/// Patterns sorted by a literal that their names begin with.
#[derive(Clone, Debug, Default)]
struct Patterns(Vec<(Box<[u8]>, Glob, RuleIndex)>);

impl Index {
    pub(super) fn add(&mut self, name: &Glob, rule: RuleIndex) {
        if name.is_any() {
            self.every = Some(self.every.map_or(rule, |first| first.min(rule)));
        } else if name.is_exact() {
            self.exact.push((name.text(), rule));
        } else if name.prefix().len() >= name.suffix().len() {
            self.by_prefix.0.push((name.prefix().as_bytes().into(), name.clone(), rule));
        } else {
            let reversed: Box<[u8]> = name.suffix().bytes().rev().collect();
            self.by_suffix.0.push((reversed, name.clone(), rule));
        }
    }

    /// Makes the index ready after the last name was added.
    pub(super) fn finish(&mut self) {
        self.exact.sort();
        // Of a name that several rules allow, the first rule stays.
        self.exact.dedup_by(|second, first| second.0 == first.0);
        self.by_prefix.finish();
        self.by_suffix.finish();
    }

    /// Whether nothing is allowed.
    pub(super) fn is_empty(&self) -> bool {
        self.every.is_none()
            && self.exact.is_empty()
            && self.by_prefix.0.is_empty()
            && self.by_suffix.0.is_empty()
    }

    /// The first rule that allows a name.
    pub(super) fn find(&self, name: &str) -> Option<RuleIndex> {
        let exact = self
            .exact
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
            .ok()
            .map(|at| self.exact[at].1);
        let prefix = self.by_prefix.find(name, name.bytes());
        let suffix = self.by_suffix.find(name, name.bytes().rev());
        [self.every, exact, prefix, suffix].into_iter().flatten().min()
    }
}

impl Patterns {
    fn finish(&mut self) {
        self.0.sort();
        self.0.dedup_by(|second, first| second.1 == first.1);
    }

    /// The first rule with a pattern that the name matches; `bytes` are the name from the side of
    /// the literals.
    fn find(&self, name: &str, bytes: impl Iterator<Item = u8>) -> Option<RuleIndex> {
        let mut range = &self.0[..];
        let mut found: Option<RuleIndex> = None;
        let mut bytes = bytes.enumerate();
        loop {
            // Those whose literal has been read to its end come first.
            let read = bytes.next();
            let at = read.map_or(name.len(), |(at, _)| at);
            let ended = range.partition_point(|(literal, ..)| literal.len() <= at);
            for (_, glob, rule) in &range[..ended] {
                if found.is_none_or(|found| *rule < found) && glob.matches(name) {
                    found = Some(*rule);
                }
            }
            let (Some((at, byte)), false) = (read, ended == range.len()) else { return found };
            range = &range[ended..];
            // All of them go on with this byte: mostly so, within what they have in common.
            if range[0].0[at] == byte && range[range.len() - 1].0[at] == byte {
                continue;
            }
            let from = range.partition_point(|(literal, ..)| literal[at] < byte);
            let to = range.partition_point(|(literal, ..)| literal[at] <= byte);
            range = &range[from..to];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Random;

    #[test]
    fn an_index_finds_what_trying_every_pattern_finds() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let pattern = |random: &mut Random| -> String {
                (0..=random.below(5)).map(|_| *random.choice(&['a', 'b', 'c', '*', '?'])).collect()
            };
            let patterns: Vec<_> = (0..random.below(30))
                .map(|_| Glob::parse(&pattern(&mut random), 64, |_| true).unwrap())
                .collect();
            let mut index = Index::default();
            for (rule, glob) in patterns.iter().enumerate() {
                index.add(glob, rule as RuleIndex);
            }
            index.finish();
            assert_eq!(index.is_empty(), patterns.is_empty());
            for _ in 0..100 {
                let name: String =
                    (0..random.below(6)).map(|_| *random.choice(&['a', 'b', 'c'])).collect();
                let first = patterns.iter().position(|glob| glob.matches(&name));
                let found = index.find(&name).map(|rule| rule as usize);
                assert_eq!(found, first, "seed {seed}: {name:?} in {patterns:?}");
            }
        }
    }
}
