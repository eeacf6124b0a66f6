//! Which peers have a place, when there are not enough for all.
//!
//! Ephemerals that share a certificate share the places of one caller: otherwise one member could
//! take all of them with suffixes of its own choice.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::mesh::services::fair;

/// Where a newcomer finds a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// One is free.
    Free,
    /// That of this peer, which is unused.
    Of(NodeId),
    /// Nowhere: all are in use, or those with the newcomer's certificate have their share.
    None,
}

/// Where `newcomer` finds a place beside `peers`, of which each is in use or not. There are at most
/// `max`.
pub(super) fn room<'a>(
    peers: impl ExactSizeIterator<Item = (&'a NodeId, bool)>,
    newcomer: &NodeId,
    max: usize,
) -> Room {
    let taken = peers.len();
    // With this many free, no share is used up.
    if fair::admits(taken, taken, max) {
        return Room::Free;
    }
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut unused = Vec::new();
    for (node, in_use) in peers {
        let base = node.base();
        *counts.entry(base.clone()).or_default() += 1;
        if !in_use {
            unused.push((base, node));
        }
    }
    let base = newcomer.base();
    let own = counts.get(&base).copied().unwrap_or(0);
    if taken < max && fair::admits(own, taken, max) {
        return Room::Free;
    }
    // A peer over its share replaces one of its own; others replace one of those who hold most.
    let within = taken >= max && fair::admits(own, max - 1, max);
    let eligible = unused.iter().filter(|(holder, _)| within || *holder == base);
    let replaced = eligible.max_by_key(|(holder, _)| counts.get(holder));
    replaced.map_or(Room::None, |(_, node)| Room::Of((*node).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    /// Peers by name, those with a `+` in use.
    fn among(names: &[&str], newcomer: &str, max: usize) -> Room {
        let peers: Vec<_> = names
            .iter()
            .map(|name| (id(name.trim_end_matches('+')), name.ends_with('+')))
            .collect();
        room(peers.iter().map(|(node, in_use)| (node, *in_use)), &id(newcomer), max)
    }

    #[test]
    fn one_certificate_does_not_take_all_places() {
        let mut peers: Vec<(NodeId, bool)> = Vec::new();
        for n in 0..1_024 {
            let newcomer = id(&format!("greedy~{n}"));
            match room(peers.iter().map(|(node, in_use)| (node, *in_use)), &newcomer, 1_024) {
                Room::Free => peers.push((newcomer, true)),
                other => assert_eq!(other, Room::None),
            }
        }
        assert_eq!(peers.len(), 768);
        for n in 0..60 {
            let newcomer = id(&format!("honest-{n}"));
            assert_eq!(
                room(peers.iter().map(|(node, in_use)| (node, *in_use)), &newcomer, 1_024),
                Room::Free
            );
            peers.push((newcomer, true));
        }
    }

    #[test]
    fn a_place_that_nobody_uses_goes_to_the_newcomer() {
        assert_eq!(among(&["a+", "b", "c+", "d+"], "e", 4), Room::Of(id("b")));
        assert_eq!(among(&["a+", "b+", "c+", "d+"], "e", 4), Room::None);
        // Of several, one of those who hold most.
        assert_eq!(among(&["a", "g~1+", "g~2", "h"], "e", 4), Room::Of(id("g~2")));
        // Over its share, only one of its own.
        assert_eq!(among(&["a", "g~1+", "g~2+", "g~3+", "g~4+"], "g~5", 6), Room::None);
        assert_eq!(
            among(&["a", "g~1+", "g~2", "g~3+", "g~4+", "g~5+"], "g~6", 6),
            Room::Of(id("g~2"))
        );
    }
}
