//! The forwarding table and the decision made from it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::flow::Flow;
use super::routes::Routes;
use super::{Attachment, Cookie, DropReason, Header};
use crate::id::NodeAddr;

/// A neighbour that packets may be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The neighbour.
    pub neighbour: NodeAddr,
    /// The destination of its packets.
    pub to: SocketAddr,
    /// The source address, if the link has one: a NAT on the path recognises no other.
    pub from: Option<IpAddr>,
    /// The local UDP port to send from; `None` for the node's own sockets. A direct path through a
    /// NAT may have been opened from a port of its own.
    pub local_port: Option<u16>,
    /// Admits them there.
    pub cookie: Cookie,
}

/// A link that packets may arrive from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// The neighbour at the other end.
    pub neighbour: NodeAddr,
    /// Whether the neighbour provides transit. One that does not may only send its own packets and
    /// those of its stubs.
    pub transit: bool,
}

/// The hop limit of packets on a direct path, which only its other end may process.
pub(crate) const DIRECT_HOP_LIMIT: u8 = 1;

/// The hop limit of packets on a detour, whose length the route does not determine.
const DETOUR_HOP_LIMIT: u8 = 64;

/// The decision for a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It ends here.
    Deliver,
    /// Forward it.
    Forward(NextHop),
    /// No usable route, or only back to the ingress: hold it for a while.
    Hold,
    /// Drop it.
    Drop(DropReason),
}

/// An immutable snapshot of everything that the switch needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingTable {
    me: NodeAddr,
    transit: bool,
    /// The stubs attached to this node.
    stubs: HashSet<NodeAddr>,
    ingress: HashMap<Cookie, Ingress>,
    routes: Arc<Routes>,
    /// The links of the neighbours of `routes`, by index; `None` without a link.
    hops: Vec<Option<NextHop>>,
    default_route: Option<DefaultRoute>,
    /// First hops for packets of this node that deviate from the route.
    detours: HashMap<NodeAddr, Detour>,
    /// The peers that are reached without any node between.
    direct: HashMap<NodeAddr, NextHop>,
    /// Whom the cookies of direct paths admit.
    direct_ingress: HashMap<Cookie, NodeAddr>,
}

/// The first hop of this node's packets for one node, and the neighbours that they avoid.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Detour {
    hop: NextHop,
    avoided: Vec<NodeAddr>,
    /// If the destination is a stub, a node that it is attached to and that is not avoided.
    toward: Option<NodeAddr>,
}

/// The next hops of a stub for all other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DefaultRoute {
    hops: Vec<NextHop>,
    hop_limit: u8,
}

impl ForwardingTable {
    /// Creates a table with these routes and without links.
    ///
    /// `transit` is whether the node forwards packets of other nodes. Packets of its stubs are
    /// always forwarded.
    #[must_use]
    pub fn new(me: NodeAddr, transit: bool, routes: Arc<Routes>) -> Self {
        let hops = vec![None; routes.neighbour_count()];
        Self {
            me,
            transit,
            stubs: HashSet::new(),
            ingress: HashMap::new(),
            routes,
            hops,
            default_route: None,
            detours: HashMap::new(),
            direct: HashMap::new(),
            direct_ingress: HashMap::new(),
        }
    }

    /// Admits packets with `cookie`.
    pub fn admit(&mut self, cookie: Cookie, ingress: Ingress) {
        self.ingress.insert(cookie, ingress);
    }

    /// Names a neighbour as a stub that is attached to this node.
    pub fn attach(&mut self, stub: NodeAddr) {
        self.stubs.insert(stub);
    }

    /// Sets the link of a neighbour. Until then no route uses it.
    pub fn link(&mut self, hop: NextHop) {
        if let Some(place) = self.routes.place_of(hop.neighbour) {
            self.hops[place] = Some(hop);
        }
    }

    /// Sets the next hops for all nodes without a route, which a stub uses for everything. The
    /// first of `hops` is used; the others are for packets that arrived from it.
    pub fn set_default_route(&mut self, hops: Vec<NextHop>, hop_limit: u8) {
        self.default_route = Some(DefaultRoute { hops, hop_limit });
    }

    /// Sends packets from this node to `destination` through this neighbour first, regardless of
    /// the route, because packets got no answer through the `avoided` ones. Packets of other nodes
    /// are not affected, and direct paths take precedence. Packets for a stub that would go to an
    /// avoided node that it is attached to go to the node `toward` instead.
    pub fn detour(
        &mut self,
        destination: NodeAddr,
        hop: NextHop,
        avoided: Vec<NodeAddr>,
        toward: Option<NodeAddr>,
    ) {
        self.detours.insert(destination, Detour { hop, avoided, toward });
    }

    /// The node that packets of this node for a stub are sent to. `at` is the attachment that the
    /// stub has announced; a detour may replace it by another one.
    #[must_use]
    pub fn attachment(&self, stub: NodeAddr, at: NodeAddr) -> NodeAddr {
        let detour = self.detours.get(&stub).filter(|detour| detour.avoided.contains(&at));
        detour.and_then(|detour| detour.toward).unwrap_or(at)
    }

    /// Sends packets from this node to `hop.neighbour` on a direct path, with or without a route.
    /// No other packets use it.
    pub fn direct(&mut self, hop: NextHop) {
        self.direct.insert(hop.neighbour, hop);
    }

    /// Admits packets with `cookie` on a direct path: only those from `peer` to this node.
    pub fn admit_direct(&mut self, cookie: Cookie, peer: NodeAddr) {
        self.direct_ingress.insert(cookie, peer);
    }

    /// Whether packets from this node to that one take a direct path.
    #[must_use]
    pub fn is_direct(&self, destination: NodeAddr) -> bool {
        self.direct.contains_key(&destination)
    }

    /// The node whose table this is.
    #[must_use]
    pub fn me(&self) -> NodeAddr {
        self.me
    }

    /// Decides about a packet that arrived with `header`.
    #[must_use]
    pub fn decide(&self, header: &Header) -> Decision {
        let Some(ingress) = self.ingress.get(&header.cookie) else {
            return self.decide_direct(header);
        };
        if header.source == self.me || !self.may_send(ingress, header) {
            return Decision::Drop(DropReason::ForgedSource);
        }
        let mut destination = header.destination;
        match header.attachment {
            Attachment::Stub(stub) if self.default_route.is_some() && stub == self.me => {
                return Decision::Deliver;
            }
            // For one of this node's stubs, which are linked as long as they are attached.
            Attachment::Stub(stub) if destination == self.me => {
                if !self.stubs.contains(&stub) {
                    return Decision::Drop(DropReason::NoRoute);
                }
                destination = stub;
            }
            _ if destination == self.me => return Decision::Deliver,
            _ => {}
        }
        let of_stub =
            || [ingress.neighbour, destination].iter().any(|node| self.stubs.contains(node));
        if !self.transit && !of_stub() {
            return Decision::Drop(DropReason::TransitDenied);
        }
        if header.hop_limit <= 1 {
            return Decision::Drop(DropReason::HopLimit);
        }
        let flow = Flow { source: header.source, destination };
        match self.next_hop(flow, Some(ingress.neighbour)) {
            Some(next_hop) => Decision::Forward(next_hop),
            None if destination != header.destination => Decision::Drop(DropReason::NoRoute),
            None => Decision::Hold,
        }
    }

    /// A direct path serves only its two ends.
    fn decide_direct(&self, header: &Header) -> Decision {
        match self.direct_ingress.get(&header.cookie) {
            None => Decision::Drop(DropReason::UnknownCookie),
            Some(peer) if *peer != header.source => Decision::Drop(DropReason::ForgedSource),
            Some(_) if header.end() != self.me => Decision::Drop(DropReason::TransitDenied),
            Some(_) => Decision::Deliver,
        }
    }

    /// Whether packets with this source may arrive from this neighbour: from a stub only its own,
    /// from a node that refuses transit also those of its stubs, and from other nodes all.
    fn may_send(&self, from: &Ingress, header: &Header) -> bool {
        let source = header.source;
        if self.stubs.contains(&from.neighbour) {
            // A stub cannot have replies sent to a node that it is not attached to.
            let attached_here =
                !matches!(header.attachment, Attachment::Source(node) if node != self.me);
            return source == from.neighbour && attached_here;
        }
        // A stub that claims this neighbour may be newer than the neighbour's record. One that is
        // known to be elsewhere, or that others also list without proof, is not accepted as the
        // neighbour's.
        let young = || {
            header.attachment == Attachment::Source(from.neighbour)
                && self.routes.get(source).is_none()
                && !self.routes.is_barred(source)
        };
        from.transit
            || source == from.neighbour
            || self.routes.is_stub_behind(source, from.neighbour)
            || young()
    }

    /// The node that this one is attached to as a stub. `None` if it is not a stub, or has no link.
    #[must_use]
    pub fn attached_to(&self) -> Option<NodeAddr> {
        Some(self.default_route.as_ref()?.hops.first()?.neighbour)
    }

    /// The node that this one, as a stub, is attached to in packets for `peer`: their first hop, so
    /// that answers return through it. `None` if it is not a stub, or has no link.
    #[must_use]
    pub fn attached_toward(&self, peer: NodeAddr) -> Option<NodeAddr> {
        let usual = self.attached_to()?;
        Some(self.detours.get(&peer).map_or(usual, |detour| detour.hop.neighbour))
    }

    /// Whether a node is reachable now; true for this node itself.
    #[must_use]
    pub fn reaches(&self, node: NodeAddr) -> bool {
        node == self.me || self.find_own(node, node).is_some()
    }

    /// The next hop and the hop limit of a packet of this node with this header: the peer itself if
    /// there is a direct path; for handshakes only if the mesh has no route.
    #[must_use]
    pub fn originate_packet(&self, header: &Header, handshake: bool) -> Option<(NextHop, u8)> {
        let direct = || self.direct.get(&header.end()).map(|hop| (*hop, DIRECT_HOP_LIMIT));
        // A packet for this node's own stub names this node as the destination.
        let toward = if header.destination == self.me { header.end() } else { header.destination };
        let relayed = || self.find_own(header.end(), toward);
        if handshake { relayed().or_else(direct) } else { direct().or_else(relayed) }
    }

    /// Like [`originate_packet`](Self::originate_packet), for a handshake packet that answers one
    /// received through `ingress`: it returns the same way, so that a handshake needs one working
    /// path instead of two. `None` if this node's packets avoid that neighbour, or there is no link
    /// to it.
    #[must_use]
    pub fn reply(&self, header: &Header, ingress: NodeAddr) -> Option<(NextHop, u8)> {
        if self.detours.get(&header.end()).is_some_and(|detour| detour.avoided.contains(&ingress)) {
            return None;
        }
        if let Some(default) = &self.default_route {
            let hop = default.hops.iter().find(|hop| hop.neighbour == ingress)?;
            return Some((*hop, default.hop_limit));
        }
        let toward = if header.destination == self.me { header.end() } else { header.destination };
        let route = self.routes.get(toward)?;
        let place = self.routes.place_of(ingress)?;
        // A neighbour whose own way leads back through this node uses an alternate, or drops the
        // packet.
        let limit = if route.leads_through(place) { route.hop_limit } else { DETOUR_HOP_LIMIT };
        self.hops[place].map(|hop| (hop, limit))
    }

    /// First hops of this node's packets with this header other than `used`, and their hop limits:
    /// equal-cost next hops and loop-free alternates, best first. None on a stub, whose packets
    /// name the neighbour they go through.
    pub fn other_first_hops(
        &self,
        header: &Header,
        used: NodeAddr,
    ) -> impl Iterator<Item = (NextHop, u8)> + '_ {
        let toward = if header.destination == self.me { header.end() } else { header.destination };
        let route = self.routes.get(toward);
        let places = route.into_iter().flat_map(move |route| {
            route.places().map(move |place| (place, route.leads_through(place), route.hop_limit))
        });
        places.filter_map(move |(place, shortest, hop_limit)| {
            let hop = self.hops[place].filter(|hop| hop.neighbour != used)?;
            Some((hop, if shortest { hop_limit } else { DETOUR_HOP_LIMIT }))
        })
    }

    /// Whether nodes list this one as their stub without proof: it has no route, but may get one
    /// once the proof is fetched.
    #[must_use]
    pub fn is_claimed(&self, node: NodeAddr) -> bool {
        self.routes.is_claimed(node)
    }

    /// The next hop of a flow, never its ingress.
    #[must_use]
    pub fn next_hop(&self, flow: Flow, ingress: Option<NodeAddr>) -> Option<NextHop> {
        self.find(flow, ingress).map(|(hop, _)| hop)
    }

    /// The next hop and the hop limit of a packet of this node; the peer itself if there is a
    /// direct path.
    #[must_use]
    pub fn originate(&self, destination: NodeAddr) -> Option<(NextHop, u8)> {
        if let Some(hop) = self.direct.get(&destination) {
            return Some((*hop, DIRECT_HOP_LIMIT));
        }
        self.find_own(destination, destination)
    }

    /// As [`originate`](Self::originate), but by the mesh where that has a route, even if there is
    /// a direct path: for handshakes, since the process at the end of the path may be gone, and
    /// another one in its place.
    #[must_use]
    pub fn originate_handshake(&self, destination: NodeAddr) -> Option<(NextHop, u8)> {
        self.find_own(destination, destination).or_else(|| self.originate(destination))
    }

    /// The neighbour and the hop limit for a packet of this node that ends at `end`, and is routed
    /// to `toward`.
    fn find_own(&self, end: NodeAddr, toward: NodeAddr) -> Option<(NextHop, u8)> {
        if let Some(detour) = self.detours.get(&end) {
            return Some((detour.hop, DETOUR_HOP_LIMIT));
        }
        self.find(Flow { source: self.me, destination: toward }, None)
    }

    fn find(&self, flow: Flow, ingress: Option<NodeAddr>) -> Option<(NextHop, u8)> {
        let usable = |hop: &NextHop| Some(hop.neighbour) != ingress;
        match self.routes.get(flow.destination) {
            Some(route) => {
                let hop = |place: usize| self.hops[place].as_ref().filter(|hop| usable(hop));
                let hop = route.choose(flow, |place| hop(place).map(|hop| (hop.neighbour, hop)))?;
                Some((*hop, route.hop_limit))
            }
            None => {
                let route = self.default_route.as_ref()?;
                let hop = route.hops.iter().find(|hop| usable(hop))?;
                Some((*hop, route.hop_limit))
            }
        }
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
        NextHop {
            neighbour,
            to: "127.0.0.1:9".parse().unwrap(),
            from: None,
            local_port: None,
            cookie: Cookie([7; 8]),
        }
    }

    fn relay(transit: bool) -> ForwardingTable {
        let mut table =
            linked(transit, &[(LEFT, &[LEFT], &[]), (RIGHT, &[RIGHT], &[]), (FAR, &[RIGHT], &[])]);
        table.link(hop(LEFT));
        table.link(hop(RIGHT));
        table
    }

    /// A table with routes, by their next hops and alternates, and with cookies, but without links.
    fn linked(transit: bool, ways: &[(NodeAddr, &[NodeAddr], &[NodeAddr])]) -> ForwardingTable {
        let mut routes = Routes::default();
        for (destination, next_hops, alternates) in ways {
            let mut places =
                |of: &[NodeAddr]| of.iter().map(|&via| routes.place(via)).collect::<Vec<_>>();
            let (next_hops, alternates) = (places(next_hops), places(alternates));
            routes.insert(*destination, next_hops, alternates, 12);
        }
        let mut table = ForwardingTable::new(ME, transit, Arc::new(routes));
        table.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit: false });
        table.admit(FROM_RIGHT, Ingress { neighbour: RIGHT, transit: true });
        table
    }

    fn packet(cookie: Cookie, source: NodeAddr, destination: NodeAddr) -> Header {
        Header { hop_limit: 9, cookie, destination, source, attachment: Attachment::None }
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
        assert_eq!(
            drop(Header { hop_limit: 1, ..packet(FROM_LEFT, LEFT, FAR) }),
            DropReason::HopLimit
        );
        assert_eq!(
            drop(Header { hop_limit: 0, ..packet(FROM_LEFT, LEFT, FAR) }),
            DropReason::HopLimit
        );
    }

    #[test]
    fn an_edge_takes_its_own_packets_and_carries_nobody_elses() {
        let table = relay(false);
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, ME)), Decision::Deliver);
        assert_eq!(
            table.decide(&packet(FROM_RIGHT, FAR, LEFT)),
            Decision::Drop(DropReason::TransitDenied)
        );
    }

    #[test]
    fn a_detour_is_for_packets_that_begin_here_only() {
        let mut table =
            linked(true, &[(LEFT, &[LEFT], &[]), (RIGHT, &[RIGHT], &[]), (FAR, &[RIGHT], &[LEFT])]);
        table.link(hop(LEFT));
        table.link(hop(RIGHT));
        table.detour(FAR, hop(LEFT), vec![RIGHT], None);
        assert_eq!(table.originate(FAR), Some((hop(LEFT), DETOUR_HOP_LIMIT)));
        assert_eq!(table.originate_handshake(FAR), Some((hop(LEFT), DETOUR_HOP_LIMIT)));
        assert_eq!(table.originate(RIGHT).unwrap().0, hop(RIGHT));
        assert_eq!(table.decide(&packet(FROM_LEFT, LEFT, FAR)), Decision::Forward(hop(RIGHT)));
        table.direct(hop(FAR));
        assert_eq!(table.originate(FAR), Some((hop(FAR), DIRECT_HOP_LIMIT)));
    }

    #[test]
    fn a_handshake_is_answered_the_way_it_came() {
        let mut table =
            linked(true, &[(LEFT, &[LEFT], &[]), (RIGHT, &[RIGHT], &[]), (FAR, &[RIGHT], &[LEFT])]);
        table.link(hop(RIGHT));
        let header = packet(FROM_LEFT, ME, FAR);
        assert_eq!(table.reply(&header, LEFT), None, "the link is gone");
        table.link(hop(LEFT));
        assert_eq!(table.reply(&header, LEFT), Some((hop(LEFT), 12)));
        let around = Some((hop(LEFT), DETOUR_HOP_LIMIT));
        assert_eq!(
            table.reply(&packet(FROM_LEFT, ME, RIGHT), LEFT),
            around,
            "the longer way round"
        );
        table.detour(FAR, hop(RIGHT), vec![], None);
        assert_eq!(table.reply(&header, LEFT), Some((hop(LEFT), 12)), "the peer's choice is newer");
        table.detour(FAR, hop(RIGHT), vec![LEFT], Some(RIGHT));
        assert_eq!(
            table.reply(&header, LEFT),
            None,
            "nothing returns through a neighbour that is avoided"
        );
        assert_eq!([LEFT, ME].map(|at| table.attachment(FAR, at)), [RIGHT, ME]);
    }

    #[test]
    fn an_edge_carries_packets_from_and_to_its_stubs() {
        let mut table = relay(false);
        table.attach(LEFT);
        assert_eq!(table.decide(&packet(FROM_LEFT, LEFT, FAR)), Decision::Forward(hop(RIGHT)));
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, LEFT)), Decision::Forward(hop(LEFT)));
        // That a packet names a stub as its source makes it no packet of the stub.
        table.admit(Cookie([13; 8]), Ingress { neighbour: NodeAddr([4; 8]), transit: true });
        let forged = packet(Cookie([13; 8]), LEFT, FAR);
        assert_eq!(table.decide(&forged), Decision::Drop(DropReason::TransitDenied));
    }

    #[test]
    fn an_edge_may_send_the_packets_of_stubs_that_are_reached_through_it() {
        let [near, far, elsewhere, node, unknown] = [5, 6, 7, 8, 9].map(|n| NodeAddr([n; 8]));
        let mut routes = Routes::default();
        let (left, right) = (routes.place(LEFT), routes.place(RIGHT));
        routes.insert(FAR, [right], [], 12);
        routes.insert(near, [left], [], 12);
        routes.insert(far, [right], [left], 12);
        routes.insert(elsewhere, [right], [], 12);
        routes.insert(node, [left], [], 12);
        [near, far, elsewhere, unknown].iter().for_each(|&stub| routes.stub(stub));
        let mut table = ForwardingTable::new(ME, true, Arc::new(routes));
        table.link(hop(RIGHT));
        table.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit: false });
        let (forward, forged) =
            (Decision::Forward(hop(RIGHT)), Decision::Drop(DropReason::ForgedSource));
        let decided = |table: &ForwardingTable| {
            [near, far, elsewhere, node, unknown]
                .map(|source| table.decide(&packet(FROM_LEFT, source, FAR)))
        };
        assert_eq!(decided(&table), [forward, forward, forged, forged, forged]);
        // A stub sends its own packets only, whatever others say of it.
        table.attach(LEFT);
        assert_eq!(decided(&table), [forged; 5]);
        assert_eq!(table.decide(&packet(FROM_LEFT, LEFT, FAR)), forward);
    }

    #[test]
    fn a_packet_never_goes_back_to_the_neighbour_it_came_from() {
        let mut table = relay(true);
        assert_eq!(table.decide(&packet(FROM_RIGHT, LEFT, FAR)), Decision::Hold);
        table = linked(true, &[(FAR, &[RIGHT, LEFT], &[])]);
        table.link(hop(RIGHT));
        table.link(hop(LEFT));
        assert_eq!(table.decide(&packet(FROM_RIGHT, LEFT, FAR)), Decision::Forward(hop(LEFT)));
    }

    #[test]
    fn an_alternate_serves_when_no_next_hop_can_and_never_back() {
        const THIRD: NodeAddr = NodeAddr([4; 8]);
        let mut table = linked(true, &[(FAR, &[RIGHT], &[THIRD, LEFT])]);
        let from_left = packet(FROM_LEFT, LEFT, FAR);
        assert_eq!((table.decide(&from_left), table.originate(FAR)), (Decision::Hold, None));
        table.link(hop(LEFT));
        assert_eq!(
            (table.decide(&from_left), table.originate(FAR)),
            (Decision::Hold, Some((hop(LEFT), 12)))
        );
        assert_eq!(table.decide(&packet(FROM_RIGHT, FAR, FAR)), Decision::Forward(hop(LEFT)));
        table.link(hop(THIRD));
        assert_eq!(table.decide(&from_left), Decision::Forward(hop(THIRD)));
        table.link(hop(RIGHT));
        assert_eq!(table.decide(&from_left), Decision::Forward(hop(RIGHT)));
        assert_eq!(table.originate(FAR), Some((hop(RIGHT), 12)));
    }

    #[test]
    fn flows_are_spread_over_next_hops_of_equal_cost_and_each_keeps_its_way() {
        let mut table = linked(true, &[(FAR, &[LEFT, RIGHT], &[])]);
        table.link(hop(LEFT));
        table.link(hop(RIGHT));
        let mut used = [0, 0];
        for n in 0..100 {
            let flow = Flow { source: NodeAddr([n; 8]), destination: FAR };
            let chosen = table.next_hop(flow, None).unwrap();
            assert_eq!(table.next_hop(flow, None), Some(chosen));
            used[usize::from(chosen == hop(RIGHT))] += 1;
            let other = if chosen == hop(LEFT) { RIGHT } else { LEFT };
            assert_eq!(table.next_hop(flow, Some(chosen.neighbour)), Some(hop(other)));
        }
        assert!(used.iter().all(|&n| n > 30), "{used:?}");
    }

    #[test]
    fn what_begins_here_takes_the_direct_path_and_what_others_send_does_not() {
        let direct = NextHop { neighbour: FAR, to: "127.0.0.1:8".parse().unwrap(), ..hop(FAR) };
        let mut table = relay(true);
        assert!(!table.is_direct(FAR));
        table.direct(direct);
        assert!(table.is_direct(FAR));
        assert_eq!(table.originate(FAR), Some((direct, 1)));
        assert_eq!(table.decide(&packet(FROM_LEFT, LEFT, FAR)), Decision::Forward(hop(RIGHT)));
        assert_eq!(
            table.next_hop(Flow { source: LEFT, destination: FAR }, Some(LEFT)),
            Some(hop(RIGHT))
        );
        // Without a route as well.
        let mut alone = ForwardingTable::new(ME, true, Arc::default());
        alone.direct(direct);
        assert_eq!(alone.originate(FAR), Some((direct, 1)));
        assert_eq!(alone.originate(RIGHT), None);
        // Handshakes stay in the mesh, as long as it has a way.
        assert_eq!(table.originate_handshake(FAR), Some((hop(RIGHT), 12)));
        assert_eq!(alone.originate_handshake(FAR), Some((direct, 1)));
    }

    #[test]
    fn a_direct_path_brings_the_peers_own_packets_for_this_node_and_no_others() {
        const FROM_FAR: Cookie = Cookie([14; 8]);
        for transit in [true, false] {
            let mut table = relay(transit);
            let own = packet(FROM_FAR, FAR, ME);
            assert_eq!(table.decide(&own), Decision::Drop(DropReason::UnknownCookie));
            table.admit_direct(FROM_FAR, FAR);
            assert_eq!(table.decide(&own), Decision::Deliver);
            assert_eq!(table.decide(&Header { hop_limit: 1, ..own }), Decision::Deliver);
            let drop = |header| table.decide(&header);
            assert_eq!(drop(packet(FROM_FAR, LEFT, ME)), Decision::Drop(DropReason::ForgedSource));
            assert_eq!(drop(packet(FROM_FAR, ME, ME)), Decision::Drop(DropReason::ForgedSource));
            assert_eq!(
                drop(packet(FROM_FAR, FAR, LEFT)),
                Decision::Drop(DropReason::TransitDenied)
            );
            // Another path's cookie does not serve, nor one that was guessed.
            assert_eq!(
                drop(packet(Cookie([15; 8]), FAR, ME)),
                Decision::Drop(DropReason::UnknownCookie)
            );
        }
    }

    const STUB: NodeAddr = NodeAddr([5; 8]);

    #[test]
    fn packets_for_a_stub_go_to_the_node_it_is_attached_to_which_delivers_them() {
        let to_stub =
            |cookie, at| Header { attachment: Attachment::Stub(STUB), ..packet(cookie, LEFT, at) };
        // Nodes on the way need no route to the stub.
        let mut table = relay(true);
        assert_eq!(table.decide(&to_stub(FROM_LEFT, FAR)), Decision::Forward(hop(RIGHT)));
        // The node it is attached to has one, as long as it is attached, whether or not it carries
        // transit.
        assert_eq!(table.decide(&to_stub(FROM_LEFT, ME)), Decision::Drop(DropReason::NoRoute));
        for transit in [true, false] {
            table = linked(transit, &[(LEFT, &[LEFT], &[]), (STUB, &[STUB], &[])]);
            table.link(hop(STUB));
            table.attach(STUB);
            assert_eq!(table.decide(&to_stub(FROM_LEFT, ME)), Decision::Forward(hop(STUB)));
        }
        // No other node accepts it.
        let other = Header { attachment: Attachment::Stub(ME), ..packet(FROM_LEFT, LEFT, FAR) };
        assert_ne!(table.decide(&other), Decision::Deliver);
        let mut stub = ForwardingTable::new(STUB, false, Arc::default());
        stub.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit: true });
        assert_ne!(stub.decide(&to_stub(FROM_LEFT, LEFT)), Decision::Deliver);
        stub.set_default_route(vec![hop(LEFT)], 64);
        assert_eq!(stub.decide(&to_stub(FROM_LEFT, LEFT)), Decision::Deliver);
        assert_eq!(stub.attached_to(), Some(LEFT));
    }

    #[test]
    fn a_stubs_attachment_is_believed_of_the_node_it_names_and_never_against_a_route() {
        let forged = Decision::Drop(DropReason::ForgedSource);
        let from_stub =
            |cookie, at| Header { attachment: Attachment::Source(at), ..packet(cookie, STUB, FAR) };
        let table_with = |ways: &[(NodeAddr, &[NodeAddr], &[NodeAddr])], transit| {
            let mut table = linked(true, ways);
            table.admit(FROM_LEFT, Ingress { neighbour: LEFT, transit });
            table.link(hop(LEFT));
            table.link(hop(RIGHT));
            table
        };
        let far: (NodeAddr, &[NodeAddr], &[NodeAddr]) = (FAR, &[RIGHT], &[]);
        // A neighbour without transit may send for a young stub of its own,
        let table = table_with(&[far], false);
        assert_eq!(table.decide(&from_stub(FROM_LEFT, LEFT)), Decision::Forward(hop(RIGHT)));
        // but not for one that it says is elsewhere, nor for a node that is known to be elsewhere.
        assert_eq!(table.decide(&from_stub(FROM_LEFT, FAR)), forged);
        assert_eq!(table.decide(&packet(FROM_LEFT, STUB, FAR)), forged);
        let table = table_with(&[far, (STUB, &[RIGHT], &[])], false);
        assert_eq!(table.decide(&from_stub(FROM_LEFT, LEFT)), forged);
        // A stub speaks for itself, and only as attached to this node.
        let mut table = table_with(&[far], false);
        table.admit(FROM_RIGHT, Ingress { neighbour: STUB, transit: false });
        table.attach(STUB);
        assert_eq!(table.decide(&from_stub(FROM_RIGHT, ME)), Decision::Forward(hop(RIGHT)));
        assert_eq!(table.decide(&from_stub(FROM_RIGHT, LEFT)), forged);
        let other = Header { source: LEFT, ..from_stub(FROM_RIGHT, ME) };
        assert_eq!(table.decide(&other), forged);
    }

    #[test]
    fn replies_to_a_stub_start_toward_its_attachment_or_straight_to_it() {
        let mut table = relay(true);
        let reply = |at| Header { attachment: Attachment::Stub(STUB), ..packet(FROM_LEFT, ME, at) };
        assert_eq!(table.originate_packet(&reply(FAR), true), Some((hop(RIGHT), 12)));
        assert_eq!(table.originate_packet(&reply(STUB), true), None);
        assert!(table.reaches(FAR) && table.reaches(ME) && !table.reaches(STUB));
        let direct = NextHop { neighbour: STUB, to: "127.0.0.1:8".parse().unwrap(), ..hop(STUB) };
        table.direct(direct);
        assert_eq!(table.originate_packet(&reply(FAR), false), Some((direct, 1)));
        assert_eq!(table.originate_packet(&reply(FAR), true), Some((hop(RIGHT), 12)));
    }

    #[test]
    fn a_stub_sends_everything_to_its_default_route() {
        let mut table = ForwardingTable::new(ME, false, Arc::default());
        assert_eq!(table.originate(FAR), None);
        table.set_default_route(vec![hop(RIGHT), hop(LEFT)], 64);
        assert_eq!(table.originate(FAR), Some((hop(RIGHT), 64)));
    }
}
