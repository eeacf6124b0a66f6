//! Binding the UDP sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

use super::renewable::Renewable;
use super::socket::PortOpener;
use super::unreachable::Reports;

/// What is asked of the system as socket buffers, in bytes; it grants what it allows. Handshakes that come by the
/// thousand, and bursts from fast senders, overflow the usual 208 KiB.
const BUFFER: usize = 4 * 1024 * 1024;

/// Binds a socket to each of `addrs`, or one to any port of all interfaces if there are none.
///
/// The IPv6 wildcard takes IPv4 as well. Where the system has no IPv6, the IPv4 wildcard is bound instead.
pub(crate) fn bind(addrs: &[SocketAddr], reports: &Reports) -> io::Result<Vec<Arc<Renewable>>> {
    if addrs.is_empty() {
        let socket = bind_one((Ipv6Addr::UNSPECIFIED, 0).into(), reports)
            .or_else(|_| bind_one((Ipv4Addr::UNSPECIFIED, 0).into(), reports))?;
        return Ok(vec![socket]);
    }
    addrs
        .iter()
        .map(|addr| {
            bind_one(*addr, reports)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
        })
        .collect()
}

/// What binds further sockets for direct paths beside these: on the same IPv4 address, any port. `None` without IPv4:
/// fresh ports are for NATs.
pub(crate) fn port_opener(bound: &[Arc<Renewable>], reports: &Reports) -> Option<PortOpener> {
    let addr = bound.iter().filter_map(|socket| socket.local_addr().ok()).find_map(|addr| {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
            IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv4Addr::UNSPECIFIED),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    })?;
    let reports = reports.clone();
    Some(PortOpener::new(move || Ok(bind_one((addr, 0).into(), &reports)? as Arc<dyn AsyncUdpSocket>)))
}

fn bind_one(addr: SocketAddr, reports: &Reports) -> io::Result<Arc<Renewable>> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is no error: quinn works with any buffer.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&addr.into())?;
    Renewable::new(socket.into(), reports.clone()).map(Arc::new)
}
