//! Whose certificates are not trusted here, as far as their records have come: said once, and shown.

use std::collections::VecDeque;

use super::status::NotTrusted;
use crate::id::NodeId;
use crate::router::Distrust;

/// The nodes whose records were not taken since the last reload.
#[derive(Debug, Default)]
pub(super) struct Distrusted(VecDeque<NotTrusted>);

impl Distrusted {
    /// Nodes remembered; the oldest makes room.
    const MAX: usize = 1_024;

    /// Whether this is news.
    pub(super) fn note(&mut self, node: &NodeId, why: Distrust) -> bool {
        if let Some(known) = self.0.iter_mut().find(|known| known.node == *node) {
            return std::mem::replace(&mut known.why, why) != why;
        }
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back(NotTrusted { node: node.clone(), why });
        true
    }

    /// The node's record was taken, or may be from now on.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.0.retain(|known| known.node != *node);
    }

    /// The certificates were reloaded: what is not trusted is said anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn status(&self) -> Vec<NotTrusted> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_news_once_until_the_node_is_trusted_again() {
        let mut distrusted = Distrusted::default();
        let [a, b]: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        assert!(distrusted.note(&a, Distrust::Expired));
        assert!(!distrusted.note(&a, Distrust::Expired));
        assert!(distrusted.note(&a, Distrust::Revoked) && distrusted.note(&b, Distrust::Revoked));
        assert_eq!(distrusted.status().len(), 2);
        distrusted.forget(&a);
        assert_eq!(distrusted.status(), [NotTrusted { node: b, why: Distrust::Revoked }]);
        assert!(distrusted.note(&a, Distrust::Revoked));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut distrusted = Distrusted::default();
        for nth in 0..Distrusted::MAX + 9 {
            assert!(distrusted.note(&format!("n{nth}").parse().unwrap(), Distrust::UnknownIssuer));
        }
        assert_eq!(distrusted.status().len(), Distrusted::MAX);
        assert_eq!(distrusted.status()[0].node.as_str(), "n9");
    }
}
