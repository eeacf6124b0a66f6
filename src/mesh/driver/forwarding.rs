//! The switch's table, made from the router's and the links.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{NodeAddr, NodeId};
use crate::mesh::links::id::LinkId;
use crate::mesh::links::link::Link;
use crate::mesh::peers::detours::Detours;
use crate::mesh::peers::paths::Paths;
use crate::router::{Router, Table};
use crate::switch::{ForwardingTable, Ingress, NextHop, Place, Routes};

/// The hop limit of packets from a stub, which knows no path: twice a long path.
const STUB_HOP_LIMIT: u8 = 64;

/// Everything the table is made of.
pub(crate) struct Sources<'a> {
    pub(crate) me: NodeAddr,
    pub(crate) transit: bool,
    pub(crate) stub: bool,
    pub(crate) links: &'a BTreeMap<LinkId, Link>,
    pub(crate) active: &'a BTreeMap<NodeId, LinkId>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) paths: &'a Paths,
    /// The router; `None` on a stub.
    pub(crate) router: Option<&'a Router>,
    pub(crate) detours: &'a Detours,
}

/// The switch's routes, kept as long as the router's table is the same: links come and go without
/// them.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    of: Arc<Table>,
    routes: Arc<Routes>,
}

impl RouteCache {
    /// The routes as they were when last asked for.
    pub(crate) fn last(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// The routes of this table.
    pub(crate) fn of(&mut self, table: &Arc<Table>) -> Arc<Routes> {
        if !Arc::ptr_eq(&self.of, table) {
            self.of = Arc::clone(table);
            self.routes = Arc::new(routes(table));
        }
        self.last()
    }
}

fn routes(table: &Table) -> Routes {
    let mut routes = Routes::default();
    // Addresses are hashes: made once for each neighbour, and not for each route.
    let mut places: BTreeMap<&NodeId, Place> = BTreeMap::new();
    for id in table.iter().flat_map(|route| route.next_hops.iter().chain(&*route.alternates)) {
        places.entry(id).or_insert_with(|| routes.place(id.addr()));
    }
    for route in table {
        let next_hops = route.next_hops.iter().filter_map(|id| places.get(id).copied());
        let alternates = route.alternates.iter().filter_map(|id| places.get(id).copied());
        routes.insert(route.addr, next_hops, alternates, hop_limit(route.hops));
        if route.stub {
            routes.stub(route.addr);
        }
    }
    for claimed in table.claimed() {
        routes.claim(claimed.addr, claimed.barred);
    }
    routes
}

/// Makes the table: the routes, as far as there are links to use.
pub(crate) fn forwarding_table(sources: &Sources<'_>) -> ForwardingTable {
    let mut forwarding =
        ForwardingTable::new(sources.me, sources.transit, Arc::clone(&sources.routes));
    // Whatever is connected may send: a link that drains has packets on the way.
    for link in sources.links.values() {
        // Whom a stub is attached to brings it everything, whether or not it carries the packets of
        // others.
        let permitted = || sources.router.is_none_or(|router| router.permits_transit(&link.peer));
        let transit = (link.transit && permitted() || sources.stub) && !link.stub;
        let ingress = Ingress { neighbour: link.addr, transit };
        forwarding.admit(link.cookie_in, ingress);
        if link.stub {
            forwarding.attach(link.addr);
        }
    }
    let next_hop = |id: &LinkId| {
        let link = sources.links.get(id)?;
        Some(NextHop {
            neighbour: link.addr,
            to: link.remote,
            from: link.local,
            local_port: None,
            cookie: link.cookie_out,
        })
    };
    // In the order in which questions go to them: the first is the one that was asked.
    let hops = sources.active.values().filter_map(next_hop);
    if sources.stub {
        let hops: Vec<_> = hops.collect();
        if !hops.is_empty() {
            forwarding.set_default_route(hops, STUB_HOP_LIMIT);
        }
    } else {
        hops.for_each(|hop| forwarding.link(hop));
    }
    for way in sources.detours.iter() {
        // While the link is down, the route counts.
        if let Some(hop) = sources.active.get(way.via).and_then(next_hop) {
            let avoided = way.avoided.iter().map(NodeId::addr).collect();
            forwarding.detour(way.peer.addr(), hop, avoided, way.toward.map(NodeId::addr));
        }
    }
    sources.paths.fill(&mut forwarding);
    forwarding
}

/// Room for twice the path and some, since routes may change under way, and no more than a loop
/// deserves.
fn hop_limit(hops: u32) -> u8 {
    u8::try_from(hops.saturating_mul(2).saturating_add(8)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hop_limit_has_room_for_a_detour_and_is_bounded() {
        assert_eq!(hop_limit(1), 10);
        assert_eq!(hop_limit(100), 208);
        assert_eq!(hop_limit(u32::MAX), 255);
    }
}
