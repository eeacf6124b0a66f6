//! The next hops of every node as known by the router.

use std::collections::HashMap;

use super::flow::Flow;
use crate::id::NodeAddr;

/// A neighbour within one [`Routes`]: small, so that a route to every node fits into little memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u32);

/// The neighbours that lead to each node, regardless of whether they have a link now.
///
/// Built once per routing table of the router, and shared by every
/// [`ForwardingTable`](super::ForwardingTable) built from it: when a link fails, only the links are
/// rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Routes {
    /// By place.
    neighbours: Vec<NodeAddr>,
    places: HashMap<NodeAddr, Place>,
    routes: HashMap<NodeAddr, Route>,
    /// Stubs without a route that nodes list without proof, and whether packets from them are
    /// forged.
    claimed: HashMap<NodeAddr, bool>,
}

/// How to reach one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Route {
    /// The hop limit of packets originated by this node.
    pub(super) hop_limit: u8,
    stub: bool,
    next_hops: u8,
    alternates: u8,
    /// First the next hops, then the alternates.
    places: [Place; Routes::MAX_NEXT_HOPS + Routes::MAX_ALTERNATES],
}

impl Routes {
    /// The most next hops of equal cost that a route keeps: the first ones.
    pub const MAX_NEXT_HOPS: usize = 8;
    /// The most alternates that a route keeps: the first ones.
    pub const MAX_ALTERNATES: usize = 2;

    /// The place of a neighbour; the same for the same neighbour.
    ///
    /// # Panics
    /// Never: there are fewer links than numbers.
    pub fn place(&mut self, neighbour: NodeAddr) -> Place {
        *self.places.entry(neighbour).or_insert_with(|| {
            self.neighbours.push(neighbour);
            Place(u32::try_from(self.neighbours.len() - 1).expect("links are fewer than 2^32"))
        })
    }

    /// Sets the route to a node. Packets are spread over `next_hops`; if none of them is usable,
    /// they take the first usable one of `alternates`, which are ordered best first. `hop_limit` is
    /// for packets of this node.
    pub fn insert(
        &mut self,
        destination: NodeAddr,
        next_hops: impl IntoIterator<Item = Place>,
        alternates: impl IntoIterator<Item = Place>,
        hop_limit: u8,
    ) {
        let mut route =
            Route { hop_limit, stub: false, next_hops: 0, alternates: 0, places: [Place(0); _] };
        for (place, slot) in next_hops.into_iter().take(Self::MAX_NEXT_HOPS).zip(&mut route.places)
        {
            *slot = place;
            route.next_hops += 1;
        }
        let slots = route.places.iter_mut().skip(usize::from(route.next_hops));
        for (place, slot) in alternates.into_iter().take(Self::MAX_ALTERNATES).zip(slots) {
            *slot = place;
            route.alternates += 1;
        }
        self.routes.insert(destination, route);
    }

    /// Marks a node with a route as a stub: its packets arrive from the node that it is attached
    /// to.
    pub fn stub(&mut self, node: NodeAddr) {
        if let Some(route) = self.routes.get_mut(&node) {
            route.stub = true;
        }
    }

    /// Names a node without a route as a stub that others list without proof. If it is `barred`, it
    /// is known not to be attached to a neighbour of this node that refuses transit.
    pub fn claim(&mut self, node: NodeAddr, barred: bool) {
        self.claimed.insert(node, barred);
    }

    /// Whether nodes list this one as their stub, without proof.
    pub(super) fn is_claimed(&self, node: NodeAddr) -> bool {
        self.claimed.contains_key(&node)
    }

    pub(super) fn is_barred(&self, node: NodeAddr) -> bool {
        self.claimed.get(&node).is_some_and(|barred| *barred)
    }

    /// Whether a node is a stub that is reached through this neighbour: a next hop or an alternate
    /// of its route.
    pub(super) fn is_stub_behind(&self, node: NodeAddr, neighbour: NodeAddr) -> bool {
        let route = self.routes.get(&node).filter(|route| route.stub);
        route
            .zip(self.places.get(&neighbour))
            .is_some_and(|(route, place)| route.ways().contains(place))
    }

    pub(super) fn get(&self, destination: NodeAddr) -> Option<&Route> {
        self.routes.get(&destination)
    }

    pub(super) fn place_of(&self, neighbour: NodeAddr) -> Option<usize> {
        self.places.get(&neighbour).map(|place| place.0 as usize)
    }

    /// How many neighbours lead anywhere.
    pub(super) fn neighbour_count(&self) -> usize {
        self.neighbours.len()
    }
}

impl Route {
    /// The next hops and the alternates.
    fn ways(&self) -> &[Place] {
        &self.places[..usize::from(self.next_hops + self.alternates)]
    }

    /// Whether the neighbour at this place is a next hop or an alternate.
    pub(super) fn leads_through(&self, place: usize) -> bool {
        self.ways().iter().any(|way| way.0 as usize == place)
    }

    /// All next hops, then the alternates, best first.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let count = usize::from(self.next_hops) + usize::from(self.alternates);
        self.places.iter().take(count).map(|place| place.0 as usize)
    }

    /// The neighbour for packets of a flow, of those that `usable` gives: the next hop that the
    /// flow ranks highest, or else the best alternate.
    #[inline]
    pub(super) fn choose<T: Copy>(
        &self,
        flow: Flow,
        usable: impl Fn(usize) -> Option<(NodeAddr, T)>,
    ) -> Option<T> {
        let (next_hops, rest) = self.places.split_at(usize::from(self.next_hops));
        let usable = |place: &Place| usable(place.0 as usize);
        let best = match next_hops {
            [only] => usable(only),
            several => flow.choose(several.iter().filter_map(usable)),
        };
        let alternates = &rest[..usize::from(self.alternates)];
        best.or_else(|| alternates.iter().find_map(usable)).map(|(_, hop)| hop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> NodeAddr {
        NodeAddr([n; 8])
    }

    #[test]
    fn a_route_keeps_the_first_next_hops_and_alternates() {
        let mut routes = Routes::default();
        let places: Vec<Place> = (0..14).map(|n| routes.place(addr(n))).collect();
        assert_eq!(routes.place(addr(3)), places[3]);
        assert_eq!(routes.place_of(addr(13)), Some(13));
        routes.insert(addr(99), places[..10].iter().copied(), places[10..].iter().copied(), 7);
        let route = routes.get(addr(99)).unwrap();
        let chosen = |gone: usize| {
            let flow = Flow { source: addr(200), destination: addr(99) };
            route.choose(flow, |place| (place >= gone).then_some((addr(place as u8), place)))
        };
        assert!(chosen(0).is_some_and(|place| place < 8));
        assert_eq!(
            [chosen(7), chosen(8), chosen(11), chosen(12)],
            [Some(7), Some(10), Some(11), None]
        );
    }
}
