//! Sorts received packets: for quinn, for other nodes, for hole punching, or dropped.

use std::io::IoSliceMut;
use std::net::IpAddr;
use std::ops::Range;

use quinn::udp::RecvMeta;

use super::inbound::Inbound;
use super::packet::is_handshake;
use super::{Socket, mapped};
use crate::id::NodeAddr;
use crate::switch::{Decision, DropReason, ForwardingTable, Header, HeldPacket, NextHop};
use crate::transport::carrier;
use crate::transport::overlay::{self, FlowKind};
use crate::transport::socket::probes::Probes;

impl Socket {
    /// Sorts the packets of one buffer: those for quinn stay at its start, those for other nodes
    /// wait in place to be forwarded.
    pub(super) fn sort(
        &self,
        inbound: &mut Inbound,
        table: &ForwardingTable,
        buffers: &mut [IoSliceMut<'_>],
        nth: usize,
        meta: &mut RecvMeta,
        way: Way,
    ) {
        meta.addr = mapped(meta.addr);
        let len = meta.len;
        let stride = meta.stride.max(1);
        let forged_carrier = way != Way::Carrier && carrier::is_carrier(meta.addr);
        if overlay::node_addr(meta.addr).is_some() || forged_carrier {
            // Such addresses do not exist on the network.
            self.counters.dropped(DropReason::ForgedSource, len.div_ceil(stride) as u64);
            meta.len = 0;
            return;
        }
        let outer = *meta;
        let mut kept = None;
        let mut start = 0;
        while start < len {
            // A run of packets with the same header shares one decision.
            let data = &buffers[nth][..len];
            let end = run_end(data, start, stride);
            let packets = (end - start).div_ceil(stride) as u64;
            let verdict = match self.judge(table, &data[start..end], stride) {
                // Fresh ports accept neither links nor transit.
                Verdict::Quic | Verdict::Forward(_) | Verdict::Hold(..)
                    if matches!(way, Way::FreshPort(_)) =>
                {
                    Verdict::Drop(DropReason::UnknownCookie)
                }
                // A direct path is one of UDP.
                Verdict::Probe if way == Way::Carrier => Verdict::Drop(DropReason::StrayProbe),
                verdict => verdict,
            };
            let to_quinn = matches!(verdict, Verdict::Quic | Verdict::Deliver(_));
            if to_quinn && start > 0 && inbound.egress.waits_in(nth) || inbound.egress.is_full() {
                // Packets for quinn move to the start of the buffer, over packets that wait there
                // to be forwarded: send those first.
                self.send_on(inbound, buffers);
            }
            let data = &mut buffers[nth][..len];
            match verdict {
                Verdict::Quic => {
                    self.keep(inbound, &mut kept, data, start..end, outer, 0);
                }
                Verdict::Deliver(header) => {
                    self.heard(table, &header, &data[start..end]);
                    // To quinn the packets come from the overlay address of the peer.
                    let addr = overlay::flow_addr(header.source, self.flow_kind(table, &header));
                    let dst_ip = arrived_through(table, &header, &data[start..end]);
                    let inner = RecvMeta { addr, dst_ip, ..outer };
                    if self.keep(inbound, &mut kept, data, start..end, inner, header.wire_len()) {
                        self.counters.delivered(packets);
                    }
                }
                Verdict::Forward(next_hop) if inbound.may_use(table, &data[start..end]) => {
                    // Hop limit and cookie are rewritten in place; the run is sent later, together
                    // with others for the same next hop.
                    for packet in data[start..end].chunks_mut(stride) {
                        Header::rewrite(packet, next_hop.cookie);
                    }
                    inbound.egress.push(next_hop, nth, start..end, stride, outer.ecn);
                }
                Verdict::Forward(_) => self.counters.dropped(DropReason::RateLimited, packets),
                Verdict::Hold(ingress, destination) => {
                    self.hold_run(ingress, destination, data[start..end].chunks(stride));
                }
                Verdict::Probe => {
                    self.sort_probes(&outer, way, data[start..end].chunks(stride));
                }
                Verdict::Drop(reason) => self.counters.dropped(reason, packets),
            }
            start = end;
        }
        *meta = kept.unwrap_or(RecvMeta { len: 0, ..outer });
    }

    /// Passes probes of direct paths on.
    fn sort_probes<'a>(&self, outer: &RecvMeta, way: Way, probes: impl Iterator<Item = &'a [u8]>) {
        let local_port = match way {
            Way::FreshPort(port) => Some(port),
            Way::Link | Way::Carrier => None,
        };
        let stray =
            probes.filter(|probe| !self.probes.take(outer.addr, outer.dst_ip, local_port, probe));
        self.counters.dropped(DropReason::StrayProbe, stray.count() as u64);
    }

    /// Notes that the peer at the other end is heard: its last packet need not be sent again, and
    /// replies to its handshake return through the same neighbour.
    fn heard(&self, table: &ForwardingTable, header: &Header, run: &[u8]) {
        let handshake = run.get(header.wire_len()).copied().is_some_and(is_handshake);
        let ingress = table.ingress(header.cookie).map(|ingress| ingress.neighbour);
        if let Some(last) = self.peers.load().get(&header.source) {
            last.answered(ingress);
            if handshake {
                last.shook_hands();
            }
        }
        if handshake && let Some(ingress) = ingress {
            self.replies.note(header.source, ingress);
        }
    }

    /// Holds packets back until there is a way to their destination.
    fn hold_run<'a>(
        &self,
        ingress: NodeAddr,
        destination: NodeAddr,
        packets: impl Iterator<Item = &'a [u8]>,
    ) {
        for packet in packets {
            let packet = packet.to_vec();
            self.hold(HeldPacket { ingress: Some(ingress), destination, packet });
        }
    }

    /// Decides about a run of packets with the same header, with one lookup for all of them.
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
            Decision::Deliver => Verdict::Deliver(header),
            Decision::Forward(next_hop) => Verdict::Forward(next_hop),
            Decision::Drop(reason) => Verdict::Drop(reason),
            Decision::Hold => match table.ingress(header.cookie) {
                Some(ingress) => Verdict::Hold(ingress.neighbour, header.destination),
                None => Verdict::Drop(DropReason::UnknownCookie),
            },
        }
    }

    /// Delivers a run to quinn with `strip` bytes removed from each packet: in place if it is the
    /// first of its buffer, otherwise as a copy. Returns whether there was room.
    fn keep(
        &self,
        inbound: &mut Inbound,
        kept: &mut Option<RecvMeta>,
        data: &mut [u8],
        run: Range<usize>,
        meta: RecvMeta,
        strip: usize,
    ) -> bool {
        let stride = meta.stride.max(1);
        let mut meta = RecvMeta { stride: stride.saturating_sub(strip), ..meta };
        // Pending packets must not be overtaken by packets of the same sender in a later buffer:
        // quinn would consider them lost.
        let waits = |(pending, _): &(RecvMeta, Vec<u8>)| pending.addr == meta.addr;
        if kept.is_some() || inbound.pending.iter().any(waits) {
            let packets: Vec<u8> = data[run]
                .chunks(stride)
                .flat_map(|packet| packet.get(strip..).unwrap_or_default())
                .copied()
                .collect();
            meta.len = packets.len();
            return inbound.pend(&self.counters, meta, &packets);
        }
        if strip == 0 && run.start == 0 {
            // Already in place.
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
}

/// The local address that quinn sees for packets with a long header (RFC 9000 §17.2), that is,
/// handshakes: the overlay address of the neighbour that they arrived through. The acceptance of
/// connections shares its places by it; replies follow the routes all the same.
fn arrived_through(table: &ForwardingTable, header: &Header, run: &[u8]) -> Option<IpAddr> {
    let first = run.get(header.wire_len())?;
    let ingress = table.ingress(header.cookie).filter(|_| first & 0x80 != 0)?;
    Some(overlay::flow_addr(ingress.neighbour, FlowKind::Routed).ip())
}

/// What packets arrived by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// One of the UDP sockets for links.
    Link,
    /// A UDP socket for direct paths, by its port.
    FreshPort(u16),
    /// A TCP connection.
    Carrier,
}

/// What to do with a run of packets.
enum Verdict {
    Quic,
    Deliver(Header),
    Forward(NextHop),
    Hold(NodeAddr, NodeAddr),
    Probe,
    Drop(DropReason),
}

/// Where the run that begins at `start` ends: QUIC packets, or switched packets with the same
/// header.
fn run_end(data: &[u8], start: usize, stride: usize) -> usize {
    let is_quic = |at: usize| data[at] >= Header::FIRST_QUIC_BYTE;
    let len = Header::len_of(data[start]).unwrap_or(Header::LEN);
    let header = |at: usize| data.get(at..at + len);
    let mut at = start + stride;
    while at < data.len() {
        let same = match is_quic(start) {
            true => is_quic(at),
            // A packet of a header and nothing else is its own run, so that it is judged by its own
            // length.
            false => header(at) == header(start) && data.len() - at > len,
        };
        if !same {
            return at;
        }
        at += stride;
    }
    data.len()
}
