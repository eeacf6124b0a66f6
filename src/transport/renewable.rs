//! A UDP socket whose sending can begin anew.
//!
//! When the system calls an argument invalid, because the address that a packet was to come from has just gone (Linux does
//! so for IPv6 at least), quinn-udp concludes that the system is an old one, or the network card a simple one: from then on it sends packets one by one, without
//! segmentation offload, and without ECN. That is right on such machines, and a factor of three lost for ever on one that has changed its
//! address. What quinn-udp knows of a socket is made when the socket is wrapped; so it is wrapped again.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use tracing::debug;

/// A UDP socket whose sending can begin anew. Receiving goes on as it is: what waits for packets is registered there.
#[derive(Debug)]
pub(crate) struct Renewable {
    socket: UdpSocket,
    receiving: Arc<dyn AsyncUdpSocket>,
    sending: ArcSwap<Arc<dyn AsyncUdpSocket>>,
    /// Segments that one send may have on this machine.
    segments: usize,
}

impl Renewable {
    /// Wraps a socket on the current tokio runtime.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let receiving = TokioRuntime.wrap_udp_socket(socket.try_clone()?)?;
        Ok(Self {
            sending: ArcSwap::from_pointee(receiving.clone()),
            segments: receiving.max_transmit_segments(),
            receiving,
            socket,
        })
    }

    /// Has sending begin anew, if it has become worse than it was.
    pub(crate) fn renew(&self) {
        if self.max_transmit_segments() >= self.segments {
            return;
        }
        match self.socket.try_clone().and_then(|socket| TokioRuntime.wrap_udp_socket(socket)) {
            Ok(anew) => self.sending.store(Arc::new(anew)),
            // Slower, but as well.
            Err(error) => debug!(%error, "sending goes on without segmentation offload"),
        }
    }
}

impl AsyncUdpSocket for Renewable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let of = self.sending.load_full();
        let poller = of.as_ref().clone().create_io_poller();
        Box::pin(Writable { socket: self, of, poller })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sending.load().try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.receiving.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.receiving.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.sending.load().max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receiving.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.receiving.may_fragment()
    }
}

/// Waits for room where packets are sent now: readiness is known to a wrapping of the socket, and not to the socket.
#[derive(Debug)]
struct Writable {
    socket: Arc<Renewable>,
    of: Arc<Arc<dyn AsyncUdpSocket>>,
    poller: Pin<Box<dyn UdpPoller>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.socket.sending.load_full();
        if !Arc::ptr_eq(&now, &self.of) {
            self.poller = now.as_ref().clone().create_io_poller();
            self.of = now;
        }
        self.poller.as_mut().poll_writable(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn sending_from_an_address_that_has_gone_does_not_cost_offload_for_ever() {
        let Ok(receiver) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
            return println!("skipped: this machine has no IPv6");
        };
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let socket = Arc::new(Renewable::new(socket).unwrap());
        let mut poller = socket.clone().create_io_poller();
        let before = socket.max_transmit_segments();
        let from = |ip: Option<IpAddr>| Transmit {
            destination: receiver.local_addr().unwrap(),
            ecn: None,
            contents: b"hello",
            segment_size: None,
            src_ip: ip,
        };
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        // An address of documentation, which this machine does not have.
        socket.try_send(&from(Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))).unwrap();
        if before > 1 {
            assert_eq!(socket.max_transmit_segments(), 1, "quinn-udp has given offload up");
        }
        socket.renew();
        assert_eq!(socket.max_transmit_segments(), before);
        // The poller from before waits for room in what sends now.
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        socket.try_send(&from(None)).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 5);
    }
}
