//! Whose certificates are not trusted here, as far as their records have come: said once, and
//! shown.

use std::collections::VecDeque;

use crate::id::{NodeId, Version};
use crate::mesh::report::status::NotTrusted;
use crate::router::Distrust;

/// The nodes whose records were not taken since the last reload.
#[derive(Debug, Default)]
pub(crate) struct Distrusted(VecDeque<(NotTrusted, Version)>);

impl Distrusted {
    /// Nodes remembered; the oldest makes room.
    const MAX: usize = 1_024;

    /// The node's record of this version is not trusted. Whether this is news.
    pub(crate) fn note(&mut self, node: &NodeId, version: Version, why: Distrust) -> bool {
        if let Some((known, newest)) = self.0.iter_mut().find(|(known, _)| known.node == *node) {
            *newest = version.max(*newest);
            return std::mem::replace(&mut known.why, why) != why;
        }
        if self.0.len() == Self::MAX {
            self.0.pop_front();
        }
        self.0.push_back((NotTrusted { node: node.clone(), why }, version));
        true
    }

    /// The node's record was taken, or may be from now on.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.0.retain(|(known, _)| known.node != *node);
    }

    /// The certificates were reloaded: what is not trusted is reported again.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All of them, except for those of which `held` gives a newer version: that was accepted
    /// later.
    pub(crate) fn status(&self, held: impl Fn(&NodeId) -> Option<Version>) -> Vec<NotTrusted> {
        let stands =
            |known: &NotTrusted, version| held(&known.node).is_none_or(|held| held <= version);
        let standing = self.0.iter().filter(|(known, version)| stands(known, *version));
        standing.map(|(known, _)| known.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version { epoch: 1, sequence: 1, instance: 1 };

    #[test]
    fn each_reason_is_news_once_until_the_node_is_trusted_again() {
        let mut distrusted = Distrusted::default();
        let [a, b]: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        assert!(distrusted.note(&a, OLD, Distrust::Expired));
        assert!(!distrusted.note(&a, OLD, Distrust::Expired));
        assert!(
            distrusted.note(&a, OLD, Distrust::Revoked)
                && distrusted.note(&b, OLD, Distrust::Revoked)
        );
        assert_eq!(distrusted.status(|_| None).len(), 2);
        distrusted.forget(&a);
        assert_eq!(distrusted.status(|_| None), [NotTrusted { node: b, why: Distrust::Revoked }]);
        assert!(distrusted.note(&a, OLD, Distrust::Revoked));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut distrusted = Distrusted::default();
        for nth in 0..Distrusted::MAX + 9 {
            assert!(distrusted.note(
                &format!("n{nth}").parse().unwrap(),
                OLD,
                Distrust::UnknownIssuer
            ));
        }
        assert_eq!(distrusted.status(|_| None).len(), Distrusted::MAX);
        assert_eq!(distrusted.status(|_| None)[0].node.as_str(), "n9");
    }

    #[test]
    fn a_newer_record_that_was_accepted_makes_up_for_one_that_was_not() {
        let mut distrusted = Distrusted::default();
        let node: NodeId = "a".parse().unwrap();
        distrusted.note(&node, OLD, Distrust::UnknownIssuer);
        let listed = |held| distrusted.status(|_| held).len();
        assert_eq!(listed(Some(OLD)), 1);
        assert_eq!(listed(Some(Version { sequence: 2, ..OLD })), 0);
    }
}
