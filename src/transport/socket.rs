//! The socket under quinn: the only file that names quinn's socket traits.
//!
//! quinn believes that it talks to every peer directly. This socket takes what it sends to an overlay address, puts a
//! header in front of every packet, and sends it to the next hop; and it sorts what comes in:
//!
//! ```text
//!              quinn
//!   try_send ▼       ▲ poll_recv
//!   ┌────────┴───────┴──────────────────────────┐
//!   │ overlay? ─▶ header on    header off ◀─ for me
//!   │    │                                  ▲   │
//!   │    │         ForwardingTable ── sort ─┤   │      loopback: a node's packets to itself
//!   │    │                                  ▼   │      hold: no route yet
//!   │    │                      rewrite, send on│      backlog: the socket was full
//!   └────┼──────────────────────────────────┬───┘
//!        ▼           UDP sockets            ▼
//! ```
//!
//! Batches stay whole: a buffer that GRO filled is looked at segment by segment, but sent on, or handed to quinn, run
//! by run of segments with the same header. Runs for the same next hop that came in together go out together.

mod egress;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tracing::trace;

use self::egress::{Batch, Egress};
use super::probes::Probes;
use super::{overlay, runtime};
use crate::id::NodeAddr;
use crate::switch::{
    Backlog, Cookie, DIRECT_HOP_LIMIT, Decision, DropReason, Flow, ForwardingTable, Header, HeldPacket,
    HoldQueue, Meter, NextHop, SwitchCounters,
};

/// The largest datagram that IPv4 carries: what one send may hold, all its segments together.
pub(super) const MAX_SEND: usize = 65_507;
/// Packets that wait to be handed to quinn, at most: runs of a buffer that held packets of several senders.
const MAX_PENDING: usize = 1024;

/// The last packet that was sent to a peer.
///
/// When the way to a peer changes, this packet is sent again. quinn has backed off by then: after five seconds of
/// silence its next probe may be five seconds away. The peer acknowledges the copy at once, and what was lost is sent again.
#[derive(Debug, Default)]
pub(crate) struct LastSent {
    packet: Mutex<Vec<u8>>,
    /// Whether something came from the peer since: then the way works, and nothing is sent again unless it changes.
    answered: AtomicBool,
}

/// A quinn socket over one or more UDP sockets, with the packet switch in it.
pub(crate) struct Socket {
    sockets: Vec<Bound>,
    port: u16,
    max_receive_segments: usize,
    table: ArcSwap<ForwardingTable>,
    // The peers that this node has connections to.
    peers: ArcSwap<BTreeMap<NodeAddr, Arc<LastSent>>>,
    // Addresses that this machine had, and has no more: nothing can be sent from them.
    gone: ArcSwap<Vec<IpAddr>>,
    counters: Arc<SwitchCounters>,
    // What is neither QUIC's nor the switch's.
    probes: Probes,
    // Locked by the endpoint's one receiving task, once a batch, and by a node's packets to itself: never contended
    // on the forwarding path.
    inbound: Mutex<Inbound>,
    // Locked for packets without a route only.
    hold: Mutex<HoldQueue>,
}

/// One UDP socket.
struct Bound {
    io: Arc<dyn AsyncUdpSocket>,
    addr: SocketAddr,
}

#[derive(Default)]
struct Inbound {
    /// Packets for quinn that had no place in the buffer that they came in.
    pending: VecDeque<(RecvMeta, Vec<u8>)>,
    /// Packets for others out of the buffers at hand.
    egress: Egress,
    /// Packets for others that the socket had no room for.
    backlog: Backlog<Onward>,
    /// What each neighbour may have sent on; none: as much as it likes.
    meter: Option<Meter>,
    /// Wakes the receiving task when the socket has room again.
    writable: Option<Pin<Box<dyn UdpPoller>>>,
    /// Wakes the receiving task for packets of the node to itself.
    waker: Option<Waker>,
    /// The socket to be read first: they take turns.
    turn: usize,
}

/// Why a batch, or the end of it, was not sent.
struct Unsent {
    /// The packets that were sent before.
    sent: usize,
    error: io::Error,
}

struct Onward {
    next_hop: NextHop,
    ecn: Option<EcnCodepoint>,
    packet: Vec<u8>,
}

thread_local! {
    // Packets get their headers here: one buffer a thread, so that sending neither allocates nor locks.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Socket {
    /// Wraps `sockets`, of which there is at least one.
    pub(crate) fn new(
        sockets: Vec<Arc<dyn AsyncUdpSocket>>,
        me: NodeAddr,
        counters: Arc<SwitchCounters>,
    ) -> io::Result<Self> {
        let sockets: Vec<_> = sockets
            .into_iter()
            .map(|io| io.local_addr().map(|addr| Bound { io, addr }))
            .collect::<io::Result<_>>()?;
        let first = sockets.first().ok_or_else(|| io::Error::other("a node needs a socket"))?;
        Ok(Self {
            port: first.addr.port(),
            max_receive_segments: sockets.iter().map(|s| s.io.max_receive_segments()).max().unwrap_or(1),
            table: ArcSwap::from_pointee(ForwardingTable::new(me, false, Arc::default())),
            peers: ArcSwap::default(),
            gone: ArcSwap::default(),
            counters,
            probes: Probes::default(),
            inbound: Mutex::default(),
            hold: Mutex::default(),
            sockets,
        })
    }

    /// Lets each neighbour have this many bytes a second sent on to others, and no more.
    pub(crate) fn limit_transit(&self, bytes_per_second: NonZeroU64) {
        lock(&self.inbound).meter = Some(Meter::new(bytes_per_second));
    }

    /// What the switch did so far.
    pub(crate) fn counters(&self) -> &SwitchCounters {
        &self.counters
    }

    /// The probes of direct paths that came in.
    pub(crate) fn probes(&self) -> &Probes {
        &self.probes
    }

    /// Sends a probe of a direct path. One that cannot be sent is a lost one.
    pub(crate) fn send_probe(&self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) {
        let (destination, src_ip) = (mapped(to), from);
        let probe = Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip };
        if let Err(unsent) = self.transmit_from(&probe) {
            trace!(%to, error = %unsent.error, "probe not sent");
        }
    }

    /// The addresses of the UDP sockets.
    pub(crate) fn bound_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.addr).collect()
    }

    /// Replaces the forwarding table as a whole, tries the packets that waited for a route, and tells every peer's
    /// connection of the new way by sending its last packet again.
    pub(crate) fn publish(&self, table: impl Into<Arc<ForwardingTable>>) {
        let table = table.into();
        let before = self.table.swap(table.clone());
        if before != table {
            self.retry_held(&table);
            for (peer, last) in &**self.peers.load() {
                // What went the old way may be lost, though the peer is heard: the way back may be another one.
                let moved =
                    before.originate(*peer).map(|way| way.0) != table.originate(*peer).map(|way| way.0);
                if moved || !last.answered.load(Ordering::Relaxed) {
                    self.resend(last, &table);
                }
            }
        }
    }

    /// Sends nothing from these addresses any more, which are not mapped ones: the system chooses others.
    pub(crate) fn set_gone(&self, addresses: Vec<IpAddr>) {
        self.gone.store(Arc::new(addresses));
    }

    /// Sends the last packet of every peer's connection again: the way there may work now, though it is the same.
    pub(crate) fn nudge(&self) {
        let table = self.table.load();
        self.peers.load().values().for_each(|last| self.resend(last, &table));
    }

    /// Keeps the last packet to a peer from now on.
    pub(crate) fn track(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.entry(peer).or_default();
            peers
        });
    }

    /// Forgets a peer.
    pub(crate) fn untrack(&self, peer: NodeAddr) {
        self.peers.rcu(|peers| {
            let mut peers = BTreeMap::clone(peers);
            peers.remove(&peer);
            peers
        });
    }

    /// Gives up packets that have waited too long for a route; to be called every [`HoldQueue::TICK_MILLIS`].
    pub(crate) fn tick(&self) {
        if let Some(meter) = &mut lock(&self.inbound).meter {
            meter.tick();
        }
        let expired = lock(&self.hold).tick();
        self.counters.dropped(DropReason::NoRoute, expired as u64);
    }

    fn retry_held(&self, table: &ForwardingTable) {
        // The packets of this node get the hop limit that goes with the route; the others keep theirs.
        let way = |held: &HeldPacket| match held.ingress {
            Some(_) => {
                let header = Header::decode(&held.packet).ok()?;
                let flow = Flow { source: header.source, destination: header.destination };
                table.next_hop(flow, held.ingress).map(|next_hop| (next_hop, None))
            }
            None => table.originate(held.destination).map(|(next_hop, hops)| (next_hop, Some(hops))),
        };
        let routable = lock(&self.hold).take_routable(way);
        for (mut held, (next_hop, hop_limit)) in routable {
            if let Some(hop_limit) = hop_limit {
                held.packet[1] = hop_limit.saturating_add(1);
            }
            self.send_held(held, next_hop);
        }
    }

    fn send_held(&self, mut held: HeldPacket, next_hop: NextHop) {
        Header::rewrite(&mut held.packet, next_hop.cookie);
        let transit = held.ingress.is_some();
        match self.transmit(&held.packet, None, None, next_hop) {
            Ok(()) if transit => self.counters.forwarded(1, held.packet.len() as u64),
            Ok(()) => {}
            Err(unsent) => self.counters.dropped(send_failure(&unsent.error), 1),
        }
    }

    fn resend(&self, last: &LastSent, table: &ForwardingTable) {
        let mut packet = lock(&last.packet);
        let Ok(header) = Header::decode(&packet) else { return };
        let Some((next_hop, hop_limit)) = table.originate(header.destination) else { return };
        packet[1] = hop_limit.saturating_add(1);
        Header::rewrite(&mut packet, next_hop.cookie);
        // A lost copy is no loss: quinn's own probe follows in its time.
        let _ = self.transmit(&packet, None, None, next_hop);
    }

    fn hold(&self, held: HeldPacket) {
        if !lock(&self.hold).push(held) {
            self.counters.dropped(DropReason::HoldFull, 1);
        }
    }

    /// Sends to a neighbour, as its link does.
    fn transmit(
        &self,
        contents: &[u8],
        segment_size: Option<usize>,
        ecn: Option<EcnCodepoint>,
        next_hop: NextHop,
    ) -> Result<(), Unsent> {
        let NextHop { to, from, .. } = next_hop;
        self.transmit_from(&Transmit { destination: to, ecn, contents, segment_size, src_ip: from })
    }

    fn transmit_from(&self, transmit: &Transmit<'_>) -> Result<(), Unsent> {
        let unsent = |error| Unsent { sent: 0, error };
        let is_there = |ip: &IpAddr| !self.gone.load().contains(&ip.to_canonical());
        let from = transmit.src_ip.filter(is_there);
        let socket = self.socket_for(transmit.destination, from).map_err(unsent)?;
        let (destination, src_ip) = match socket.addr.is_ipv4() {
            true => (canonical(transmit.destination), from.map(|ip| ip.to_canonical())),
            false => (transmit.destination, from),
        };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        // Beyond 64 KiB the kernel refuses the whole batch, and quinn-udp takes that for a lost MTU probe.
        // How many packets a batch may have is asked anew: quinn-udp goes back to one when the system refuses more.
        let batch = segment * (MAX_SEND / segment).clamp(1, socket.io.max_transmit_segments().max(1));
        let mut sent = 0;
        for contents in transmit.contents.chunks(batch) {
            let segment_size = transmit.segment_size.filter(|_| contents.len() > segment);
            let part = Transmit { destination, ecn: transmit.ecn, contents, segment_size, src_ip };
            socket.io.try_send(&part).map_err(|error| Unsent { sent, error })?;
            sent += contents.len().div_ceil(segment);
        }
        Ok(())
    }

    /// The socket bound to `src_ip`, else the first that can reach `destination`.
    fn socket_for(&self, destination: SocketAddr, src_ip: Option<IpAddr>) -> io::Result<&Bound> {
        if let [only] = self.sockets.as_slice() {
            return Ok(only);
        }
        let destination = destination.ip().to_canonical();
        let from = src_ip.map(|ip| ip.to_canonical());
        let bound_to_source = self.sockets.iter().find(|s| Some(s.addr.ip().to_canonical()) == from);
        bound_to_source
            .or_else(|| {
                let reaches = |s: &&Bound| {
                    let ip = s.addr.ip();
                    (ip.is_ipv4() == destination.is_ipv4() || ip.is_unspecified() && ip.is_ipv6())
                        && ip.is_loopback() == (destination.is_loopback() && !ip.is_unspecified())
                };
                self.sockets.iter().find(reaches)
            })
            .or_else(|| self.sockets.iter().find(|s| s.addr.is_ipv4() == destination.is_ipv4()))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket of the address's family")
            })
    }

    /// Sends packets that begin here: with a header each, to the next hop.
    fn originate(&self, transmit: &Transmit<'_>, destination: NodeAddr) -> Result<(), Unsent> {
        let table = self.table.load();
        let me = table.me();
        if destination == me {
            self.loop_back(transmit);
            return Ok(());
        }
        // QUIC's long headers (RFC 9000 §17.2) are those of handshakes.
        let way = match transmit.contents.first() {
            Some(first) if first & 0x80 != 0 => table.originate_handshake(destination),
            _ => table.originate(destination),
        };
        let Some((next_hop, hop_limit)) = way else {
            let header = Header { hop_limit: 1, cookie: Cookie([0; 8]), destination, source: me };
            for segment in segments(transmit) {
                let packet = [&header.encode(), segment].concat();
                self.hold(HeldPacket { ingress: None, destination, packet });
            }
            return Ok(());
        };
        let header = Header { hop_limit, cookie: next_hop.cookie, destination, source: me }.encode();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            let mut last_start = 0;
            for segment in segments(transmit) {
                last_start = scratch.len();
                scratch.extend_from_slice(&header);
                scratch.extend_from_slice(segment);
            }
            let segment_size = transmit.segment_size.map(|size| size + Header::LEN);
            self.transmit(scratch, segment_size, transmit.ecn, next_hop)?;
            let packets = segments(transmit).len() as u64;
            self.counters.originated(hop_limit == DIRECT_HOP_LIMIT, packets, scratch.len() as u64);
            if let Some(last) = self.peers.load().get(&destination) {
                // One connection sends to a peer, so the lock waits only for a change of the table.
                let mut packet = lock(&last.packet);
                packet.clear();
                packet.extend_from_slice(&scratch[last_start..]);
                last.answered.store(false, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Hands a node's packets to itself back to it.
    fn loop_back(&self, transmit: &Transmit<'_>) {
        let mut inbound = lock(&self.inbound);
        let meta = RecvMeta {
            addr: transmit.destination,
            len: transmit.contents.len(),
            stride: transmit.segment_size.unwrap_or(transmit.contents.len()),
            ecn: transmit.ecn,
            dst_ip: None,
        };
        self.pend(&mut inbound, meta, transmit.contents);
        if let Some(waker) = inbound.waker.take() {
            waker.wake();
        }
    }

    /// Keeps packets until quinn asks again; whether there was room.
    fn pend(&self, inbound: &mut Inbound, meta: RecvMeta, packets: &[u8]) -> bool {
        if inbound.pending.len() < MAX_PENDING {
            inbound.pending.push_back((meta, packets.to_vec()));
            return true;
        }
        self.counters.dropped(DropReason::QueueFull, packets.len().div_ceil(meta.stride.max(1)) as u64);
        false
    }

    /// Sorts the packets of one buffer: what is for quinn stays at its start, what is for others waits where it lies, to
    /// be sent on.
    fn sort(
        &self,
        inbound: &mut Inbound,
        table: &ForwardingTable,
        buffers: &mut [IoSliceMut<'_>],
        nth: usize,
        meta: &mut RecvMeta,
    ) {
        meta.addr = mapped(meta.addr);
        let len = meta.len;
        let stride = meta.stride.max(1);
        if overlay::node_addr(meta.addr).is_some() {
            // Nobody out there has an overlay address.
            self.counters.dropped(DropReason::ForgedSource, len.div_ceil(stride) as u64);
            meta.len = 0;
            return;
        }
        let outer = *meta;
        let mut kept = None;
        let mut start = 0;
        while start < len {
            let data = &buffers[nth][..len];
            let end = run_end(data, start, stride);
            let verdict = self.judge(table, &data[start..end], stride);
            let to_quinn = matches!(verdict, Verdict::Quic | Verdict::Deliver(_));
            if to_quinn && start > 0 && inbound.egress.waits_in(nth) || inbound.egress.is_full() {
                // What is for quinn moves to the start of the buffer.
                self.send_on(inbound, buffers);
            }
            let data = &mut buffers[nth][..len];
            match verdict {
                Verdict::Quic => {
                    self.keep(inbound, &mut kept, data, start..end, outer, 0);
                }
                Verdict::Deliver(source) => {
                    if let Some(last) = self.peers.load().get(&source) {
                        last.answered.store(true, Ordering::Relaxed);
                    }
                    let inner = RecvMeta { addr: overlay::socket_addr(source), dst_ip: None, ..outer };
                    if self.keep(inbound, &mut kept, data, start..end, inner, Header::LEN) {
                        self.counters.delivered((end - start).div_ceil(stride) as u64);
                    }
                }
                Verdict::Forward(next_hop) => {
                    if !inbound.may_use(table, &data[start..end]) {
                        self.counters.dropped(DropReason::RateLimited, (end - start).div_ceil(stride) as u64);
                        start = end;
                        continue;
                    }
                    for packet in data[start..end].chunks_mut(stride) {
                        Header::rewrite(packet, next_hop.cookie);
                    }
                    inbound.egress.push(next_hop, nth, start..end, stride, outer.ecn);
                }
                Verdict::Hold(ingress, destination) => {
                    for packet in data[start..end].chunks(stride) {
                        self.hold(HeldPacket {
                            ingress: Some(ingress),
                            destination,
                            packet: packet.to_vec(),
                        });
                    }
                }
                Verdict::Probe => {
                    let probes = data[start..end].chunks(stride);
                    let stray = probes.filter(|probe| !self.probes.take(outer.addr, outer.dst_ip, probe));
                    self.counters.dropped(DropReason::StrayProbe, stray.count() as u64);
                }
                Verdict::Drop(reason) => {
                    self.counters.dropped(reason, (end - start).div_ceil(stride) as u64);
                }
            }
            start = end;
        }
        *meta = kept.unwrap_or(RecvMeta { len: 0, ..outer });
    }

    /// What to do with a run of packets that have the same header; one look-up for all of them.
    fn judge(&self, table: &ForwardingTable, run: &[u8], stride: usize) -> Verdict {
        if run[0] >= Header::FIRST_QUIC_BYTE {
            return Verdict::Quic;
        }
        if run[0] == Probes::TYPE {
            return Verdict::Probe;
        }
        let Ok(header) = Header::decode(&run[..run.len().min(stride)]) else {
            return Verdict::Drop(DropReason::BadHeader);
        };
        match table.decide(&header) {
            Decision::Deliver => Verdict::Deliver(header.source),
            Decision::Forward(next_hop) => Verdict::Forward(next_hop),
            Decision::Drop(reason) => Verdict::Drop(reason),
            Decision::Hold => match table.ingress(header.cookie) {
                Some(ingress) => Verdict::Hold(ingress.neighbour, header.destination),
                None => Verdict::Drop(DropReason::UnknownCookie),
            },
        }
    }

    /// Gives a run to quinn, `strip` bytes shorter a packet: in place if it is the first of its buffer, else copied.
    /// Whether there was room.
    fn keep(
        &self,
        inbound: &mut Inbound,
        kept: &mut Option<RecvMeta>,
        data: &mut [u8],
        run: std::ops::Range<usize>,
        meta: RecvMeta,
        strip: usize,
    ) -> bool {
        let stride = meta.stride.max(1);
        let mut meta = RecvMeta { stride: stride.saturating_sub(strip), ..meta };
        // What waits must not be overtaken by a later buffer's packets from the same sender: quinn would take it for lost.
        let waits = |(pending, _): &(RecvMeta, Vec<u8>)| pending.addr == meta.addr;
        if kept.is_some() || inbound.pending.iter().any(waits) {
            let packets: Vec<u8> = data[run]
                .chunks(stride)
                .flat_map(|packet| packet.get(strip..).unwrap_or_default())
                .copied()
                .collect();
            meta.len = packets.len();
            return self.pend(inbound, meta, &packets);
        }
        if strip == 0 && run.start == 0 {
            // It lies where it belongs.
            meta.len = run.end;
            *kept = Some(meta);
            return true;
        }
        let mut filled = 0;
        let mut start = run.start;
        while start < run.end {
            let end = (start + stride).min(run.end);
            let packet = (start + strip).min(end)..end;
            let len = packet.len();
            data.copy_within(packet, filled);
            filled += len;
            start = end;
        }
        meta.len = filled;
        *kept = Some(meta);
        true
    }

    /// Sends on what waits in the buffers.
    fn send_on(&self, inbound: &mut Inbound, buffers: &[IoSliceMut<'_>]) {
        let Inbound { egress, backlog, .. } = inbound;
        egress.drain(buffers, |batch| self.forward(backlog, &batch));
    }

    fn forward(&self, backlog: &mut Backlog<Onward>, batch: &Batch<'_>) {
        let Batch { next_hop, packets, stride, ecn } = *batch;
        let segment_size = (packets.len() > stride).then_some(stride);
        let (sent, failed) = match backlog.is_empty() {
            true => match self.transmit(packets, segment_size, ecn, next_hop) {
                Ok(()) => (packets.len(), None),
                Err(unsent) => (unsent.sent * stride, Some(send_failure(&unsent.error))),
            },
            false => (0, Some(DropReason::QueueFull)),
        };
        self.counters.forwarded(sent.div_ceil(stride) as u64, sent as u64);
        for packet in packets[sent..].chunks(stride) {
            match failed {
                // Shared by where packets began: a relay that sends on for many nodes is not one of them.
                Some(DropReason::QueueFull) if backlog.has_place_for(source_of(packet)) => {
                    backlog.push(source_of(packet), Onward { next_hop, ecn, packet: packet.to_vec() });
                }
                Some(reason) => self.counters.dropped(reason, 1),
                None => {}
            }
        }
    }

    /// Sends what waited for room, as far as there is some.
    fn flush_backlog(&self, inbound: &mut Inbound, cx: &mut Context<'_>) {
        while let Some(onward) = inbound.backlog.front() {
            match self.transmit(&onward.packet, None, onward.ecn, onward.next_hop) {
                Ok(()) => self.counters.forwarded(1, onward.packet.len() as u64),
                Err(unsent) if unsent.error.kind() == io::ErrorKind::WouldBlock => {
                    let Ok(socket) = self.socket_for(onward.next_hop.to, onward.next_hop.from) else {
                        return;
                    };
                    let poller = inbound.writable.get_or_insert_with(|| socket.io.clone().create_io_poller());
                    match poller.as_mut().poll_writable(cx) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(_)) => self.counters.dropped(DropReason::SendFailed, 1),
                        Poll::Pending => return,
                    }
                }
                Err(_) => self.counters.dropped(DropReason::SendFailed, 1),
            }
            inbound.backlog.pop();
            // The next one may be for another socket.
            inbound.writable = None;
        }
    }
}

/// What to do with a run of packets.
enum Verdict {
    Quic,
    Deliver(NodeAddr),
    Forward(NextHop),
    Hold(NodeAddr, NodeAddr),
    Probe,
    Drop(DropReason),
}

/// Where the run that begins at `start` ends: QUIC packets, or switched packets with the same header.
fn run_end(data: &[u8], start: usize, stride: usize) -> usize {
    let is_quic = |at: usize| data[at] >= Header::FIRST_QUIC_BYTE;
    let header = |at: usize| data.get(at..at + Header::LEN);
    let mut at = start + stride;
    while at < data.len() {
        let same = match is_quic(start) {
            true => is_quic(at),
            // A packet of a header and nothing else is its own run, so that it is judged by its own length.
            false => header(at) == header(start) && data.len() - at > Header::LEN,
        };
        if !same {
            return at;
        }
        at += stride;
    }
    data.len()
}

fn segments<'a>(transmit: &Transmit<'a>) -> impl ExactSizeIterator<Item = &'a [u8]> {
    transmit.contents.chunks(transmit.segment_size.unwrap_or(transmit.contents.len()).max(1))
}

/// The node at which a switched packet began.
fn source_of(packet: &[u8]) -> NodeAddr {
    Header::decode(packet).map_or(NodeAddr([0; 8]), |header| header.source)
}

fn send_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::QueueFull,
        _ => DropReason::SendFailed,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// quinn gets IPv6 addresses only, with IPv4 mapped into them.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole after every step, so a panic elsewhere has not spoilt it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AllWritable(
            self.sockets.iter().map(|socket| socket.io.clone().create_io_poller()).collect(),
        ))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let overlaid = overlay::node_addr(transmit.destination);
        if let Some(segment) = transmit.segment_size {
            runtime::note_batch(segment + overlaid.map_or(0, |_| Header::LEN));
        }
        let sent = match overlaid {
            Some(node) => self.originate(transmit, node),
            None => self.transmit_from(transmit),
        };
        match sent {
            // quinn sends all of it again: what had been sent is doubled, which costs nothing but itself.
            Err(unsent) if unsent.error.kind() == io::ErrorKind::WouldBlock => Err(unsent.error),
            // quinn takes any other error for the end of the connection, which would hang. A packet that could not be
            // sent is a lost one.
            Err(unsent) => {
                let rest = segments(transmit).skip(unsent.sent).count();
                self.counters.dropped(DropReason::SendFailed, rest as u64);
                trace!(to = %transmit.destination, error = %unsent.error, "not sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbound = lock(&self.inbound);
        let inbound = &mut *inbound;
        self.flush_backlog(inbound, cx);
        let handed = inbound.hand_over(bufs, meta);
        if handed > 0 {
            return Poll::Ready(Ok(handed));
        }
        for _ in 0..self.sockets.len() {
            let turn = inbound.turn;
            inbound.turn = (turn + 1) % self.sockets.len();
            if let Poll::Ready(received) = self.sockets[turn].io.poll_recv(cx, bufs, meta) {
                let received = received?;
                let table = self.table.load();
                for (nth, meta) in meta.iter_mut().enumerate().take(received) {
                    self.sort(inbound, &table, bufs, nth, meta);
                }
                self.send_on(inbound, bufs);
                self.flush_backlog(inbound, cx);
                return Poll::Ready(Ok(received));
            }
        }
        inbound.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // The wildcard, so that quinn takes both mapped IPv4 and overlay addresses.
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port))
    }

    fn max_transmit_segments(&self) -> usize {
        let taken = self.sockets.iter().map(|socket| socket.io.max_transmit_segments()).min();
        taken.unwrap_or(1).clamp(1, runtime::batch_limit())
    }

    fn max_receive_segments(&self) -> usize {
        self.max_receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.sockets.iter().any(|socket| socket.io.may_fragment())
    }
}

impl Inbound {
    /// Whether the neighbour that a run came from may have it sent on.
    fn may_use(&mut self, table: &ForwardingTable, run: &[u8]) -> bool {
        let Some(meter) = &mut self.meter else { return true };
        let ingress = Header::decode(run).ok().and_then(|header| table.ingress(header.cookie));
        ingress.is_some_and(|ingress| meter.take(ingress.neighbour, run.len()))
    }

    /// Hands what is pending to quinn, as much as it has buffers for, whole packets only.
    fn hand_over(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut handed = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((pending, mut packets)) = self.pending.pop_front() else { break };
            // A node's batch to itself may be longer than what quinn expects from the network.
            let stride = pending.stride.max(1);
            let fits = (buf.len() / stride * stride).max(stride.min(buf.len()));
            let rest = packets.split_off(packets.len().min(fits));
            buf[..packets.len()].copy_from_slice(&packets);
            *meta = RecvMeta { len: packets.len(), ..pending };
            handed += 1;
            if !rest.is_empty() && stride <= buf.len() {
                self.pending.push_front((RecvMeta { len: rest.len(), ..pending }, rest));
            }
        }
        handed
    }
}

/// Ready when all of the sockets are: quinn does not say which one it waits for, and asks again and again, without a
/// pause, if it is told of room that another socket has.
#[derive(Debug)]
struct AllWritable(Vec<Pin<Box<dyn UdpPoller>>>);

impl UdpPoller for AllWritable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ready = Poll::Ready(Ok(()));
        for poller in &mut self.0 {
            match poller.as_mut().poll_writable(cx) {
                Poll::Ready(Ok(())) => {}
                other => ready = other,
            }
        }
        ready
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("bound", &self.bound_addrs()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
