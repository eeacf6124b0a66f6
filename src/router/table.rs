//! The table: where every reachable node is.

use std::collections::BTreeMap;

use super::graph::Graph;
use super::spf::Paths;
use crate::id::{Cost, NodeAddr, NodeId};

/// Where every reachable node is. Immutable: a change makes a new one, so that readers see all of it or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Ascending by id.
    routes: Vec<Route>,
    /// Addresses and places in `routes`, ascending.
    addrs: Vec<(NodeAddr, u32)>,
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The node.
    pub id: NodeId,
    /// Its address.
    pub addr: NodeAddr,
    /// The sum of the costs of the links on the way.
    pub cost: u64,
    /// Links on the way; of several ways of equal cost, on the shortest.
    pub hops: u32,
    /// The neighbours through which the node is reached at this cost: one to eight, lowest ids first.
    pub next_hops: Vec<NodeId>,
    /// Whether the node is a stub, attached to the node before it.
    pub stub: bool,
}

/// A stub that was left out of a table, because its address is that of another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Collision {
    pub(crate) known: NodeId,
    pub(crate) refused: NodeId,
}

impl Table {
    /// The route to a node other than this one.
    #[must_use]
    pub fn route(&self, id: &NodeId) -> Option<&Route> {
        self.routes.binary_search_by(|route| route.id.cmp(id)).ok().map(|at| &self.routes[at])
    }

    /// The route to the node with this address.
    #[must_use]
    pub fn route_addr(&self, addr: NodeAddr) -> Option<&Route> {
        let at = self.addrs.binary_search_by_key(&addr, |entry| entry.0).ok()?;
        Some(&self.routes[self.addrs[at].1 as usize])
    }

    /// All routes, ascending by id.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.routes.iter()
    }

    /// How many nodes are reachable, this one not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no other node is reachable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The table of the node that `paths` start from, or of one without a record of its own. `own_stubs` are those
    /// attached to it now.
    pub(crate) fn build(
        graph: &Graph,
        paths: Option<&Paths>,
        me: &NodeId,
        own_stubs: impl Iterator<Item = (NodeId, Cost)>,
    ) -> (Self, Vec<Collision>) {
        let mut stubs = Stubs { me, found: BTreeMap::new() };
        own_stubs.for_each(|(id, cost)| stubs.add_own(id, cost));
        let mut routes = Vec::new();
        if let Some(paths) = paths {
            routes = node_routes(graph, paths, me);
            stubs.add_all(graph, &routes);
        }
        Self::join(routes, stubs)
    }

    /// Nodes with records of their own are never taken for stubs, whatever others claim, and keep their addresses.
    fn join(mut routes: Vec<Route>, stubs: Stubs<'_>) -> (Self, Vec<Collision>) {
        let mut collisions = Vec::new();
        let mut addrs: Vec<(NodeAddr, u32)> = Vec::new();
        if !stubs.found.is_empty() {
            let mut taken: BTreeMap<NodeAddr, NodeId> =
                routes.iter().map(|route| (route.addr, route.id.clone())).collect();
            taken.insert(stubs.me.addr(), stubs.me.clone());
            for (id, stub) in stubs.found {
                match taken.get(&stub.addr) {
                    Some(known) if *known != id => {
                        collisions.push(Collision { known: known.clone(), refused: id });
                    }
                    Some(_) => {}
                    None => {
                        taken.insert(stub.addr, id);
                        routes.push(stub);
                    }
                }
            }
            routes.sort_by(|a, b| a.id.cmp(&b.id));
        }
        addrs.extend(routes.iter().map(|route| route.addr).zip(0..));
        addrs.sort_unstable();
        (Self { routes, addrs }, collisions)
    }
}

impl<'a> IntoIterator for &'a Table {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The routes to nodes with records of their own, ascending.
fn node_routes(graph: &Graph, paths: &Paths, me: &NodeId) -> Vec<Route> {
    let others = graph.nodes().filter(|(id, number)| *id != me && paths.reaches(*number));
    let route = |(id, number): (&NodeId, u32)| {
        let at = number as usize;
        let next_hops = paths.next[at].as_slice().iter();
        Route {
            id: id.clone(),
            addr: graph.vertex(number).record.addr(),
            cost: paths.cost[at],
            hops: paths.hops[at],
            next_hops: next_hops.map(|&place| graph.id(paths.first[usize::from(place)]).clone()).collect(),
            stub: false,
        }
    };
    others.map(route).collect()
}

/// The cheapest way to each stub; among equals, the own one, then that of the owner with the lowest name.
struct Stubs<'a> {
    me: &'a NodeId,
    found: BTreeMap<NodeId, Route>,
}

impl Stubs<'_> {
    fn add_own(&mut self, id: NodeId, cost: Cost) {
        let (addr, next_hops) = (id.addr(), vec![id.clone()]);
        let route = Route { id: id.clone(), addr, cost: cost.get().into(), hops: 1, next_hops, stub: true };
        self.found.insert(id, route);
    }

    fn add_all(&mut self, graph: &Graph, owners: &[Route]) {
        for owner in owners {
            let record =
                &graph.vertex(graph.number(&owner.id).expect("routes lead to nodes of the graph")).record;
            for (link, addr) in record.stubs().filter(|(link, _)| link.peer != *self.me) {
                let cost = owner.cost + u64::from(link.cost.get());
                if self.found.get(&link.peer).is_some_and(|known| known.cost <= cost) {
                    continue;
                }
                let (id, next_hops) = (link.peer.clone(), owner.next_hops.clone());
                let route = Route { id, addr, cost, hops: owner.hops + 1, next_hops, stub: true };
                self.found.insert(link.peer.clone(), route);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::id;
    use super::*;

    #[test]
    fn a_stub_whose_address_is_taken_is_left_out_and_reported() {
        let me = id("me");
        let mut stubs = Stubs { me: &me, found: BTreeMap::new() };
        for (name, addr) in
            [("a", id("node").addr()), ("b", id("b").addr()), ("c", id("b").addr()), ("d", me.addr())]
        {
            stubs.found.insert(id(name), route(name, addr, true));
        }
        let (table, collisions) = Table::join(vec![route("node", id("node").addr(), false)], stubs);
        assert_eq!(table.iter().map(|route| route.id.as_str()).collect::<Vec<_>>(), ["b", "node"]);
        let collision = |known, refused| Collision { known: id(known), refused: id(refused) };
        assert_eq!(collisions, [collision("node", "a"), collision("b", "c"), collision("me", "d")]);
        assert_eq!(table.route_addr(id("b").addr()), table.route(&id("b")));
        assert!(table.route_addr(me.addr()).is_none());
    }

    #[test]
    fn a_node_is_never_taken_for_a_stub() {
        let me = id("me");
        let mut stubs = Stubs { me: &me, found: BTreeMap::new() };
        stubs.found.insert(id("node"), route("node", id("node").addr(), true));
        let (table, collisions) = Table::join(vec![route("node", id("node").addr(), false)], stubs);
        assert!(!table.route(&id("node")).unwrap().stub && collisions.is_empty());
    }

    fn route(name: &str, addr: NodeAddr, stub: bool) -> Route {
        Route { id: id(name), addr, cost: 1, hops: 1, next_hops: vec![id(name)], stub }
    }
}
