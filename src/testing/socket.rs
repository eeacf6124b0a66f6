//! A UDP socket of the virtual network, in the form that quinn expects.

use super::fabric::SocketId;
use super::network::{Network, internet};
use super::spot::{Endpoint, Realm};
use crate::testing::delivery::inbox::Inbox;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

/// Maximum number of datagrams per transmit.
const MAX_TRANSMIT_SEGMENTS: usize = 10;

/// The port that [`Network::bind_host`] binds.
pub(super) const HOST_PORT: u16 = 7400;

/// Hosts that [`Network::bind_host`] can name: 10.0.0.1 to 10.255.255.254.
const HOSTS: u32 = (1 << 24) - 2;

/// A UDP socket of a [`Network`], made by [`Network::bind`], [`Network::bind_host`] or
/// [`Nat::host`](super::Nat::host); give it to [`quinn::Endpoint::new_with_abstract_socket`], or to
/// a wrapper of your own.
///
/// Sending never blocks and never fails: what the network does not carry, it drops and counts.
/// Receiving gives one datagram per buffer, with its ECN bits and the sender's address; an IPv4
/// sender is reported as IPv4, also on a socket bound to an IPv6 address. Destinations may be
/// IPv4-mapped.
///
/// Receiving uses a timer of the tokio runtime it is polled in. One task at a time can wait to
/// receive. Dropping the socket frees its address; what is on its way to it, or unread, is gone.
#[derive(Debug)]
pub struct VirtualSocket {
    network: Network,
    id: SocketId,
    local: SocketAddr,
    /// Wakes the receiver when the next datagram arrives; made at first need, as it belongs to a
    /// runtime.
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
    interface: watch::Sender<Option<SocketAddr>>,
}

impl Network {
    /// Binds a socket. Port 0 takes the lowest free one from 49152. Dropping the socket frees the
    /// address.
    ///
    /// # Errors
    ///
    /// Both are the caller's fault, and nothing has changed:
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if a socket is bound there, or no port is free;
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for `0.0.0.0` and `::`, since a
    /// virtual socket has one address.
    pub fn bind(&self, address: SocketAddr) -> io::Result<Arc<VirtualSocket>> {
        let (id, address) = self.fabric().bind(Realm::INTERNET.endpoint(address))?;
        Ok(Arc::new(VirtualSocket::new(self.clone(), id, address)))
    }

    /// Binds port 7400 of the first host of 10.0.0.0/8 that has no socket: 10.0.0.1:7400,
    /// 10.0.0.2:7400 and so on.
    ///
    /// # Panics
    ///
    /// If all 16,777,214 hosts are taken.
    #[must_use]
    pub fn bind_host(&self) -> Arc<VirtualSocket> {
        let mut fabric = self.fabric();
        let host = (1..=HOSTS)
            .map(|host| IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) | host)))
            .find(|host| !fabric.is_inhabited(internet(*host)))
            .expect("a network has fewer hosts than 10.0.0.0/8 has addresses");
        let (id, address) = fabric
            .bind(Realm::INTERNET.endpoint(SocketAddr::new(host, HOST_PORT)))
            .expect("a host without sockets has every port free");
        drop(fabric);
        Arc::new(VirtualSocket::new(self.clone(), id, address))
    }
}

impl VirtualSocket {
    pub(super) fn new(network: Network, id: SocketId, local: SocketAddr) -> Self {
        Self {
            network,
            id,
            local,
            timer: Mutex::new(None),
            interface: watch::Sender::new(Some(local)),
        }
    }

    /// Where others in the same network reach this socket: what it was bound to, or what
    /// [`Network::rebind`] or [`roam`](Self::roam) made of it since. Behind a NAT, others than its
    /// neighbours do not reach it there.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.network.fabric().home(self.id).map_or(self.local, |home| home.address)
    }

    /// Binds another socket at the same host and in the same network, on the lowest free port from 49152.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if no port is free.
    pub fn sibling(&self) -> io::Result<Arc<Self>> {
        let mut fabric = self.network.fabric();
        let home = fabric.home(self.id).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let at = home.realm.endpoint(SocketAddr::new(home.address.ip(), 0));
        let (id, address) = fabric.bind(at)?;
        drop(fabric);
        Ok(Arc::new(Self::new(self.network.clone(), id, address)))
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn move_to(&self, to: Endpoint) -> io::Result<SocketAddr> {
        let new = self.network.fabric().move_to(self.id, to, Instant::now())?;
        self.interface.send_replace(Some(new));
        Ok(new)
    }

    /// Takes the host off the network: nothing from or to it passes, and it notices.
    pub fn unplug(&self) {
        self.interface.send_replace(None);
        let mut fabric = self.network.fabric();
        if let Some(home) = fabric.home(self.id) {
            fabric.cuts.isolate(home.spot());
            fabric.intercept(Instant::now());
        }
    }

    /// Undoes [`unplug`](Self::unplug). To come back elsewhere, [`roam`](Self::roam) after it.
    pub fn plug(&self) {
        let mut fabric = self.network.fabric();
        if let Some(home) = fabric.home(self.id) {
            fabric.cuts.rejoin(home.spot());
        }
        drop(fabric);
        self.interface.send_replace(Some(self.address()));
    }

    /// The address of the host's only interface, with the socket's port; `None` while it is
    /// [unplugged](Self::unplug). Stands in for the system's interface watcher.
    #[must_use]
    pub fn interface(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.interface.subscribe()
    }

    /// Completes when the first datagram on its way is due. Pending, and without a timer, if there
    /// is none.
    fn poll_due(&self, due: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let mut timer = self.timer.lock().expect("no holder of this lock panics");
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let waker = self.network.fabric().send(self.id, transmit, Instant::now());
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if bufs.is_empty() || meta.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let (due, _stale_waker) = {
                let mut fabric = self.network.fabric();
                let inbox = fabric.inbox(self.id, Instant::now());
                let received = receive(inbox, bufs, meta);
                if received > 0 {
                    return Poll::Ready(Ok(received));
                }
                (inbox.next_due(), inbox.register(cx.waker()))
            };
            ready!(self.poll_due(due, cx));
        }
    }

    /// What the socket was bound to. Like a host behind a NAT, it does not notice a
    /// [`Network::rebind`].
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_TRANSMIT_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for VirtualSocket {
    fn drop(&mut self) {
        let unbound = self.network.fabric().unbind(self.id);
        // Its waker may hold the last reference to a task with sockets of its own: the lock is free
        // by now.
        drop(unbound);
    }
}

/// Copies what has arrived into the buffers, and says how many of them hold a datagram now. What is
/// longer than its buffer is cut short.
fn receive(inbox: &mut Inbox, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
    let mut received = 0;
    for (buf, meta) in bufs.iter_mut().zip(meta) {
        let Some(datagram) = inbox.pop() else { break };
        let len = datagram.contents.len().min(buf.len());
        buf[..len].copy_from_slice(&datagram.contents[..len]);
        *meta =
            RecvMeta { addr: datagram.source, len, stride: len, ecn: datagram.ecn, dst_ip: None };
        received += 1;
    }
    received
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
