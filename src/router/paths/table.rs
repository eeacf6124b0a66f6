//! The table: where every reachable node is.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Cost, NodeAddr, NodeId};
use crate::router::database::graph::Graph;
use crate::router::paths::alternates::Standby;
use crate::router::paths::spf::Paths;
use crate::router::proof::claims::Standing;
use crate::router::record::Record;

/// Where every reachable node is. Immutable: a change makes a new one, so that readers see all of
/// it or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Ascending by id.
    routes: Vec<Route>,
    /// Addresses and places in `routes`, ascending. Tables of the same nodes share them.
    addrs: Arc<[(NodeAddr, u32)]>,
    /// Stubs that are listed by nodes in reach, and whose attachment is not proven. Ascending by
    /// id, none with a route.
    claimed: Arc<[Claimed]>,
}

/// How a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The neighbours through which the node is reached at this cost: one to eight, lowest ids
    /// first. Routes with the same share them.
    #[serde(with = "shared")]
    pub next_hops: Arc<[NodeId]>,
    /// The neighbours that can stand in at once when the links to all next hops are gone, best
    /// first: zero to two.
    ///
    /// A neighbour m is a loop-free alternate (RFC 5286) to d if it is not a next hop and its own
    /// shortest paths to d do not lead through this node: dist(m, d) < dist(m, this node) +
    /// dist(this node, d), or this node refuses transit. One that refuses transit is an alternate
    /// to nothing but itself. Those whose paths avoid all the next hops, too, come first: they
    /// serve also when a next hop fails as a whole, and not only the link to it. Then the cheaper
    /// come first, then those with lower ids.
    ///
    /// They are found after the next hops, in the background, among the eight neighbours with the
    /// cheapest links (then those with the most links); a route that has just changed has none for
    /// a moment. A stub has those of the node that it is attached to; one attached to this node has
    /// none.
    #[serde(with = "shared")]
    pub alternates: Arc<[NodeId]>,
    /// Whether the node is a stub, attached to the node before it.
    pub stub: bool,
}

/// Lists behind a reference count, without the feature of serde for all such pointers.
mod shared {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(
        nodes: &[NodeId],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        nodes.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[NodeId]>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::from)
    }
}

/// A stub that nodes list without a proof that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) id: NodeId,
    pub(crate) addr: NodeAddr,
    /// Whether it is known not to be behind a neighbour that refuses transit: packets that say so
    /// are forged.
    pub(crate) barred: bool,
}

impl Route {
    /// The route to a stub that is attached to this node.
    pub(crate) fn to_own_stub(
        id: &NodeId,
        addr: NodeAddr,
        cost: Cost,
        next_hops: &Arc<[NodeId]>,
    ) -> Self {
        Self {
            id: id.clone(),
            addr,
            cost: cost.get().into(),
            hops: 1,
            next_hops: Arc::clone(next_hops),
            alternates: Arc::default(),
            stub: true,
        }
    }
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

    /// Whether a node in reach lists this stub, without a proof that is known here: there is no
    /// route, but [`Router::verify_claims`](crate::router::Router::verify_claims) may find one.
    #[must_use]
    pub fn is_claimed(&self, id: &NodeId) -> bool {
        self.claimed.binary_search_by(|claimed| claimed.id.cmp(id)).is_ok()
    }

    pub(crate) fn claimed(&self) -> &[Claimed] {
        &self.claimed
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

    /// The table of the node that `paths` start from, or of one without a record of its own.
    /// `own_stubs` are those attached to it now, `old` is the table before.
    pub(crate) fn build(
        graph: &Graph,
        paths: Option<(&Paths, Option<&Vec<Standby>>)>,
        me: &NodeId,
        own_stubs: impl Iterator<Item = Route>,
        standing: impl Fn(&NodeId, &Record) -> Standing,
        old: &Self,
    ) -> (Self, Vec<Collision>) {
        let found = own_stubs.map(|route| (route.id.clone(), route)).collect();
        let mut stubs = Stubs { me, found, claimed: Vec::new() };
        let mut routes = Vec::new();
        if let Some((paths, alternates)) = paths {
            routes.reserve(graph.node_count());
            let nodes = node_routes(graph, paths, alternates.map_or(&[], Vec::as_slice), me);
            for (route, record) in nodes {
                if let Some(record) = record {
                    stubs.add_all(record, &route, &standing);
                }
                routes.push(route);
            }
        }
        Self::join(routes, stubs, old)
    }

    /// Takes over the alternates of routes that are the same as in `old`, as far as they are links
    /// in use.
    pub(crate) fn keep_alternates(&mut self, old: &Self, usable: impl Fn(&NodeId) -> bool) {
        let mut before = old.routes.iter().peekable();
        // Few lists serve all routes.
        let mut kept: BTreeMap<*const NodeId, Arc<[NodeId]>> = BTreeMap::new();
        for route in &mut self.routes {
            // Most are the same name in the same place, which is seen without a look at it.
            while before.next_if(|old| old.id != route.id && old.id < route.id).is_some() {}
            let Some(old) = before.next_if(|old| old.id == route.id) else { continue };
            if !old.alternates.is_empty()
                && old.cost == route.cost
                && old.next_hops == route.next_hops
            {
                let still = || match old.alternates.iter().all(&usable) {
                    true => Arc::clone(&old.alternates),
                    false => old.alternates.iter().filter(|id| usable(id)).cloned().collect(),
                };
                route.alternates =
                    Arc::clone(kept.entry(old.alternates.as_ptr()).or_insert_with(still));
            }
        }
    }

    /// The ids that the other table lacks, ascending.
    pub(crate) fn ids_not_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a NodeId> {
        let mut others = other.routes.iter().peekable();
        let ids = self.routes.iter().map(|route| &route.id);
        ids.filter(move |id| {
            while others.next_if(|other| other.id != **id && other.id < **id).is_some() {}
            others.next_if(|other| other.id == **id).is_none()
        })
    }

    /// Nodes with records of their own are never taken for stubs, whatever others claim, and keep
    /// their addresses.
    fn join(routes: Vec<Route>, mut stubs: Stubs<'_>, old: &Self) -> (Self, Vec<Collision>) {
        let claimed = std::mem::take(&mut stubs.claimed);
        let (mut table, collisions) = Self::join_routes(routes, stubs, old);
        table.claimed = without_routes(claimed, &table);
        if table.claimed == old.claimed {
            table.claimed = Arc::clone(&old.claimed);
        }
        (table, collisions)
    }

    fn join_routes(mut routes: Vec<Route>, stubs: Stubs<'_>, old: &Self) -> (Self, Vec<Collision>) {
        let has_stubs = !stubs.found.is_empty();
        routes.extend(stubs.found.into_values());
        // Two runs, each ascending: the sort only merges them.
        routes.sort_by(|a, b| a.id.cmp(&b.id));
        let addrs = Self::addrs(&routes, old);
        if !has_stubs || are_unique(&addrs, stubs.me.addr()) {
            return (Self { routes, addrs, claimed: Arc::default() }, Vec::new());
        }
        let (routes, collisions) = without_collisions(routes, stubs.me);
        let addrs = Self::addrs(&routes, old);
        (Self { routes, addrs, claimed: Arc::default() }, collisions)
    }

    fn addrs(routes: &[Route], old: &Self) -> Arc<[(NodeAddr, u32)]> {
        let same = |(new, old): (&Route, &Route)| new.id == old.id && new.addr == old.addr;
        if routes.len() == old.routes.len() && routes.iter().zip(&old.routes).all(same) {
            return Arc::clone(&old.addrs);
        }
        let mut addrs: Vec<(NodeAddr, u32)> =
            routes.iter().map(|route| route.addr).zip(0..).collect();
        addrs.sort_unstable_by_key(|(addr, _)| u64::from_be_bytes(addr.0));
        addrs.into()
    }
}

/// Whether each address is there once, and that of this node is not.
fn are_unique(addrs: &[(NodeAddr, u32)], me: NodeAddr) -> bool {
    let mine = addrs.binary_search_by_key(&me, |(addr, _)| *addr).is_ok();
    !mine && addrs.windows(2).all(|pair| pair[0].0 != pair[1].0)
}

/// Each stub once, and none that has a route. One that several nodes list is barred.
fn without_routes(mut claimed: Vec<Claimed>, table: &Table) -> Arc<[Claimed]> {
    claimed.sort_by(|a, b| a.id.cmp(&b.id));
    claimed.dedup_by(|again, first| {
        let same = again.id == first.id;
        first.barred |= same;
        same
    });
    claimed.retain(|claimed| table.route(&claimed.id).is_none());
    claimed.into()
}

/// Leaves out the stubs whose ids or addresses others have: this node, nodes with records, and
/// stubs with lower ids.
fn without_collisions(routes: Vec<Route>, me: &NodeId) -> (Vec<Route>, Vec<Collision>) {
    let (stubs, mut routes): (Vec<_>, Vec<_>) = routes.into_iter().partition(|route| route.stub);
    let mut collisions = Vec::new();
    let mut taken: BTreeMap<NodeAddr, NodeId> =
        routes.iter().map(|route| (route.addr, route.id.clone())).collect();
    taken.insert(me.addr(), me.clone());
    for stub in stubs {
        match taken.get(&stub.addr) {
            Some(known) if *known != stub.id => {
                collisions.push(Collision { known: known.clone(), refused: stub.id });
            }
            Some(_) => {}
            None => {
                taken.insert(stub.addr, stub.id.clone());
                routes.push(stub);
            }
        }
    }
    routes.sort_by(|a, b| a.id.cmp(&b.id));
    (routes, collisions)
}

impl<'a> IntoIterator for &'a Table {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The routes to nodes with records of their own, ascending, with the records of those that list
/// stubs.
fn node_routes<'a>(
    graph: &'a Graph,
    paths: &'a Paths,
    alternates: &'a [Standby],
    me: &'a NodeId,
) -> impl Iterator<Item = (Route, Option<&'a Record>)> {
    let mut lists = Lists { graph, paths, lists: BTreeMap::new() };
    graph.nodes().filter_map(move |(id, number)| {
        let way = paths.way(number).filter(|_| id != me)?;
        let vertex = graph.vertex(number);
        let standby = alternates.get(number as usize).map_or(&[][..], Standby::as_slice);
        let route = Route {
            id: id.clone(),
            addr: vertex.addr,
            cost: way.cost,
            hops: way.hops,
            next_hops: lists.get(way.next.as_slice()),
            alternates: lists.get(standby),
            stub: false,
        };
        Some((route, vertex.stubs.then_some(&vertex.record)))
    })
}

/// The lists of first hops that routes share: there are few, and routes are many.
struct Lists<'a> {
    graph: &'a Graph,
    paths: &'a Paths,
    lists: BTreeMap<&'a [u16], Arc<[NodeId]>>,
}

impl<'a> Lists<'a> {
    fn get(&mut self, places: &'a [u16]) -> Arc<[NodeId]> {
        let name = |&place: &u16| self.graph.id(self.paths.first[usize::from(place)]).clone();
        Arc::clone(self.lists.entry(places).or_insert_with(|| places.iter().map(name).collect()))
    }
}

/// The cheapest way to each stub; among equals, the own one, then that of the owner with the lowest
/// name.
struct Stubs<'a> {
    me: &'a NodeId,
    found: BTreeMap<NodeId, Route>,
    claimed: Vec<Claimed>,
}

impl Stubs<'_> {
    /// Those attached to `owner`, after those of all owners with lower names.
    fn add_all(
        &mut self,
        record: &Record,
        owner: &Route,
        standing: &impl Fn(&NodeId, &Record) -> Standing,
    ) {
        for (link, addr) in record.stubs() {
            let standing = standing(&link.peer, record);
            if link.peer == *self.me {
                continue;
            }
            if standing != Standing::Proven {
                let barred = standing == Standing::Unproven;
                self.claimed.push(Claimed { id: link.peer.clone(), addr, barred });
                continue;
            }
            let cost = owner.cost + u64::from(link.cost.get());
            if self.found.get(&link.peer).is_some_and(|known| known.cost <= cost) {
                continue;
            }
            let route = Route {
                id: link.peer.clone(),
                addr,
                cost,
                hops: owner.hops + 1,
                stub: true,
                ..owner.clone()
            };
            self.found.insert(link.peer.clone(), route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::id;

    #[test]
    fn a_stub_whose_address_is_taken_is_left_out_and_reported() {
        let me = id("me");
        let mut stubs = Stubs { me: &me, found: BTreeMap::new(), claimed: Vec::new() };
        for (name, addr) in [
            ("a", id("node").addr()),
            ("b", id("b").addr()),
            ("c", id("b").addr()),
            ("d", me.addr()),
        ] {
            stubs.found.insert(id(name), route(name, addr, true));
        }
        let (table, collisions) =
            Table::join(vec![route("node", id("node").addr(), false)], stubs, &Table::default());
        assert_eq!(table.iter().map(|route| route.id.as_str()).collect::<Vec<_>>(), ["b", "node"]);
        let collision = |known, refused| Collision { known: id(known), refused: id(refused) };
        assert_eq!(collisions, [collision("node", "a"), collision("b", "c"), collision("me", "d")]);
        assert_eq!(table.route_addr(id("b").addr()), table.route(&id("b")));
        assert!(table.route_addr(me.addr()).is_none());
    }

    #[test]
    fn a_node_is_never_taken_for_a_stub() {
        let me = id("me");
        let mut stubs = Stubs { me: &me, found: BTreeMap::new(), claimed: Vec::new() };
        stubs.found.insert(id("node"), route("node", id("node").addr(), true));
        let (table, collisions) =
            Table::join(vec![route("node", id("node").addr(), false)], stubs, &Table::default());
        assert!(!table.route(&id("node")).unwrap().stub && collisions.is_empty());
    }

    fn route(name: &str, addr: NodeAddr, stub: bool) -> Route {
        Route {
            id: id(name),
            addr,
            cost: 1,
            hops: 1,
            next_hops: [id(name)].into(),
            alternates: Arc::default(),
            stub,
        }
    }
}
