//! State of the receiving side between calls, and the delivery of pending packets to quinn.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::task::Waker;

use quinn::UdpPoller;
use quinn::udp::RecvMeta;

use crate::switch::{Backlog, DropReason, ForwardingTable, Header, Meter, SwitchCounters};
use crate::transport::socket::forwarding::egress::{Egress, Onward};

/// Maximum number of runs queued for quinn, out of buffers that held packets of several senders.
const MAX_PENDING: usize = 1024;

/// The receiving side's state.
#[derive(Default)]
pub(super) struct Inbound {
    /// Packets for quinn that did not fit the buffer they arrived in.
    pub(super) pending: VecDeque<(RecvMeta, Vec<u8>)>,
    /// Packets for other nodes in the current buffers.
    pub(super) egress: Egress,
    /// Packets for other nodes that the socket had no room for.
    pub(super) backlog: Backlog<Onward>,
    /// Transit rate limit per neighbour; `None` if unlimited.
    pub(super) meter: Option<Meter>,
    /// Wakes the receiving task when the socket has room again.
    pub(super) writable: Option<Pin<Box<dyn UdpPoller>>>,
    /// Wakes the receiving task for packets that the node sends to itself.
    pub(super) waker: Option<Waker>,
    /// The socket to read first; they take turns.
    pub(super) turn: usize,
    /// Whether the carriers are read before the sockets: they take turns.
    pub(super) carriers_next: bool,
}

impl Inbound {
    /// Queues packets until quinn polls again. Counts and drops them if the queue is full, and
    /// returns whether it was not.
    pub(super) fn pend(
        &mut self,
        counters: &SwitchCounters,
        meta: RecvMeta,
        packets: &[u8],
    ) -> bool {
        if self.pending.len() < MAX_PENDING {
            self.pending.push_back((meta, packets.to_vec()));
            return true;
        }
        counters.dropped(DropReason::QueueFull, packets.len().div_ceil(meta.stride.max(1)) as u64);
        false
    }

    /// Copies pending packets into quinn's buffers as far as they fit, whole packets only.
    pub(super) fn hand_over(
        &mut self,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
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

    /// Whether the rate limit of the ingress neighbour permits forwarding a run.
    pub(super) fn may_use(&mut self, table: &ForwardingTable, run: &[u8]) -> bool {
        let Some(meter) = &mut self.meter else { return true };
        let ingress = Header::decode(run).ok().and_then(|header| table.ingress(header.cookie));
        ingress.is_some_and(|ingress| meter.take(ingress.neighbour, run.len()))
    }
}
