//! Links by the kind of their neighbour, so that a hub finds its few routers among thousands of
//! stubs without a search.

use std::collections::BTreeSet;

use crate::id::NodeId;

/// Numbers of links, those to stubs apart.
#[derive(Debug)]
pub(crate) struct ByKind<L> {
    routers: BTreeSet<L>,
    stubs: BTreeSet<(NodeId, L)>,
}

impl<L: Copy + Ord> ByKind<L> {
    pub(crate) fn new() -> Self {
        Self { routers: BTreeSet::new(), stubs: BTreeSet::new() }
    }

    pub(crate) fn insert(&mut self, link: L, peer: &NodeId, stub: bool) {
        if stub {
            self.stubs.insert((peer.clone(), link));
        } else {
            self.routers.insert(link);
        }
    }

    pub(crate) fn remove(&mut self, link: L, peer: &NodeId) {
        if !self.routers.remove(&link) {
            self.stubs.remove(&(peer.clone(), link));
        }
    }

    /// The links to neighbours that are not stubs, oldest first.
    pub(crate) fn routers(&self) -> impl Iterator<Item = L> {
        self.routers.iter().copied()
    }

    pub(crate) fn stub_count(&self) -> usize {
        self.stubs.len()
    }

    /// The links to stubs, ascending by id.
    pub(crate) fn stubs(&self) -> impl Iterator<Item = L> {
        self.stubs.iter().map(|(_, link)| *link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_listed_by_kind_until_they_are_removed() {
        let [a, b, c]: [NodeId; 3] = ["a", "b", "c"].map(|id| id.parse().unwrap());
        let mut links = ByKind::new();
        for (link, peer, stub) in [(4, &c, true), (5, &b, false), (6, &a, true), (7, &a, true)] {
            links.insert(link, peer, stub);
        }
        assert_eq!(links.routers().collect::<Vec<_>>(), [5]);
        assert_eq!((links.stubs().collect::<Vec<_>>(), links.stub_count()), (vec![6, 7, 4], 3));
        links.remove(5, &b);
        links.remove(6, &a);
        assert_eq!((links.routers().count(), links.stubs().collect::<Vec<_>>()), (0, vec![7, 4]));
    }
}
