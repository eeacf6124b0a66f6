//! The forwarding table and the decision made from it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::{Cookie, DropReason, Header};
use crate::id::NodeAddr;

/// A neighbour that packets may be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The neighbour.
    pub neighbour: NodeAddr,
    /// Where its packets go.
    pub to: SocketAddr,
    /// The address that they come from, where the link has one: a NAT on the way knows no other.
    pub from: Option<IpAddr>,
    /// What admits them there.
    pub cookie: Cookie,
}

/// A link that packets may come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// The neighbour at the other end.
    pub neighbour: NodeAddr,
    /// Whether it carries other nodes' packets; one that does not may send only its own.
    pub transit: bool,
}

/// How to reach one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableRoute {
    /// The neighbours on shortest paths, best first.
    pub next_hops: Vec<NextHop>,
    /// The hop limit for packets that begin here.
    pub hop_limit: u8,
}

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It ends here.
    Deliver,
    /// It goes on.
    Forward(NextHop),
    /// There is no route, or only the way back: hold it for a while.
    Hold,
    /// It goes nowhere.
    Drop(DropReason),
}

/// An immutable snapshot of everything that the switch needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingTable {
    me: NodeAddr,
    transit: bool,
    ingress: HashMap<Cookie, Ingress>,
    routes: HashMap<NodeAddr, TableRoute>,
    default_route: Option<TableRoute>,
}

impl ForwardingTable {
    /// A table that knows no link and no route.
    ///
    /// `transit` says whether the node carries other nodes' packets.
    #[must_use]
    pub fn new(me: NodeAddr, transit: bool) -> Self {
        Self { me, transit, ingress: HashMap::new(), routes: HashMap::new(), default_route: None }
    }

    /// Admits packets with `cookie`.
    pub fn admit(&mut self, cookie: Cookie, ingress: Ingress) {
        self.ingress.insert(cookie, ingress);
    }

    /// Sets the route to a node.
    pub fn route(&mut self, destination: NodeAddr, route: TableRoute) {
        self.routes.insert(destination, route);
    }

    /// Sets the route to every node without one: a stub has nothing else.
    pub fn set_default_route(&mut self, route: TableRoute) {
        self.default_route = Some(route);
    }

    /// The node whose table this is.
    #[must_use]
    pub fn me(&self) -> NodeAddr {
        self.me
    }

    /// What to do with a packet that came in with `header`.
    #[must_use]
    pub fn decide(&self, header: &Header) -> Decision {
        let Some(ingress) = self.ingress.get(&header.cookie) else {
            return Decision::Drop(DropReason::UnknownCookie);
        };
        if header.source == self.me || (!ingress.transit && header.source != ingress.neighbour) {
            return Decision::Drop(DropReason::ForgedSource);
        }
        if header.destination == self.me {
            return Decision::Deliver;
        }
        if !self.transit {
            return Decision::Drop(DropReason::TransitDenied);
        }
        if header.hop_limit <= 1 {
            return Decision::Drop(DropReason::HopLimit);
        }
        match self.next_hop(header.destination, Some(ingress.neighbour)) {
            Some(next_hop) => Decision::Forward(next_hop),
            None => Decision::Hold,
        }
    }

    /// The neighbour that packets for `destination` go to, never the one they came from.
    #[must_use]
    pub fn next_hop(&self, destination: NodeAddr, ingress: Option<NodeAddr>) -> Option<NextHop> {
        let route = self.routes.get(&destination).or(self.default_route.as_ref())?;
        route.next_hops.iter().find(|hop| Some(hop.neighbour) != ingress).copied()
    }

    /// The neighbour and the hop limit for a packet that begins here.
    #[must_use]
    pub fn originate(&self, destination: NodeAddr) -> Option<(NextHop, u8)> {
        let route = self.routes.get(&destination).or(self.default_route.as_ref())?;
        route.next_hops.first().map(|hop| (*hop, route.hop_limit))
    }

    /// The neighbour that a cookie admits.
    #[must_use]
    pub fn ingress(&self, cookie: Cookie) -> Option<Ingress> {
        self.ingress.get(&cookie).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeAddr = NodeAddr([0; 8]);
    const LEFT: NodeAddr = NodeAddr([1; 8]);
    const RIGHT: NodeAddr = NodeAddr([2; 8]);
    const FAR: NodeAddr = NodeAddr([3; 8]);
    const FROM_LEFT: Cookie = Cookie([11; 8]);
    const FROM_RIGHT: Cookie = Cookie([12; 8]);

    fn hop(neighbour: NodeAddr) -> NextHop {
        NextHop { neighbour, to: "127.0.0.1:9".parse().unwrap(), from: None, cookie: Cookie([7; 8]) }
    }

    fn relay(transit: bool) -> ForwardingTable {
        let mut table = ForwardingTable::new(ME, transit);
        table.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit: false });
        table.admit(FROM_RIGHT, Ingress { neighbour: RIGHT, transit: true });
        for (destination, via) in [(LEFT, LEFT), (RIGHT, RIGHT), (FAR, RIGHT)] {
            table.route(destination, TableRoute { next_hops: vec![hop(via)], hop_limit: 12 });
        }
        table
    }

    fn packet(cookie: Cookie, source: NodeAddr, destination: NodeAddr) -> Header {
        Header { hop_limit: 9, cookie, destination, source }
    }

    #[test]
    fn a_relay_forwards_between_neighbours_and_delivers_its_own() {
        let table = relay(true);
        assert_eq!(table.decide(&packet(FROM_LEFT, LEFT, FAR)), Decision::Forward(hop(RIGHT)));
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, LEFT)), Decision::Forward(hop(LEFT)));
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, ME)), Decision::Deliver);
    }

    #[test]
    fn outsiders_forgers_and_spent_packets_are_dropped_for_their_reason() {
        let table = relay(true);
        let drop = |header| match table.decide(&header) {
            Decision::Drop(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(drop(packet(Cookie([99; 8]), LEFT, FAR)), DropReason::UnknownCookie);
        assert_eq!(drop(packet(FROM_LEFT, FAR, RIGHT)), DropReason::ForgedSource);
        assert_eq!(drop(packet(FROM_RIGHT, ME, LEFT)), DropReason::ForgedSource);
        assert_eq!(drop(Header { hop_limit: 1, ..packet(FROM_LEFT, LEFT, FAR) }), DropReason::HopLimit);
        assert_eq!(drop(Header { hop_limit: 0, ..packet(FROM_LEFT, LEFT, FAR) }), DropReason::HopLimit);
    }

    #[test]
    fn an_edge_takes_its_own_packets_and_carries_nobody_elses() {
        let table = relay(false);
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, ME)), Decision::Deliver);
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, LEFT)), Decision::Drop(DropReason::TransitDenied));
    }

    #[test]
    fn a_packet_never_goes_back_to_the_neighbour_it_came_from() {
        let mut table = relay(true);
        assert_eq!(table.decide(&packet(FROM_RIGHT, LEFT, FAR)), Decision::Hold);
        let both = TableRoute { next_hops: vec![hop(RIGHT), hop(LEFT)], hop_limit: 12 };
        table.route(FAR, both);
        assert_eq!(table.decide(&packet(FROM_RIGHT, LEFT, FAR)), Decision::Forward(hop(LEFT)));
    }

    #[test]
    fn a_stub_sends_everything_to_its_default_route() {
        let mut table = ForwardingTable::new(ME, false);
        assert_eq!(table.originate(FAR), None);
        table.set_default_route(TableRoute { next_hops: vec![hop(RIGHT)], hop_limit: 64 });
        assert_eq!(table.originate(FAR), Some((hop(RIGHT), 64)));
    }
}
