//! Packets that begin here: those that quinn sends to an overlay address get a header each, and go to the next hop.

use std::cell::RefCell;

use quinn::udp::{RecvMeta, Transmit};

use super::transmit::Unsent;
use super::{Socket, lock};
use crate::id::NodeAddr;
use crate::switch::{Cookie, DIRECT_HOP_LIMIT, ForwardingTable, Header, HeldPacket, NextHop};

thread_local! {
    // Packets get their headers here: one buffer a thread, so that sending neither allocates nor locks.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Socket {
    /// Sends packets that begin here: with a header each, to the next hop.
    pub(super) fn originate(&self, transmit: &Transmit<'_>, destination: NodeAddr) -> Result<(), Unsent> {
        let table = self.table.load();
        let me = table.me();
        if destination == me {
            self.loop_back(transmit);
            return Ok(());
        }
        let Some((next_hop, hop_limit)) = way(&table, destination, transmit.contents) else {
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
                last.keep(&scratch[last_start..]);
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
}

/// The next hop of a QUIC packet that begins here, and its hop limit.
///
/// Long headers (RFC 9000 §17.2) are those of handshakes, which avoid direct paths: see
/// [`originate_handshake`](ForwardingTable::originate_handshake).
pub(super) fn way(table: &ForwardingTable, destination: NodeAddr, quic: &[u8]) -> Option<(NextHop, u8)> {
    match quic.first() {
        Some(first) if first & 0x80 != 0 => table.originate_handshake(destination),
        _ => table.originate(destination),
    }
}

/// The packets of a batch.
pub(super) fn segments<'a>(transmit: &Transmit<'a>) -> impl ExactSizeIterator<Item = &'a [u8]> {
    transmit.contents.chunks(transmit.segment_size.unwrap_or(transmit.contents.len()).max(1))
}
