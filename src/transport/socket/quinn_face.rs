//! What quinn sees: one UDP socket, by which it reaches every peer.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tracing::trace;

use super::Socket;
use super::inbound::Inbound;
use super::packet::segments;
use super::sort::Way;
use super::udp::bound::{Bound, canonical};
use crate::switch::{DropReason, Header};
use crate::sync::lock;
use crate::transport::endpoint::runtime;
use crate::transport::overlay;

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let own = self.sockets.iter().map(|socket| socket.io.clone().create_io_poller()).collect();
        Box::pin(AllWritable { own, known: Arc::default(), fresh: Vec::new(), socket: self })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let overlaid = overlay::node_addr(transmit.destination);
        if let Some(segment) = transmit.segment_size {
            runtime::note_batch(segment + overlaid.map_or(0, |_| Header::MAX_LEN));
        }
        let sent = match overlaid {
            Some(node) => self.originate(transmit, node, overlay::flow_kind(transmit.destination)),
            None => self.transmit_from(transmit, None),
        };
        match sent {
            // quinn sends all of it again: what had been sent is doubled, which costs nothing but
            // itself.
            Err(unsent) if unsent.error.kind() == io::ErrorKind::WouldBlock => Err(unsent.error),
            // quinn treats any other error as the end of the connection, which would then hang. A
            // packet that cannot be sent counts as lost.
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
        if inbound.carriers_next {
            inbound.carriers_next = false;
            if let Some(received) = self.receive_carried(inbound, cx, bufs, meta) {
                return Poll::Ready(Ok(received));
            }
        }
        let fresh = self.fresh.load();
        let all = self.sockets.len() + fresh.len();
        for _ in 0..all {
            let turn = inbound.turn % all;
            inbound.turn = (turn + 1) % all;
            let (socket, local_port) = match turn.checked_sub(self.sockets.len()) {
                None => (&self.sockets[turn], None),
                Some(nth) => (&fresh[nth], Some(fresh[nth].addr.port())),
            };
            if let Poll::Ready(received) = socket.io.poll_recv(cx, bufs, meta) {
                let received = received?;
                // Carriers and UDP sockets take turns.
                inbound.carriers_next = true;
                if let Some(heard) = self.heard.as_ref().filter(|_| local_port.is_none()) {
                    meta[..received].iter().for_each(|meta| heard.note(canonical(meta.addr), turn));
                }
                let way = local_port.map_or(Way::Link, Way::FreshPort);
                let table = self.table.load();
                for (nth, meta) in meta.iter_mut().enumerate().take(received) {
                    self.sort(inbound, &table, bufs, nth, meta, way);
                }
                self.send_on(inbound, bufs);
                self.flush_backlog(inbound, cx);
                return Poll::Ready(Ok(received));
            }
        }
        if let Some(received) = self.receive_carried(inbound, cx, bufs, meta) {
            return Poll::Ready(Ok(received));
        }
        inbound.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // The wildcard, so that quinn accepts both mapped IPv4 and overlay addresses.
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

impl Socket {
    /// Receives from the carriers. `None` if there is nothing; the receiving task is woken when
    /// there is.
    fn receive_carried(
        &self,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Option<usize> {
        let Poll::Ready(received) = self.carriers.poll_recv(cx, bufs, meta) else { return None };
        let table = self.table.load();
        for (nth, meta) in meta.iter_mut().enumerate().take(received) {
            self.sort(inbound, &table, bufs, nth, meta, Way::Carrier);
        }
        self.send_on(inbound, bufs);
        self.flush_backlog(inbound, cx);
        Some(received)
    }
}

/// Ready when all sockets are. quinn does not say which one it waits for, and would spin if it were
/// woken for room in another one.
#[derive(Debug)]
struct AllWritable {
    socket: Arc<Socket>,
    own: Vec<Pin<Box<dyn UdpPoller>>>,
    /// The fresh ports that `fresh` was made for, one poller each.
    known: Arc<Vec<Bound>>,
    fresh: Vec<Pin<Box<dyn UdpPoller>>>,
}

impl UdpPoller for AllWritable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let open = this.socket.fresh.load();
        if !Arc::ptr_eq(&open, &this.known) {
            this.fresh = open.iter().map(|socket| socket.io.clone().create_io_poller()).collect();
            this.known = open;
        }
        let mut ready = Poll::Ready(Ok(()));
        for poller in this.own.iter_mut().chain(&mut this.fresh) {
            match poller.as_mut().poll_writable(cx) {
                Poll::Ready(Ok(())) => {}
                other => ready = other,
            }
        }
        ready
    }
}
