//! Packets for other nodes: sent on in batches, kept in the backlog while the socket is full.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll};

use quinn::AsyncUdpSocket as _;

use super::egress::{Batch, Onward};
use crate::id::NodeAddr;
use crate::switch::{Backlog, DropReason, Header};
use crate::transport::socket::Socket;
use crate::transport::socket::inbound::Inbound;
use crate::transport::socket::udp::bound::send_failure;

impl Socket {
    /// Sends on what waits in the buffers.
    pub(in crate::transport::socket) fn send_on(
        &self,
        inbound: &mut Inbound,
        buffers: &[IoSliceMut<'_>],
    ) {
        let Inbound { egress, backlog, .. } = inbound;
        egress.drain(buffers, |batch| self.forward(backlog, &batch));
    }

    /// Sends what waited for room, as far as there is some.
    pub(in crate::transport::socket) fn flush_backlog(
        &self,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
    ) {
        while let Some(onward) = inbound.backlog.front() {
            match self.transmit(&onward.packet, None, onward.ecn, onward.next_hop) {
                Ok(()) => self.counters.forwarded(1, onward.packet.len() as u64),
                Err(unsent) if unsent.error.kind() == io::ErrorKind::WouldBlock => {
                    // Only links forward packets of others, never a fresh port.
                    let Ok(socket) = self.socket_for(onward.next_hop.to, onward.next_hop.from)
                    else {
                        return;
                    };
                    let poller = inbound
                        .writable
                        .get_or_insert_with(|| socket.io.clone().create_io_poller());
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
                // Shared by where packets began: a relay that sends on for many nodes is not one of
                // them.
                Some(DropReason::QueueFull) if backlog.has_place_for(source_of(packet)) => {
                    backlog
                        .push(source_of(packet), Onward { next_hop, ecn, packet: packet.to_vec() });
                }
                Some(reason) => self.counters.dropped(reason, 1),
                None => {}
            }
        }
    }
}

/// The node at which a switched packet began.
fn source_of(packet: &[u8]) -> NodeAddr {
    Header::decode(packet).map_or(NodeAddr([0; 8]), |header| header.source)
}
