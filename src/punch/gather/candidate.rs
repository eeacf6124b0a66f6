//! Addresses at which a node may be reached, and which of them are worth a probe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// An address at which a node may be reached (RFC 8445 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// The address. IPv4 is never mapped into IPv6.
    pub addr: SocketAddr,
    /// How it is known.
    pub kind: CandidateKind,
}

/// How an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CandidateKind {
    /// The address of an interface.
    Host,
    /// The external address observed by a neighbour, or predicted from it.
    ServerReflexive,
    /// A port mapping requested from the NAT.
    Mapped,
    /// An address that the operator configured.
    External,
    /// The source of a received probe. Never announced to others.
    PeerReflexive,
}

impl CandidateKind {
    /// The name for programs: `host`, `server-reflexive`, `mapped`, `external`, `peer-reflexive`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "server-reflexive",
            Self::Mapped => "mapped",
            Self::External => "external",
            Self::PeerReflexive => "peer-reflexive",
        }
    }
}

/// An address of a local interface, with the port of the node's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress {
    /// The address, and the port that the UDP socket is bound to.
    pub addr: SocketAddr,
    /// The length of the subnet's prefix in bits; of a host alone (32 or 128) where it is not
    /// known.
    pub prefix: u8,
    /// What kind of interface it is.
    pub kind: HostKind,
}

impl HostAddress {
    /// An address of an ordinary interface of which nothing else is known.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        let prefix = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, prefix, kind: HostKind::Ordinary }
    }

    /// Whether the address is in the interface's subnet.
    pub(crate) fn has_in_subnet(&self, ip: IpAddr) -> bool {
        match (self.addr.ip(), ip) {
            (IpAddr::V4(mine), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u64::from(mine.to_bits()) >> shift) == (u64::from(ip.to_bits()) >> shift)
            }
            (IpAddr::V6(mine), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                mine.to_bits().checked_shr(shift) == ip.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }

    /// The address of all hosts in the subnet, where there is one.
    pub(crate) fn broadcast(&self) -> Option<IpAddr> {
        match self.addr.ip() {
            IpAddr::V4(ip) if self.prefix < 31 => {
                Some(Ipv4Addr::from_bits(ip.to_bits() | u32::MAX >> self.prefix).into())
            }
            _ => None,
        }
    }
}

/// What kind of interface an address is of. It decides the place in the order only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum HostKind {
    /// A network card, or nothing is known.
    #[default]
    Ordinary,
    /// A tunnel: a VPN.
    Tunnel,
    /// A bridge to containers or virtual machines on this host. Last in order: others can seldom
    /// reach it.
    Bridge,
}

/// The canonical form of an address: IPv4 unmapped, no flow label, and a scope only where it is
/// significant.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    let ip = addr.ip().to_canonical();
    match (ip, addr) {
        (IpAddr::V6(ip), SocketAddr::V6(addr)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, addr.port(), 0, addr.scope_id()).into()
        }
        _ => SocketAddr::new(ip, addr.port()),
    }
}

/// Whether a datagram may be sent there at all. Loopback addresses count; the caller decides about
/// them.
pub(crate) fn is_unicast(addr: SocketAddr) -> bool {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST,
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    ip && addr.port() != 0
}

/// Whether the address means something to another node: a link-local IPv6 address does not, without
/// the interface.
pub(crate) fn is_portable(addr: SocketAddr) -> bool {
    is_unicast(addr) && !matches!(addr.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        let canonical = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:7"), "192.0.2.1:7");
        assert_eq!(canonical("[2001:db8::1%3]:7"), "[2001:db8::1]:7");
        assert_eq!(canonical("[fe80::1%3]:7"), "[fe80::1%3]:7");
    }

    #[test]
    fn nothing_is_sent_to_many_to_nobody_or_to_port_zero() {
        for bad in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "192.0.2.1:0",
            "[::]:1",
            "[ff02::1]:1",
        ] {
            assert!(!is_unicast(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1:1", "10.0.0.1:1", "169.254.0.1:1", "[::1]:1", "[2001:db8::1]:1"] {
            assert!(is_portable(good.parse().unwrap()), "{good}");
        }
        assert!(!is_portable("[fe80::1]:1".parse().unwrap()));
    }

    #[test]
    fn a_subnet_is_as_long_as_its_prefix() {
        let host =
            |addr: &str, prefix| HostAddress { prefix, ..HostAddress::new(addr.parse().unwrap()) };
        let has = |host: HostAddress, ip: &str| host.has_in_subnet(ip.parse().unwrap());
        assert!(has(host("192.168.1.5:1", 24), "192.168.1.200"));
        assert!(!has(host("192.168.1.5:1", 24), "192.168.2.5"));
        assert!(has(host("192.168.1.5:1", 0), "8.8.8.8"));
        assert!(!has(host("192.168.1.5:1", 32), "192.168.1.4"));
        assert!(has(host("[2001:db8::5]:1", 64), "2001:db8::77"));
        assert!(!has(host("[2001:db8::5]:1", 64), "2001:db8:1::77"));
        assert!(has(host("[2001:db8::5]:1", 0), "::9"));
        assert!(!has(host("[2001:db8::5]:1", 0), "192.0.2.1"));
        assert_eq!(host("192.168.1.5:1", 24).broadcast(), Some("192.168.1.255".parse().unwrap()));
        assert_eq!(host("192.168.1.5:1", 31).broadcast(), None);
    }
}
