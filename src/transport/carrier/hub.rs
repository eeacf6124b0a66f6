//! The carriers of a node, as its socket sees them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use super::address;
use super::counts::{CarrierCounters, CarrierStatus};
use super::queue::{OVERHEAD, Queue, flow_of};
use crate::sync::lock;

/// Bytes that one carrier may have received and the socket has not read, with the overhead of each
/// packet. Beyond that its stream is not read either, so that TCP slows the sender down and no
/// other.
const MAX_RECEIVED: usize = 256 * 1024;

/// The carriers of a node.
#[derive(Default)]
pub(crate) struct Carriers {
    state: Mutex<State>,
    pub(crate) counters: CarrierCounters,
}

#[derive(Default)]
struct State {
    /// The number of the next carrier.
    next: u64,
    open: BTreeMap<u64, Arc<Carrier>>,
    /// Carriers with received packets; the first is read next.
    ready: VecDeque<u64>,
    /// Wakes the socket's reader.
    reader: Option<Waker>,
}

/// One carrier.
pub(super) struct Carrier {
    number: u64,
    /// The address of the other end of the TCP connection.
    remote: SocketAddr,
    /// Whether the other end connected to this one.
    accepted: bool,
    to_send: Mutex<Queue>,
    /// There is something to send.
    pub(super) sendable: Notify,
    received: Mutex<Received>,
    /// There is room for packets again.
    pub(super) room: Notify,
    /// Whether a link came about.
    linked: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct Received {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// An open carrier. Dropped, it is closed.
pub(crate) struct Carried {
    pub(super) carriers: Arc<Carriers>,
    pub(super) carrier: Arc<Carrier>,
    kept: bool,
}

/// A TCP listener for carriers.
#[derive(Debug)]
pub(crate) struct ListenTcp {
    pub(crate) listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

impl ListenTcp {
    /// Listens on this address. Needs a tokio runtime.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let described = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on TCP {addr}: {error}"))
        };
        let socket = match addr {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        };
        let socket = socket.map_err(described)?;
        socket.set_reuseaddr(true).map_err(described)?;
        socket.bind(addr).map_err(described)?;
        let listener = socket.listen(1_024).map_err(described)?;
        Ok(Self { addr: listener.local_addr()?, listener })
    }
}

impl Carriers {
    /// Opens a carrier over a stream whose other end is at `remote`.
    pub(crate) fn open(self: &Arc<Self>, remote: SocketAddr, accepted: bool) -> Carried {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        let carrier = Arc::new(Carrier {
            number,
            remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            accepted,
            to_send: Mutex::default(),
            sendable: Notify::new(),
            received: Mutex::default(),
            room: Notify::new(),
            linked: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        });
        state.open.insert(number, carrier.clone());
        Carried { carriers: self.clone(), carrier, kept: false }
    }

    /// The address of the other end of the TCP connection that carries packets to `addr`. `None` if
    /// `addr` is not the address of an open carrier.
    pub(crate) fn remote(&self, addr: SocketAddr) -> Option<SocketAddr> {
        Some(self.get(addr)?.remote)
    }

    /// Whether `addr` is that of an open carrier that the other end opened.
    pub(crate) fn is_accepted(&self, addr: SocketAddr) -> bool {
        self.get(addr).is_some_and(|carrier| carrier.accepted)
    }

    /// Has the carrier of a link, if it has one, end with the link.
    pub(crate) fn follow(self: &Arc<Self>, link: &quinn::Connection) {
        let Some(carrier) = self.get(link.remote_address()) else { return };
        let (carriers, link) = (self.clone(), link.clone());
        carrier.linked.send_replace(true);
        tokio::spawn(async move {
            link.closed().await;
            // The last packet, which says so, is on its way.
            tokio::time::sleep(LINGER).await;
            carriers.close(&carrier);
        });
    }

    /// Waits for the end of the carrier with this address.
    pub(crate) fn until_ended(&self, addr: SocketAddr) -> impl Future<Output = ()> + use<> {
        let carrier = self.get(addr);
        async move {
            if let Some(carrier) = carrier {
                carrier.until_ended().await;
            }
        }
    }

    /// Queues the packets of a batch. A queue that is full drops, and does not push back: the
    /// node's other paths have room.
    ///
    /// # Errors
    /// The carrier is closed.
    pub(crate) fn send(&self, transmit: &Transmit<'_>, now: Instant) -> io::Result<()> {
        let Some(carrier) = self.get(transmit.destination) else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the carrier is closed"));
        };
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let dropped: u64 = {
            let mut queue = lock(&carrier.to_send);
            let packets = transmit.contents.chunks(size);
            packets.map(|packet| queue.push(flow_of(packet), packet.to_vec(), now)).sum()
        };
        self.counters.queue_full.fetch_add(dropped, Ordering::Relaxed);
        carrier.sendable.notify_one();
        Ok(())
    }

    /// Reads received packets, one of each carrier in turn.
    pub(crate) fn poll_recv(
        &self,
        cx: &Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut state = lock(&self.state);
        let mut filled = 0;
        while filled < bufs.len().min(metas.len()) {
            let Some(number) = state.ready.pop_front() else { break };
            let Some(carrier) = state.open.get(&number).cloned() else { continue };
            let (packet, more) = carrier.take();
            if more {
                state.ready.push_back(number);
            }
            let Some(packet) = packet.filter(|packet| packet.len() <= bufs[filled].len()) else {
                continue;
            };
            bufs[filled][..packet.len()].copy_from_slice(&packet);
            metas[filled] = RecvMeta {
                addr: address::of(number),
                len: packet.len(),
                stride: packet.len(),
                ecn: None,
                dst_ip: None,
            };
            filled += 1;
        }
        if filled > 0 {
            return Poll::Ready(filled);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The counts so far.
    pub(crate) fn status(&self) -> CarrierStatus {
        self.counters.status(lock(&self.state).open.len())
    }

    fn get(&self, addr: SocketAddr) -> Option<Arc<Carrier>> {
        let number = address::number(addr)?;
        lock(&self.state).open.get(&number).cloned()
    }

    /// Closes all of them.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut lock(&self.state).open);
        for carrier in all.values() {
            carrier.ended.send_replace(true);
        }
    }

    fn close(&self, carrier: &Carrier) {
        lock(&self.state).open.remove(&carrier.number);
        carrier.ended.send_replace(true);
    }
}

/// How long a carrier stays open after its link: the link's end is to arrive.
const LINGER: std::time::Duration = std::time::Duration::from_millis(200);

impl Carrier {
    /// The next packet to send.
    pub(super) fn next(&self, now: Instant) -> Option<Vec<u8>> {
        lock(&self.to_send).pop(now)
    }

    /// Whether so much waits to be read that the stream must not be read.
    pub(super) fn is_full(&self) -> bool {
        lock(&self.received).bytes >= MAX_RECEIVED
    }

    pub(super) async fn until_ended(&self) {
        // The sender is in `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// The oldest packet received, and whether there are more.
    fn take(&self) -> (Option<Vec<u8>>, bool) {
        let mut received = lock(&self.received);
        let packet = received.packets.pop_front();
        received.bytes -= packet.as_ref().map_or(0, |packet| packet.len() + OVERHEAD);
        if received.bytes < MAX_RECEIVED / 2 {
            self.room.notify_one();
        }
        (packet, !received.packets.is_empty())
    }
}

impl Carried {
    /// The address by which quinn knows it.
    pub(crate) fn addr(&self) -> SocketAddr {
        address::of(self.carrier.number)
    }

    /// Another handle to the same carrier.
    pub(super) fn share(&self) -> Self {
        Self { carriers: self.carriers.clone(), carrier: self.carrier.clone(), kept: false }
    }

    /// Leaves it open for its [link](Carriers::follow), with which it ends.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Waits for a link on it.
    pub(crate) async fn until_linked(&self) {
        let _ = self.carrier.linked.subscribe().wait_for(|linked| *linked).await;
    }

    /// Passes a received packet to the socket.
    pub(super) fn deliver(&self, packet: &[u8]) {
        let was_empty = {
            let mut received = lock(&self.carrier.received);
            received.bytes += packet.len() + OVERHEAD;
            received.packets.push_back(packet.to_vec());
            received.packets.len() == 1
        };
        if was_empty {
            let mut state = lock(&self.carriers.state);
            state.ready.push_back(self.carrier.number);
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if !self.kept {
            self.carriers.close(&self.carrier);
        }
    }
}

impl fmt::Debug for Carriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carriers").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("remote", &self.carrier.remote).finish_non_exhaustive()
    }
}
