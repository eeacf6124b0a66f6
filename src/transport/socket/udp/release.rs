//! A UDP socket that can be released while others still hold it.
//!
//! quinn keeps the socket for as long as any handle to a connection or a stream lives, and each
//! connection keeps a poller that holds the socket as well. The port would be occupied until the
//! application drops the last of them. quinn therefore gets this wrapper, which holds the socket
//! for all.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::sync::lock;

/// A connection's poller, until the socket is let go of.
type Slot = Mutex<Option<Pin<Box<dyn UdpPoller>>>>;

/// A UDP socket that can be released. Afterwards nothing is received, and packets sent are lost.
pub(in crate::transport::socket) struct Releasable {
    /// The socket. Its properties are those at creation, because quinn may query them after the
    /// release.
    inner: ArcSwapOption<Arc<dyn AsyncUdpSocket>>,
    /// Detects the end of the last call in progress.
    holders: Weak<dyn AsyncUdpSocket>,
    addr: SocketAddr,
    max_receive_segments: usize,
    may_fragment: bool,
    /// The pollers that were given out. Those of connections that have ended are forgotten when
    /// others are added.
    pollers: Mutex<Pollers>,
}

#[derive(Default)]
struct Pollers {
    slots: Vec<Weak<Slot>>,
    /// Number of pollers above which closed ones are removed.
    sweep_at: usize,
}

impl Releasable {
    pub(in crate::transport::socket) fn new(socket: Arc<dyn AsyncUdpSocket>) -> io::Result<Self> {
        Ok(Self {
            addr: socket.local_addr()?,
            max_receive_segments: socket.max_receive_segments(),
            may_fragment: socket.may_fragment(),
            holders: Arc::downgrade(&socket),
            inner: ArcSwapOption::from_pointee(socket),
            pollers: Mutex::default(),
        })
    }

    /// Releases the socket. The system has the port back as soon as no call is in progress, see
    /// [`is_free`](Self::is_free).
    pub(in crate::transport::socket) fn release(&self) {
        // Under the lock, so that no poller is added behind its back.
        let mut pollers = lock(&self.pollers);
        self.inner.store(None);
        for slot in pollers.slots.drain(..).filter_map(|slot| slot.upgrade()) {
            *lock(&slot) = None;
        }
    }

    /// Whether the socket is closed.
    pub(in crate::transport::socket) fn is_free(&self) -> bool {
        self.holders.strong_count() == 0
    }
}

impl AsyncUdpSocket for Releasable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let mut pollers = lock(&self.pollers);
        let inner = self.inner.load_full();
        let slot =
            Arc::new(Mutex::new(inner.map(|inner| inner.as_ref().clone().create_io_poller())));
        if pollers.slots.len() >= pollers.sweep_at {
            pollers.slots.retain(|slot| slot.strong_count() > 0);
            // Twice as many as are left, so that the search costs each poller the same.
            pollers.sweep_at = 2 * pollers.slots.len().max(16);
        }
        pollers.slots.push(Arc::downgrade(&slot));
        Box::pin(Poller(slot))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match &*self.inner.load() {
            Some(socket) => socket.try_send(transmit),
            None => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match &*self.inner.load() {
            Some(socket) => socket.poll_recv(cx, bufs, meta),
            // Nothing comes any more. quinn's task is woken when the last handle is dropped, and
            // ends.
            None => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.load().as_ref().map_or(1, |socket| socket.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.max_receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

impl fmt::Debug for Releasable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releasable").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// What a connection waits with for room to send.
struct Poller(Arc<Slot>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Contended only while the socket is let go of.
        match &mut *lock(&self.0) {
            Some(poller) => poller.as_mut().poll_writable(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::task::Waker;

    use quinn::{Runtime, TokioRuntime};

    use super::*;

    #[tokio::test]
    async fn the_port_is_free_while_quinn_still_holds_socket_and_pollers() {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = bound.local_addr().unwrap();
        let socket =
            Arc::new(Releasable::new(TokioRuntime.wrap_udp_socket(bound).unwrap()).unwrap());
        let mut poller = socket.clone().create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        assert!(!socket.is_free());
        assert!(UdpSocket::bind(addr).is_err(), "the port is taken");

        socket.release();
        assert!(socket.is_free());
        UdpSocket::bind(addr).expect("the port is free");

        let mut cx = Context::from_waker(Waker::noop());
        assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
        assert!(socket.clone().create_io_poller().as_mut().poll_writable(&mut cx).is_ready());
        let transmit = Transmit {
            destination: addr,
            ecn: None,
            contents: b"lost",
            segment_size: None,
            src_ip: None,
        };
        socket.try_send(&transmit).unwrap();
        let mut buf = [0; 16];
        let received =
            socket.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buf)], &mut [RecvMeta::default()]);
        assert!(received.is_pending());
        assert_eq!(socket.local_addr().unwrap(), addr);
    }

    #[tokio::test]
    async fn pollers_of_connections_that_ended_are_forgotten() {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket =
            Arc::new(Releasable::new(TokioRuntime.wrap_udp_socket(bound).unwrap()).unwrap());
        let kept: Vec<_> = (0..20).map(|_| socket.clone().create_io_poller()).collect();
        for _ in 0..1_000 {
            drop(socket.clone().create_io_poller());
        }
        assert!(lock(&socket.pollers).slots.len() <= 4 * kept.len());
    }
}
