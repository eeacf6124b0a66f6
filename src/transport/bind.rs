//! Binding the UDP sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::renewable::Renewable;

/// What is asked of the system as socket buffers, in bytes; it grants what it allows. Handshakes that come by the
/// thousand, and bursts from fast senders, overflow the usual 208 KiB.
const BUFFER: usize = 4 * 1024 * 1024;

/// Binds a socket to each of `addrs`, or one to any port of all interfaces if there are none.
///
/// The IPv6 wildcard takes IPv4 as well. Where the system has no IPv6, the IPv4 wildcard is bound instead.
pub(crate) fn bind(addrs: &[SocketAddr]) -> io::Result<Vec<Arc<Renewable>>> {
    if addrs.is_empty() {
        let socket = bind_one((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| bind_one((Ipv4Addr::UNSPECIFIED, 0).into()))?;
        return Ok(vec![socket]);
    }
    addrs
        .iter()
        .map(|addr| {
            bind_one(*addr)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
        })
        .collect()
}

fn bind_one(addr: SocketAddr) -> io::Result<Arc<Renewable>> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is no error: quinn works with any buffer.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&addr.into())?;
    Renewable::new(socket.into()).map(Arc::new)
}
