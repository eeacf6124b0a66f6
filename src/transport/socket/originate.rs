//! Packets that this node originates: those that quinn sends to an overlay address get a header
//! each and leave through the next hop.

use std::cell::RefCell;

use quinn::udp::{RecvMeta, Transmit};

use super::Socket;
use super::packet::{is_handshake, segments, way};
use super::udp::bound::Unsent;
use crate::id::NodeAddr;
use crate::switch::{Attachment, Cookie, DIRECT_HOP_LIMIT, ForwardingTable, Header, HeldPacket};
use crate::sync::lock;
use crate::transport::overlay::FlowKind;

thread_local! {
    // Packets get their headers here: one buffer a thread, so that sending neither allocates nor
    // locks.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Socket {
    /// Sends packets that this node originates, with a header each, to the next hop.
    pub(super) fn originate(
        &self,
        transmit: &Transmit<'_>,
        peer: NodeAddr,
        kind: FlowKind,
    ) -> Result<(), Unsent> {
        let table = self.table.load();
        if peer == table.me() {
            self.loop_back(transmit);
            return Ok(());
        }
        let header = self.header(&table, peer, kind);
        let answers = transmit.contents.first().is_some_and(|first| is_handshake(*first));
        let came = answers.then(|| self.replies.through(peer)).flatten();
        let reply = came.and_then(|ingress| table.reply(&header, ingress));
        let Some((next_hop, hop_limit)) = reply.or_else(|| way(&table, &header, transmit.contents))
        else {
            for segment in segments(transmit) {
                let packet = [&*header.encode(), segment].concat();
                self.hold(HeldPacket { ingress: None, destination: header.destination, packet });
            }
            return Ok(());
        };
        let header = Header { hop_limit, cookie: next_hop.cookie, ..header }.encode();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            let mut last_start = 0;
            for segment in segments(transmit) {
                last_start = scratch.len();
                scratch.extend_from_slice(&header);
                scratch.extend_from_slice(segment);
            }
            let segment_size = transmit.segment_size.map(|size| size + header.len());
            self.transmit(scratch, segment_size, transmit.ecn, next_hop)?;
            let packets = segments(transmit).len() as u64;
            self.counters.originated(hop_limit == DIRECT_HOP_LIMIT, packets, scratch.len() as u64);
            if let Some(last) = self.peers.load().get(&peer) {
                last.keep(&scratch[last_start..], next_hop.neighbour);
            }
            Ok(())
        })
    }

    /// The header of packets to a peer, without hop limit and cookie.
    fn header(&self, table: &ForwardingTable, peer: NodeAddr, kind: FlowKind) -> Header {
        let routed = Header {
            hop_limit: 1,
            cookie: Cookie([0; 8]),
            destination: peer,
            source: table.me(),
            attachment: Attachment::None,
        };
        match kind {
            FlowKind::Routed => routed,
            FlowKind::Own => {
                // Without a link the packet is held, and gets the attachment when there is one.
                let at = table.attached_toward(peer).unwrap_or(NodeAddr([0; 8]));
                Header { attachment: Attachment::Source(at), ..routed }
            }
            FlowKind::Attached(number) => match lock(&self.attachments).node(number) {
                Some(at) => {
                    let destination = table.attachment(peer, at);
                    Header { destination, attachment: Attachment::Stub(peer), ..routed }
                }
                None => routed,
            },
        }
    }

    /// The kind of the flow that a packet belongs to, by its header.
    pub(super) fn flow_kind(&self, table: &ForwardingTable, header: &Header) -> FlowKind {
        match header.attachment {
            Attachment::None => FlowKind::Routed,
            Attachment::Stub(_) => FlowKind::Own,
            Attachment::Source(at) => lock(&self.attachments)
                .number(at, || table.reaches(at))
                .map_or(FlowKind::Routed, FlowKind::Attached),
        }
    }

    /// The node that the stub at the other end of a flow is attached to. `None` if the flow is of
    /// another kind.
    pub(crate) fn attached_to(&self, kind: FlowKind) -> Option<NodeAddr> {
        let FlowKind::Attached(number) = kind else { return None };
        lock(&self.attachments).node(number)
    }

    /// Delivers packets that the node sends to itself.
    fn loop_back(&self, transmit: &Transmit<'_>) {
        let mut inbound = lock(&self.inbound);
        let meta = RecvMeta {
            addr: transmit.destination,
            len: transmit.contents.len(),
            stride: transmit.segment_size.unwrap_or(transmit.contents.len()),
            ecn: transmit.ecn,
            dst_ip: None,
        };
        inbound.pend(&self.counters, meta, transmit.contents);
        if let Some(waker) = inbound.waker.take() {
            waker.wake();
        }
    }
}
