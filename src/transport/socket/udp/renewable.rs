//! A UDP socket that recovers from what quinn-udp concludes from errors.
//!
//! It differs from quinn's own wrapper in three ways:
//!
//! - **Sending can be reset.** If the system rejects a source address that has just been removed as
//!   an invalid argument (Linux does, at least for IPv6), quinn-udp concludes that the kernel or
//!   the network card lacks offloads: from then on it sends packets one by one, without
//!   segmentation offload and ECN. That is correct on such machines, and permanently costs a factor
//!   of three on one that has only changed its address. [`renew`](Renewable::renew) discards what
//!   quinn-udp has learned.
//! - **A pending error costs no packet.** Linux fails the next call on a socket with the ICMP error
//!   of an earlier packet, regardless of the destination of that call. Such a call is repeated.
//! - **Errors are reported**, those that the system returns and those that ICMP delivers: see
//!   [`Reports`].

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustix::io::Errno;
use tokio::io::Interest;
use tracing::debug;

use super::unreachable::{Reason, Reports};

/// How often a send is repeated that failed: each pending error fails one call, and more may come
/// in meanwhile.
const REPEATS: usize = 3;

/// A UDP socket that recovers from what quinn-udp concludes from errors. Receiving stays registered
/// with the runtime; sending is registered again where that helps.
#[derive(Debug)]
pub(crate) struct Renewable {
    socket: UdpSocket,
    receiving: Arc<Registered>,
    sending: ArcSwap<Registered>,
    /// Segments that one send may have on this machine.
    segments: usize,
    reports: Reports,
}

/// The socket as registered with the runtime, and what quinn-udp knows about it.
#[derive(Debug)]
struct Registered {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl Registered {
    fn new(socket: &UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(socket.into())?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket.try_clone()?)?, state })
    }

    /// Whether the runtime considers the socket writable.
    fn seems_writable(&self) -> bool {
        self.io.try_io(Interest::WRITABLE, || Ok(())).is_ok()
    }
}

impl Renewable {
    /// Wraps a socket on the current tokio runtime. What does not arrive is reported to `reports`.
    pub(crate) fn new(socket: UdpSocket, reports: Reports) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let receiving = Arc::new(Registered::new(&socket)?);
        Ok(Self {
            sending: ArcSwap::new(receiving.clone()),
            segments: receiving.state.max_gso_segments(),
            receiving,
            socket,
            reports,
        })
    }

    /// Has sending start afresh, if it has become worse than it was.
    pub(crate) fn renew(&self) {
        if self.max_transmit_segments() < self.segments {
            self.register_sending();
        }
    }

    fn register_sending(&self) {
        match Registered::new(&self.socket) {
            Ok(registered) => self.sending.store(Arc::new(registered)),
            // Slower, but it works.
            Err(error) => debug!(%error, "sending goes on with the registration that there is"),
        }
    }

    /// Reports ICMP errors for packets that were sent, for as long as it is polled. Waits for the
    /// runtime to signal an error, and reads until the queue is empty: remaining entries count
    /// against the receive buffer.
    ///
    /// # Errors
    /// The system keeps no errors for the socket, the queue cannot be read, or the runtime is
    /// shutting down.
    #[cfg(target_os = "linux")]
    pub(crate) async fn report_icmp(&self) -> io::Result<()> {
        // Enabled only here, because unread errors would fill the receive buffer.
        super::error_queue::enable(&self.socket)?;
        let io = &self.receiving.io;
        loop {
            io.ready(Interest::ERROR).await?;
            match io.try_io(Interest::ERROR, || super::error_queue::next(io)) {
                Ok(Some(unreachable)) => self.reports.report(unreachable.to, unreachable.why),
                Ok(None) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Error queues are not supported on this system.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn report_icmp(&self) -> io::Result<()> {
        std::future::pending().await
    }

    /// The system had no room for a packet.
    ///
    /// epoll signals an error together with writability. mio and tokio read that as "closed for
    /// writing", which tokio never forgets, and a task that waits for room would spin.
    fn note_full(&self, sending: &Registered) {
        if sending.seems_writable() {
            self.register_sending();
        }
    }

    fn send(&self, sending: &Registered, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || {
            sending.io.try_io(Interest::WRITABLE, || {
                sending.state.try_send((&sending.io).into(), transmit)
            })
        };
        let mut sent = send();
        for _ in 0..REPEATS {
            match &sent {
                Err(error) if may_be_pending(error) => sent = send(),
                Ok(()) | Err(_) => break,
            }
        }
        sent
    }
}

/// Whether an error from sending may be that of an earlier packet: one of those that ICMP brings.
fn may_be_pending(error: &io::Error) -> bool {
    let pending = [
        Errno::CONNREFUSED,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::ACCESS,
        Errno::MSGSIZE,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
    ];
    Errno::from_io_error(error).is_some_and(|errno| pending.contains(&errno))
}

impl AsyncUdpSocket for Renewable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { of: self.sending.load_full(), socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sending = self.sending.load();
        let Err(error) = self.send(&sending, transmit) else { return Ok(()) };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.note_full(&sending);
            return Err(error);
        }
        if let Some(why) = Reason::of_send_error(&error) {
            self.reports.report(transmit.destination, why);
        }
        match Errno::from_io_error(&error) {
            // A probe of the path MTU, or a full queue of the network card: a lost packet, which
            // QUIC notices.
            Some(Errno::MSGSIZE | Errno::NOBUFS) => Ok(()),
            _ => Err(error),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Registered { io, state } = &*self.receiving;
        loop {
            ready!(io.poll_recv_ready(cx))?;
            // An error is that of a packet which was sent. It is gone with this call.
            if let Ok(received) =
                io.try_io(Interest::READABLE, || state.recv(io.into(), bufs, meta))
            {
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.sending.load().state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receiving.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.receiving.state.may_fragment()
    }
}

/// Waits for room where packets are sent now: readiness belongs to a registration, and not to the
/// socket.
struct Writable {
    socket: Arc<Renewable>,
    of: Arc<Registered>,
    // Created only when the socket is full.
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.socket.sending.load();
        if !Arc::ptr_eq(&now, &self.of) {
            let now = Arc::clone(&now);
            (self.waiting, self.of) = (None, now);
        }
        if self.of.seems_writable() {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        let of = self.of.clone();
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(async move { of.io.writable().await }));
        let ready = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(ready)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;
    use crate::transport::socket::udp::unreachable::Unreachable;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn sending_from_an_address_that_has_gone_does_not_cost_offload_for_ever() {
        let Ok(receiver) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
            let required = std::env::var("RECEPTOR_REQUIRE_LAB").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "this machine has no IPv6; unset RECEPTOR_REQUIRE_LAB to skip this test"
            );
            return println!("skipped: this machine has no IPv6");
        };
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let socket = Arc::new(Renewable::new(socket, Reports::default()).unwrap());
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
        // RFC 3849: an address for documentation, which this machine does not have.
        socket
            .try_send(&from(Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())))
            .unwrap_err();
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

    /// Two sockets on the loopback of which the second is gone.
    #[cfg(target_os = "linux")]
    fn a_sender_and_a_closed_port() -> (Arc<Renewable>, Reports, SocketAddr) {
        let reports = Reports::default();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = Arc::new(Renewable::new(socket, reports.clone()).unwrap());
        crate::transport::socket::udp::error_queue::enable(&socket.socket).unwrap();
        (socket, reports, closed)
    }

    fn hello(destination: SocketAddr) -> Transmit<'static> {
        Transmit { destination, ecn: None, contents: b"hello", segment_size: None, src_ip: None }
    }

    async fn writable(socket: &Arc<Renewable>) {
        let mut poller = socket.clone().create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_port_that_nobody_listens_on_is_reported() {
        let (socket, reports, closed) = a_sender_and_a_closed_port();
        let mut reported = reports.subscribe();
        writable(&socket).await;
        socket.try_send(&hello(closed)).unwrap();
        let unreachable = tokio::select! {
            unreachable = reported.recv() => unreachable.unwrap(),
            ended = socket.report_icmp() => panic!("{ended:?}"),
        };
        assert_eq!(unreachable, Unreachable { to: closed, why: Reason::Port });
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_dual_stack_socket_reports_ipv4_ports_as_ipv4() {
        let reports = Reports::default();
        let Ok(bound) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
            return println!("skipped: this machine has no IPv6");
        };
        let socket = Arc::new(Renewable::new(bound, reports.clone()).unwrap());
        crate::transport::socket::udp::error_queue::enable(&socket.socket).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut reported = reports.subscribe();
        writable(&socket).await;
        let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), closed.port());
        socket.try_send(&hello(mapped)).unwrap();
        let unreachable = tokio::select! {
            unreachable = reported.recv() => unreachable.unwrap(),
            ended = socket.report_icmp() => panic!("{ended:?}"),
        };
        assert_eq!(unreachable, Unreachable { to: closed, why: Reason::Port });
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_error_of_one_destination_costs_another_no_packet() {
        let (socket, _reports, closed) = a_sender_and_a_closed_port();
        let alive = UdpSocket::bind("127.0.0.1:0").unwrap();
        alive.set_nonblocking(true).unwrap();
        writable(&socket).await;
        for _ in 0..50 {
            // On the loopback the answer by ICMP is there when the call returns.
            socket.try_send(&hello(closed)).unwrap();
            socket.try_send(&hello(alive.local_addr().unwrap())).unwrap();
            assert_eq!(alive.recv(&mut [0; 16]).unwrap(), 5);
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn after_an_icmp_error_a_full_socket_is_still_waited_for() {
        let (socket, _reports, closed) = a_sender_and_a_closed_port();
        writable(&socket).await;
        socket.try_send(&hello(closed)).unwrap();
        // The runtime sees the error, which mio takes for the end of writing.
        tokio::time::timeout(Duration::from_millis(100), socket.report_icmp()).await.unwrap_err();
        // What a full socket answers, so that the runtime forgets that there was room.
        let full = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
        socket.sending.load().io.try_io(Interest::WRITABLE, full).unwrap_err();
        assert!(
            socket.sending.load().seems_writable(),
            "the runtime forgets, and this file's workaround is not needed"
        );
        let before = socket.sending.load_full();
        socket.note_full(&before);
        assert!(!Arc::ptr_eq(&before, &socket.sending.load()), "sending is registered anew");
        writable(&socket).await;
        socket.try_send(&hello(closed)).unwrap();
    }
}
