//! The switch's table, made from the router's and the links.

use std::collections::BTreeMap;

use super::link::{Link, LinkId};
use crate::id::{NodeAddr, NodeId};
use crate::router::Table;
use crate::switch::{ForwardingTable, Ingress, NextHop, TableRoute};

/// The hop limit of packets from a stub, which knows no path: twice a long path.
const STUB_HOP_LIMIT: u8 = 64;

/// Everything the table is made of.
pub(crate) struct Sources<'a> {
    pub(crate) me: NodeAddr,
    pub(crate) transit: bool,
    pub(crate) stub: bool,
    pub(crate) links: &'a BTreeMap<LinkId, Link>,
    pub(crate) active: &'a BTreeMap<NodeId, LinkId>,
    pub(crate) table: &'a Table,
}

/// Makes the table.
pub(crate) fn forwarding_table(sources: &Sources<'_>) -> ForwardingTable {
    let mut forwarding = ForwardingTable::new(sources.me, sources.transit);
    // Whatever is connected may send: a link that drains has packets on the way.
    for link in sources.links.values() {
        let ingress = Ingress { neighbour: link.peer.addr(), transit: link.transit && !link.stub };
        forwarding.admit(link.cookie_in, ingress);
    }
    let next_hop = |peer: &NodeId| {
        let link = sources.links.get(sources.active.get(peer)?)?;
        let from = link.connection.local_ip();
        Some(NextHop { neighbour: peer.addr(), to: link.remote, from, cookie: link.cookie_out })
    };
    for route in sources.table.iter() {
        let next_hops: Vec<_> = route.next_hops.iter().filter_map(next_hop).collect();
        if !next_hops.is_empty() {
            forwarding.route(route.addr, TableRoute { next_hops, hop_limit: hop_limit(route.hops) });
        }
    }
    if sources.stub {
        // In the order in which questions go to them: the first is the one that was asked.
        let next_hops: Vec<_> = sources.active.keys().filter_map(next_hop).collect();
        if !next_hops.is_empty() {
            forwarding.set_default_route(TableRoute { next_hops, hop_limit: STUB_HOP_LIMIT });
        }
    }
    forwarding
}

/// Room for twice the path and some, since routes may change under way, and no more than a loop deserves.
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
