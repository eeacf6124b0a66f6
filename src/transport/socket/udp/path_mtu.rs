//! The MTU of a path as the system knows it before anything is sent: the interface's, or less if a
//! router on the path reported so.
//!
//! It bounds path MTU discovery (RFC 8899 §5.1), which would otherwise send probes that never leave
//! the machine, and count each as lost three times.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// Asks the system, and remembers the largest answer.
#[derive(Debug)]
pub(crate) struct PathMtus {
    /// Whether packets follow the system's routes. Other kinds of networks have their own bounds.
    system: bool,
    largest: AtomicU16,
}

impl PathMtus {
    pub(crate) fn new(system: bool) -> Self {
        Self { system, largest: AtomicU16::new(0) }
    }

    /// Maximum UDP payload of a path in bytes; unbounded if the system does not report it.
    pub(crate) fn to(&self, remote: SocketAddr) -> u16 {
        let known = if self.system { ask(remote) } else { None };
        let mtu = known.unwrap_or(u16::MAX);
        self.largest.fetch_max(mtu, Ordering::Relaxed);
        mtu
    }

    /// Maximum over all paths so far, because the path of a switched packet is not known
    /// beforehand; unbounded before the first.
    pub(crate) fn largest(&self) -> u16 {
        match self.largest.load(Ordering::Relaxed) {
            0 => u16::MAX,
            mtu => mtu,
        }
    }
}

#[cfg(target_os = "linux")]
fn ask(remote: SocketAddr) -> Option<u16> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

    use rustix::net::sockopt;

    // The headers of IP, without options, and of UDP.
    let ip = remote.ip().to_canonical();
    let (any, headers): (IpAddr, u32) = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 20 + 8),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 40 + 8),
    };
    // Nothing is sent: connecting looks up the route.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, remote.port())).ok()?;
    let mtu = match ip {
        IpAddr::V4(_) => sockopt::ip_mtu(&socket),
        IpAddr::V6(_) => sockopt::ipv6_mtu(&socket),
    };
    let payload = mtu.ok()?.checked_sub(headers)?;
    // QUIC needs paths of 1,200 bytes (RFC 9000 §14); what claims less is to fail there, and not
    // here.
    Some(u16::try_from(payload).unwrap_or(u16::MAX).max(LEAST))
}

#[cfg(not(target_os = "linux"))]
fn ask(_: SocketAddr) -> Option<u16> {
    None
}

/// The minimum of every path that carries QUIC, in bytes.
#[cfg(target_os = "linux")]
const LEAST: u16 = 1_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_path_on_this_machine_carries_what_its_loopback_does() {
        let mtus = PathMtus::new(true);
        assert_eq!(mtus.largest(), u16::MAX);
        let loopback = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        let payload = loopback.trim().parse::<u32>().unwrap() - 28;
        let told = u32::from(mtus.to("127.0.0.1:9".parse().unwrap()));
        // A length of 16 bits is IP's bound, whatever the interface says.
        assert_eq!(told, payload.min(65_507));
        let mapped = mtus.to("[::ffff:127.0.0.1]:9".parse().unwrap());
        assert_eq!(mapped, mtus.largest());
    }

    #[test]
    fn a_network_that_is_not_the_systems_has_no_bound_here() {
        let mtus = PathMtus::new(false);
        assert_eq!(mtus.to("127.0.0.1:9".parse().unwrap()), u16::MAX);
        assert_eq!(mtus.largest(), u16::MAX);
    }
}
