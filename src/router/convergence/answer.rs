//! The answer to a record with the echo flag.

use crate::id::{NodeAddr, NodeId, Version};

/// The answer of a node to a record with the echo flag, once all that are below it have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Whose record.
    pub origin: NodeId,
    /// Which of its records.
    pub version: Version,
    /// How many nodes have installed the route to the origin, on the sender's side of the wave.
    pub count: u64,
    /// The sum modulo 2^64 of their addresses, read as big-endian numbers.
    pub sum: u64,
}

/// Nodes that have installed a route: how many, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Tally {
    pub(crate) fn of(nodes: impl IntoIterator<Item = NodeAddr>) -> Self {
        let one = |addr: NodeAddr| Self { count: 1, sum: u64::from_be_bytes(addr.0) };
        nodes.into_iter().map(one).fold(Self::default(), Self::with)
    }

    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            sum: self.sum.wrapping_add(other.sum),
        }
    }
}
