//! The nodes that stubs are attached to, by the numbers that quinn sees.

use std::collections::HashMap;

use crate::id::NodeAddr;
use crate::transport::overlay::MAX_ATTACHMENTS;

/// The nodes that peers of this process are attached to as stubs, each with a number that never
/// changes.
///
/// Only nodes that there is a route to get a number, so the table is bounded by the nodes of the
/// mesh and, over the life of the process, by [`MAX_ATTACHMENTS`]. Flows of stubs that are attached
/// to a node without a number use routes.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    numbers: HashMap<NodeAddr, u16>,
    nodes: Vec<NodeAddr>,
}

impl Attachments {
    /// The number of a node. A node without one gets one if `reachable` returns true and there is
    /// room.
    pub(super) fn number(
        &mut self,
        node: NodeAddr,
        reachable: impl FnOnce() -> bool,
    ) -> Option<u16> {
        if let Some(number) = self.numbers.get(&node) {
            return Some(*number);
        }
        let number =
            u16::try_from(self.nodes.len()).ok().filter(|number| *number < MAX_ATTACHMENTS)?;
        if !reachable() {
            return None;
        }
        self.nodes.push(node);
        self.numbers.insert(node, number);
        Some(number)
    }

    /// The node with a number.
    pub(super) fn node(&self, number: u16) -> Option<NodeAddr> {
        self.nodes.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_in_reach_get_numbers_that_stay_and_their_count_is_bounded() {
        let mut attachments = Attachments::default();
        let node = |n: u64| NodeAddr(n.to_be_bytes());
        assert_eq!(attachments.number(node(1), || false), None);
        assert_eq!(attachments.number(node(1), || true), Some(0));
        assert_eq!(attachments.number(node(1), || false), Some(0));
        assert_eq!((attachments.node(0), attachments.node(1)), (Some(node(1)), None));
        for n in 2..=u64::from(MAX_ATTACHMENTS) {
            assert!(attachments.number(node(n), || true).is_some());
        }
        assert_eq!(attachments.number(node(0), || true), None);
        assert_eq!(attachments.number(node(1), || true), Some(0));
    }
}
