//! One UDP socket of several, and what goes through it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::release::Releasable;
use crate::switch::DropReason;

/// Maximum size of one send with all its segments: the largest datagram of IPv4.
pub(in crate::transport) const MAX_SEND: usize = 65_507;

/// One UDP socket.
#[derive(Clone, Debug)]
pub(in crate::transport::socket) struct Bound {
    pub(in crate::transport::socket) io: Arc<Releasable>,
    pub(in crate::transport::socket) addr: SocketAddr,
}

/// Why a batch, or the end of it, was not sent.
pub(in crate::transport::socket) struct Unsent {
    /// The packets that were sent before.
    pub(in crate::transport::socket) sent: usize,
    pub(in crate::transport::socket) error: io::Error,
}

/// Whether one of several sockets serves an address family. An IPv6 wildcard serves IPv4 if no
/// other socket does: see [`bind`](crate::transport::socket::udp::bind::bind).
pub(in crate::transport::socket) fn carries(sockets: &[Bound], socket: &Bound, ipv4: bool) -> bool {
    let only_ipv6 = || sockets.iter().all(|socket| socket.addr.is_ipv6());
    match ipv4 {
        true => socket.addr.is_ipv4() || socket.addr.ip().is_unspecified() && only_ipv6(),
        false => socket.addr.is_ipv6(),
    }
}

/// Whether a packet to one address can arrive at more than one of the sockets, because one is bound
/// to all addresses of a family and another one to a specific address of it.
pub(in crate::transport::socket) fn is_ambiguous(sockets: &[Bound]) -> bool {
    [true, false].into_iter().any(|ipv4| {
        let carriers = || sockets.iter().filter(|socket| carries(sockets, socket, ipv4));
        carriers().count() > 1 && carriers().any(|socket| socket.addr.ip().is_unspecified())
    })
}

/// The drop reason of a packet that was not sent.
pub(in crate::transport::socket) fn send_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::QueueFull,
        _ => DropReason::SendFailed,
    }
}

/// Maps IPv4 into IPv6: quinn only sees IPv6 addresses.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

pub(in crate::transport::socket) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
