//! The state behind a network's handles: who is bound where, and what happens to a datagram between
//! them.

use super::counters::NetCounters;
use super::nat::behaviour::{Mapping, NatBehaviour};
use super::nat::gateway::{Gateway, Kept};
use super::nat::transit::{GatewayId, Leg, Side, Transit};
use super::nat::translation::TranslationTable;
use super::spot::{Endpoint, Realm, Spot};
use crate::rng::SplitMix64;
use crate::testing::delivery::cuts::Cuts;
use crate::testing::delivery::inbox::{Inbox, Parcel};
use crate::testing::delivery::lane::Fate;
use crate::testing::delivery::sieve::Sieve;
use crate::testing::delivery::wires::Wires;
use bytes::Bytes;
use quinn::udp::Transmit;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    task::Waker,
};
use tokio::time::Instant;

/// The state behind a network's handles.
#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) cuts: Cuts,
    pub(super) sieve: Sieve,
    pub(super) wires: Wires,
    pub(super) transit: Transit,
    /// Whether a task waits for what is in transit.
    pub(super) pumped: bool,
    rng: SplitMix64,
    counters: NetCounters,
    addresses: BTreeMap<Endpoint, SocketId>,
    inboxes: BTreeMap<SocketId, Inbox>,
    /// The gateway `n` has the realm `n + 1` behind it.
    gateways: Vec<Gateway>,
    /// What is reached through a gateway, from outside.
    behind: BTreeMap<Spot, GatewayId>,
    nats: u32,
    sockets: u64,
    datagrams: u64,
}

/// A socket, whatever its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketId(u64);

/// Where a datagram goes next.
enum Next {
    Socket(SocketId),
    Gateway(GatewayId, Side),
}

impl Fabric {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            cuts: Cuts::default(),
            sieve: Sieve::default(),
            wires: Wires::default(),
            transit: Transit::default(),
            pumped: false,
            rng: SplitMix64::new(seed),
            counters: NetCounters::default(),
            addresses: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            gateways: Vec::new(),
            behind: BTreeMap::new(),
            nats: 0,
            sockets: 0,
            datagrams: 0,
        }
    }

    pub(super) fn bind(&mut self, home: Endpoint) -> io::Result<(SocketId, SocketAddr)> {
        let home = self.free_address(home)?;
        let id = SocketId(self.sockets);
        self.sockets += 1;
        self.addresses.insert(home, id);
        self.inboxes.insert(id, Inbox::new(home));
        Ok((id, home.address))
    }

    /// Frees the socket's address. What was on its way to it is unreachable. The inbox is for the
    /// caller to drop, outside of any lock.
    pub(super) fn unbind(&mut self, id: SocketId) -> Option<Inbox> {
        let inbox = self.inboxes.remove(&id)?;
        self.counters.unreachable += inbox.in_flight() as u64;
        self.addresses.remove(&inbox.home);
        self.forget_lanes(inbox.home.spot());
        Some(inbox)
    }

    /// The socket that is bound there.
    pub(super) fn socket_at(&self, home: Endpoint) -> Option<SocketId> {
        self.addresses.get(&home).copied()
    }

    /// Moves a socket elsewhere. What is on its way to it is unreachable.
    pub(super) fn move_to(
        &mut self,
        id: SocketId,
        new: Endpoint,
        now: Instant,
    ) -> io::Result<SocketAddr> {
        let new = self.free_address(new)?;
        let inbox = self.inboxes.get_mut(&id).ok_or(io::ErrorKind::AddrNotAvailable)?;
        settle(inbox, &mut self.counters, now);
        let old = std::mem::replace(&mut inbox.home, new);
        self.counters.unreachable += inbox.intercept(|_| true);
        self.addresses.remove(&old);
        self.addresses.insert(new, id);
        self.forget_lanes(old.spot());
        Ok(new.address)
    }

    pub(super) fn home(&self, id: SocketId) -> Option<Endpoint> {
        Some(self.inboxes.get(&id)?.home)
    }

    /// Whether a socket is bound at this host.
    pub(super) fn is_inhabited(&self, host: Spot) -> bool {
        let port = |port| host.realm.endpoint(SocketAddr::new(host.ip, port));
        self.addresses.range(port(0)..=port(u16::MAX)).next().is_some()
    }

    /// Puts a NAT or a firewall before a new realm, behind another NAT or on the Internet.
    pub(super) fn add_nat(
        &mut self,
        parent: Option<GatewayId>,
        behaviour: NatBehaviour,
    ) -> (GatewayId, Realm) {
        let number =
            u16::try_from(self.gateways.len() + 1).expect("a network has fewer than 65,536 NATs");
        let address = match (parent, behaviour.mapping) {
            (_, Mapping::Untranslated) => firewalled(number, 1),
            (None, _) => self.public_address(),
            (Some(parent), _) => self.next_outer(parent),
        };
        let outer = parent.map_or(Realm::INTERNET, |parent| self.gateway(parent).inner);
        let (id, inner) = (GatewayId(self.gateways.len()), Realm(usize::from(number)));
        if behaviour.mapping != Mapping::Untranslated {
            self.behind.insert(outer.spot(address), id);
        }
        let table = TranslationTable::default();
        let (hosts, nats, blocked) = (0, 0, None);
        self.gateways.push(Gateway {
            behaviour,
            blocked,
            address,
            outer,
            inner,
            table,
            hosts,
            nats,
        });
        (id, inner)
    }

    pub(super) fn gateway(&mut self, id: GatewayId) -> &mut Gateway {
        self.gateways.get_mut(id.0).expect("gateways stay")
    }

    /// An address for one more host behind a gateway.
    pub(super) fn next_inner(&mut self, id: GatewayId) -> IpAddr {
        let gateway = self.gateway(id);
        gateway.hosts = gateway.hosts.checked_add(1).expect("fewer than 65,536 hosts behind a NAT");
        let host = gateway.hosts + 1;
        if gateway.translates() {
            return Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 1, 0).to_bits() + u32::from(host))
                .into();
        }
        let ip = firewalled(gateway.inner.0 as u16, host);
        let outer = gateway.outer.spot(ip);
        self.behind.insert(outer, id);
        ip
    }

    pub(super) fn renumber(&mut self, id: GatewayId) -> IpAddr {
        let gateway = self.gateway(id);
        gateway.table.flush();
        if !gateway.translates() {
            return gateway.address;
        }
        let (outer, old) = (gateway.outer, gateway.address);
        let parent = outer.0.checked_sub(1).map(GatewayId);
        let new = match parent {
            None => self.public_address(),
            Some(parent) => self.next_outer(parent),
        };
        self.gateway(id).address = new;
        self.behind.remove(&outer.spot(old));
        self.behind.insert(outer.spot(new), id);
        self.wires.move_access(outer.spot(old), outer.spot(new));
        self.forget_lanes(outer.spot(old));
        new
    }

    /// Sends the datagrams of a transmit, and says whom to wake, outside of any lock.
    pub(super) fn send(
        &mut self,
        id: SocketId,
        transmit: &Transmit<'_>,
        now: Instant,
    ) -> Option<Waker> {
        let home = self.home(id)?;
        let destination = home.realm.endpoint(transmit.destination).address;
        let contents = Bytes::copy_from_slice(transmit.contents);
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        let mut rest = contents;
        let mut waker = None;
        loop {
            let contents = rest.split_to(segment.min(rest.len()));
            self.counters.sent += 1;
            let parcel = Parcel { source: home.address, destination, ecn: transmit.ecn, contents };
            // All go the same way, so that there is one to be woken at most.
            waker = self.dispatch(home.realm, parcel, now).or(waker);
            if rest.is_empty() {
                return waker;
            }
        }
    }

    /// Lets the gateways decide about what has reached them by now, and says whom to wake, outside
    /// of any lock.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some((at, Leg { gateway, side, mut parcel, .. })) = self.transit.pop(now) {
            let gateway = self.gateways.get_mut(gateway.0).expect("gateways stay");
            match gateway.translate(side, &mut parcel, &mut self.rng, at) {
                Ok(realm) => wakers.extend(self.dispatch(realm, parcel, at)),
                Err(Kept::Filtered) => self.counters.filtered += 1,
                Err(Kept::Unreachable) => self.counters.unreachable += 1,
            }
        }
        wakers
    }

    /// What has arrived for this socket.
    pub(super) fn inbox(&mut self, id: SocketId, now: Instant) -> &mut Inbox {
        let inbox = self.inboxes.get_mut(&id).expect("a socket is bound until it is dropped");
        settle(inbox, &mut self.counters, now);
        inbox
    }

    /// Takes what is on its way across a cut off the wire.
    pub(super) fn intercept(&mut self, now: Instant) {
        for inbox in self.inboxes.values_mut() {
            settle(inbox, &mut self.counters, now);
            let to = inbox.home.spot();
            let blocks = |from: SocketAddr| self.cuts.blocks(to.realm.spot(from.ip()), to);
            self.counters.dropped_partitioned += inbox.intercept(blocks);
        }
        self.counters.dropped_partitioned +=
            self.transit.intercept(|from, to| self.cuts.blocks(from, to));
    }

    pub(super) fn counters(&mut self, now: Instant) -> NetCounters {
        let mut in_flight = self.transit.len() as u64;
        for inbox in self.inboxes.values_mut() {
            settle(inbox, &mut self.counters, now);
            in_flight += inbox.in_flight() as u64;
        }
        NetCounters { in_flight, ..self.counters }
    }

    /// Puts a datagram on its way within a realm, and says whom to wake for that.
    fn dispatch(&mut self, realm: Realm, parcel: Parcel, now: Instant) -> Option<Waker> {
        let (from, to) = (realm.spot(parcel.source.ip()), realm.spot(parcel.destination.ip()));
        if self.cuts.blocks(from, to) {
            self.counters.dropped_partitioned += 1;
            return None;
        }
        let Some(next) = self.next(realm.endpoint(parcel.destination)) else {
            self.counters.unreachable += 1;
            return None;
        };
        if self.sieve.loses(from, to, &parcel.contents) {
            self.counters.lost += 1;
            return None;
        }
        match self.wires.carry((from, to), parcel.contents.len(), &mut self.rng, now) {
            Fate::Lost => self.counters.lost += 1,
            Fate::Oversized => self.counters.oversized += 1,
            Fate::QueueFull => self.counters.dropped_full += 1,
            Fate::Arrives(due) => {
                self.datagrams += 1;
                return self.deliver(next, (from, to), parcel, due);
            }
        }
        None
    }

    fn next(&self, to: Endpoint) -> Option<Next> {
        if let Some(&id) = self.addresses.get(&to) {
            return Some(Next::Socket(id));
        }
        if let Some(&id) = self.behind.get(&to.spot()) {
            return Some(Next::Gateway(id, Side::Outer));
        }
        // The way out; who is at home is not looked for elsewhere.
        let uplink =
            to.realm.0.checked_sub(1).map(GatewayId).filter(|_| !self.is_inhabited(to.spot()))?;
        Some(Next::Gateway(uplink, Side::Inner))
    }

    fn deliver(
        &mut self,
        next: Next,
        (from, to): (Spot, Spot),
        parcel: Parcel,
        due: Instant,
    ) -> Option<Waker> {
        // A sleeper sleeps until the first arrival it knows of: only an earlier one is news to it.
        match next {
            Next::Socket(id) => {
                let inbox = self.inboxes.get_mut(&id)?;
                let earlier = inbox.next_due().is_none_or(|before| due < before);
                if inbox.push(due, self.datagrams, parcel) {
                    return earlier.then(|| inbox.take_waker()).flatten();
                }
            }
            Next::Gateway(gateway, side) => {
                let earlier = self.transit.next_due().is_none_or(|before| due < before);
                let leg = Leg { from, to, gateway, side, parcel };
                if self.transit.push(due, self.datagrams, leg) {
                    return earlier.then(|| self.transit.take_waker()).flatten();
                }
            }
        }
        self.counters.dropped_full += 1;
        None
    }

    fn free_address(&self, wanted: Endpoint) -> io::Result<Endpoint> {
        let Endpoint { realm, address } = wanted;
        if address.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let ports =
            if address.port() == 0 { EPHEMERAL_PORTS } else { address.port()..=address.port() };
        ports
            .map(|port| realm.endpoint(SocketAddr::new(address.ip(), port)))
            .find(|home| !self.addresses.contains_key(home))
            .ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }

    /// The next address of 198.18.0.0/15 that no NAT has had.
    fn public_address(&mut self) -> IpAddr {
        self.nats += 1;
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + self.nats).into()
    }

    /// The next address of 100.64.0.0/10 behind a NAT.
    fn next_outer(&mut self, parent: GatewayId) -> IpAddr {
        let parent = self.gateway(parent);
        assert!(parent.translates(), "there are no NATs behind a firewall");
        parent.nats = parent.nats.checked_add(1).expect("fewer than 65,536 NATs behind a NAT");
        Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + u32::from(parent.nats)).into()
    }

    /// Keeps the table of lanes no larger than the square of the hosts there are.
    fn forget_lanes(&mut self, host: Spot) {
        if !self.is_inhabited(host) {
            self.wires.forget_lanes(host);
        }
    }
}

/// What port 0 is chosen from, in order.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=u16::MAX;

/// A host behind a firewall.
fn firewalled(firewall: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, firewall, 0, 0, 0, 0, host).into()
}

fn settle(inbox: &mut Inbox, counters: &mut NetCounters, now: Instant) {
    let arrivals = inbox.settle(now);
    counters.delivered += arrivals.datagrams;
    counters.bytes += arrivals.bytes;
    counters.dropped_unread += arrivals.overflowed;
}
