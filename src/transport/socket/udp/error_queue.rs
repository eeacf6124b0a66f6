//! The error queue of a UDP socket on Linux: ICMP messages about packets that the socket sent.
//!
//! With `IP_RECVERR` and `IPV6_RECVERR` (ip(7), ipv6(7)) the kernel keeps every ICMP error with the
//! destination of the packet that caused it. It also makes the *next* call on the socket fail with
//! that error, whatever that call is about: see [`Renewable`](super::renewable::Renewable), which
//! repeats it.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use super::unreachable::{Reason, Unreachable};

/// Has the kernel keep ICMP errors for this socket.
pub(in crate::transport) fn enable(socket: &UdpSocket) -> io::Result<()> {
    // An IPv6 socket sends IPv4 as well, and needs both options; where IPv4 is refused it has no
    // IPv4.
    let v4 = setsockopt(socket, sockopt::Ipv4RecvErr, &true);
    match socket.local_addr()?.is_ipv6() {
        true => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
        false => v4?,
    }
    Ok(())
}

/// Removes the oldest entry from the queue. `Ok(None)` is an entry that does not concern
/// reachability, such as a packet that was too large.
///
/// # Errors
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if the queue is empty.
pub(in crate::transport) fn next(socket: &impl AsRawFd) -> io::Result<Option<Unreachable>> {
    // What the ICMP message quotes of the packet is of no interest here.
    let mut payload = [IoSliceMut::new(&mut [])];
    // The error, the address that reported it, and what the socket's options add to every received
    // message.
    let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6, [u8; 128]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let entry =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut payload, Some(&mut control), flags)?;
    let Some(to) = entry.address.as_ref().and_then(socket_addr) else { return Ok(None) };
    // Truncated control messages are not reliable.
    let Ok(messages) = entry.cmsgs() else { return Ok(None) };
    let why = messages.filter_map(reason).next();
    Ok(why.map(|why| Unreachable { to, why }))
}

fn reason(message: ControlMessageOwned) -> Option<Reason> {
    let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) =
        message
    else {
        return None;
    };
    // The kernel also queues local errors, which the caller of send receives anyway.
    let by_icmp = matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
    by_icmp.then(|| Reason::of_icmp_error(i32::try_from(error.ee_errno).ok()?)).flatten()
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || addr.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
    let addr = addr.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)).or_else(v4)?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}
