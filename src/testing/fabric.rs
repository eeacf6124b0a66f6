//! The state behind a network's handles: who is bound where, and what happens to a datagram between them.

use super::{
    counters::NetCounters,
    cuts::Cuts,
    inbox::{Datagram, Inbox},
    lane::{Fate, Lane},
    quality::LinkQuality,
    rng::SplitMix64,
};
use bytes::Bytes;
use quinn::udp::{EcnCodepoint, Transmit};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    task::Waker,
};
use tokio::time::Instant;

/// The state behind a network's handles. All of its addresses are canonical.
#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) cuts: Cuts,
    pub(super) default: LinkQuality,
    rng: SplitMix64,
    counters: NetCounters,
    /// By direction: from the first host to the second.
    qualities: BTreeMap<(IpAddr, IpAddr), LinkQuality>,
    lanes: BTreeMap<(IpAddr, IpAddr), Lane>,
    addresses: BTreeMap<SocketAddr, SocketId>,
    inboxes: BTreeMap<SocketId, Inbox>,
    sockets: u64,
    datagrams: u64,
}

/// A socket, whatever its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SocketId(u64);

impl Fabric {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            cuts: Cuts::default(),
            default: LinkQuality::default(),
            rng: SplitMix64::new(seed),
            counters: NetCounters::default(),
            qualities: BTreeMap::new(),
            lanes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            sockets: 0,
            datagrams: 0,
        }
    }

    pub(super) fn bind(&mut self, address: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        let address = self.free_address(address)?;
        let id = SocketId(self.sockets);
        self.sockets += 1;
        self.addresses.insert(address, id);
        self.inboxes.insert(id, Inbox::new(address));
        Ok((id, address))
    }

    /// Frees the socket's address. What was on its way to it is unreachable. The inbox is for the caller to
    /// drop, outside of any lock.
    pub(super) fn unbind(&mut self, id: SocketId) -> Option<Inbox> {
        let inbox = self.inboxes.remove(&id)?;
        self.counters.unreachable += inbox.in_flight() as u64;
        self.addresses.remove(&inbox.address);
        self.forget_lanes(inbox.address.ip());
        Some(inbox)
    }

    pub(super) fn rebind(
        &mut self,
        old: SocketAddr,
        new: SocketAddr,
        now: Instant,
    ) -> io::Result<SocketAddr> {
        let id = *self.addresses.get(&old).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let new = self.free_address(new)?;
        self.addresses.remove(&old);
        self.addresses.insert(new, id);
        let inbox = self.inboxes.get_mut(&id).expect("a bound address has an inbox");
        settle(inbox, &mut self.counters, now);
        inbox.address = new;
        self.counters.unreachable += inbox.intercept(|_| true);
        self.forget_lanes(old.ip());
        Ok(new)
    }

    pub(super) fn address(&self, id: SocketId) -> Option<SocketAddr> {
        Some(self.inboxes.get(&id)?.address)
    }

    /// Whether a socket is bound at this host.
    pub(super) fn is_inhabited(&self, host: IpAddr) -> bool {
        let ports = SocketAddr::new(host, 0)..=SocketAddr::new(host, u16::MAX);
        self.addresses.range(ports).next().is_some()
    }

    pub(super) fn set_quality(&mut self, from: IpAddr, to: IpAddr, quality: LinkQuality) {
        self.qualities.insert((from, to), quality);
    }

    /// Sends the datagrams of a transmit, and says whom to wake, outside of any lock.
    pub(super) fn send(&mut self, id: SocketId, transmit: &Transmit<'_>, now: Instant) -> Option<Waker> {
        let source = self.address(id)?;
        let destination = canonical(transmit.destination);
        let contents = Bytes::copy_from_slice(transmit.contents);
        let segment = transmit.segment_size.unwrap_or(contents.len()).max(1);
        let receiver = self.addresses.get(&destination).copied();
        let due_before = receiver.and_then(|receiver| self.next_due(receiver, now));
        let mut rest = contents;
        loop {
            let datagram = rest.split_to(segment.min(rest.len()));
            self.send_one(source, destination, receiver, transmit.ecn, datagram, now);
            if rest.is_empty() {
                break;
            }
        }
        let inbox = self.inboxes.get_mut(&receiver?)?;
        // A receiver sleeps until the first arrival it knows of: only an earlier one is news to it.
        let earlier = inbox.next_due().is_some_and(|due| due_before.is_none_or(|before| due < before));
        if earlier { inbox.take_waker() } else { None }
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
            let to = inbox.address.ip();
            self.counters.dropped_partitioned += inbox.intercept(|from| self.cuts.blocks(from.ip(), to));
        }
    }

    pub(super) fn counters(&mut self, now: Instant) -> NetCounters {
        let mut in_flight = 0;
        for inbox in self.inboxes.values_mut() {
            settle(inbox, &mut self.counters, now);
            in_flight += inbox.in_flight() as u64;
        }
        NetCounters { in_flight, ..self.counters }
    }

    fn next_due(&mut self, receiver: SocketId, now: Instant) -> Option<Instant> {
        self.inbox(receiver, now).next_due()
    }

    fn send_one(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        receiver: Option<SocketId>,
        ecn: Option<EcnCodepoint>,
        contents: Bytes,
        now: Instant,
    ) {
        self.counters.sent += 1;
        let hosts = (source.ip(), destination.ip());
        if self.cuts.blocks(hosts.0, hosts.1) {
            self.counters.dropped_partitioned += 1;
            return;
        }
        let Some(inbox) = receiver.and_then(|receiver| self.inboxes.get_mut(&receiver)) else {
            self.counters.unreachable += 1;
            return;
        };
        let quality = self.qualities.get(&hosts).unwrap_or(&self.default);
        let lane = self.lanes.entry(hosts).or_default();
        match lane.send(contents.len(), quality, &mut self.rng, now) {
            Fate::Lost => self.counters.lost += 1,
            Fate::Oversized => self.counters.oversized += 1,
            Fate::QueueFull => self.counters.dropped_full += 1,
            Fate::Arrives(due) => {
                self.datagrams += 1;
                if !inbox.push(due, self.datagrams, Datagram { source, ecn, contents }) {
                    self.counters.dropped_full += 1;
                }
            }
        }
    }

    fn free_address(&self, wanted: SocketAddr) -> io::Result<SocketAddr> {
        if wanted.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let ports = if wanted.port() == 0 { EPHEMERAL_PORTS } else { wanted.port()..=wanted.port() };
        ports
            .map(|port| SocketAddr::new(wanted.ip(), port))
            .find(|address| !self.addresses.contains_key(address))
            .ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }

    /// Keeps the table of lanes no larger than the square of the hosts there are.
    fn forget_lanes(&mut self, host: IpAddr) {
        if !self.is_inhabited(host) {
            self.lanes.retain(|(from, to), _| *from != host && *to != host);
        }
    }
}

/// An address as the network knows it: IPv4 where it can be, no scope, no flow label.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What port 0 is chosen from, in order.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=u16::MAX;

fn settle(inbox: &mut Inbox, counters: &mut NetCounters, now: Instant) {
    let arrivals = inbox.settle(now);
    counters.delivered += arrivals.datagrams;
    counters.bytes += arrivals.bytes;
    counters.dropped_unread += arrivals.overflowed;
}
