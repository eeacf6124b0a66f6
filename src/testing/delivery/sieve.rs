//! Datagrams that a test loses on purpose, by their contents.

use crate::testing::spot::Spot;
use std::{collections::BTreeMap, fmt};

/// Decides whether a datagram is lost.
pub(in crate::testing) type Loses = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// What is lost between two hosts, by direction; at most one rule each.
#[derive(Default)]
pub(in crate::testing) struct Sieve {
    rules: BTreeMap<(Spot, Spot), Loses>,
}

impl Sieve {
    pub(in crate::testing) fn set(&mut self, from: Spot, to: Spot, loses: Option<Loses>) {
        match loses {
            Some(loses) => self.rules.insert((from, to), loses),
            None => self.rules.remove(&(from, to)),
        };
    }

    pub(in crate::testing) fn loses(&mut self, from: Spot, to: Spot, datagram: &[u8]) -> bool {
        self.rules.get_mut(&(from, to)).is_some_and(|loses| loses(datagram))
    }
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.rules.keys()).finish()
    }
}
