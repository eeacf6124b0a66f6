//! The attacker's socket: QUIC packets to and from neighbours as they are, those to and from other
//! nodes switched.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use receptor_quic::id::NodeAddr;
use receptor_quic::switch::{Attachment, Cookie, Header};

/// Where the attacker's QUIC finds other nodes, by the node address in the last eight bytes.
const PREFIX: [u8; 8] = [0xfd, 0xee, 0, 0, 0, 0, 0, 0];
const HOP_LIMIT: u8 = 16;

/// The link that switched packets take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink {
    /// The neighbour's UDP address.
    pub(crate) to: SocketAddr,
    /// The neighbour's cookie, from its HELLO.
    pub(crate) cookie: Cookie,
    /// The source that packets say they have.
    pub(crate) source: NodeAddr,
    /// Where the source says that it is attached.
    pub(crate) attachment: Attachment,
}

/// A UDP socket with switched packets in both directions once there is an uplink.
pub(crate) struct Carrier {
    udp: Arc<dyn AsyncUdpSocket>,
    uplink: Mutex<Option<Uplink>>,
    /// Switched packets that came in, by their headers.
    received: Mutex<Vec<Header>>,
}

impl Carrier {
    pub(crate) fn new(udp: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        Arc::new(Self { udp, uplink: Mutex::default(), received: Mutex::default() })
    }

    pub(crate) fn set_uplink(&self, uplink: Uplink) {
        *self.uplink.lock().unwrap() = Some(uplink);
    }

    /// The headers of the switched packets that came in since the last call.
    pub(crate) fn take_received(&self) -> Vec<Header> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// Sends a datagram as it is. It is lost if the socket's buffer is full.
    pub(crate) fn send(&self, destination: SocketAddr, contents: &[u8]) {
        let transmit =
            Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        let _ = self.udp.try_send(&transmit);
    }

    /// Sends a switched packet over the uplink.
    pub(crate) fn switch(&self, destination: NodeAddr, payload: &[u8]) {
        let Some(Uplink { to, cookie, source, attachment }) = *self.uplink.lock().unwrap() else {
            return;
        };
        let header = Header { hop_limit: HOP_LIMIT, cookie, destination, source, attachment };
        self.send(to, &[&*header.encode(), payload].concat());
    }
}

/// The address by which the attacker's QUIC reaches a node through the mesh.
pub(crate) fn overlay(node: NodeAddr) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&PREFIX);
    octets[8..].copy_from_slice(&node.0);
    SocketAddr::new(Ipv6Addr::from(octets).into(), 1)
}

fn node_behind(addr: SocketAddr) -> Option<NodeAddr> {
    let SocketAddr::V6(addr) = addr else { return None };
    let node = addr.ip().octets().strip_prefix(&PREFIX)?.try_into().ok()?;
    Some(NodeAddr(node))
}

impl AsyncUdpSocket for Carrier {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.udp.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(node) = node_behind(transmit.destination) else {
            return self.udp.try_send(transmit);
        };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        transmit.contents.chunks(segment).for_each(|packet| self.switch(node, packet));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.udp.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter_mut().zip(meta).take(count) {
            if let Ok(header) = Header::decode(&buf[..meta.len]) {
                self.received.lock().unwrap().push(header);
                let from = header.wire_len();
                buf.copy_within(from..meta.len, 0);
                meta.len -= from;
                meta.stride = meta.len;
                meta.addr = overlay(header.source);
            } else if let SocketAddr::V4(addr) = meta.addr {
                meta.addr = SocketAddr::new(addr.ip().to_ipv6_mapped().into(), addr.port());
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7400))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("udp", &self.udp).finish_non_exhaustive()
    }
}
