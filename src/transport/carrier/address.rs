//! How quinn sees the other end of a carrier: as an IPv6 address.
//!
//! The address is a fixed unique-local prefix (RFC 4193), `fd72:6563:6570:7463`, followed by the
//! number of the carrier. Like overlay addresses it exists inside the process only: packets that
//! arrive by UDP and claim to come from it are dropped.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

const PREFIX: [u8; 8] = [0xfd, 0x72, 0x65, 0x63, 0x65, 0x70, 0x74, 0x63];
const PORT: u16 = 1;

/// The address of the carrier with this number.
pub(super) fn of(number: u64) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&PREFIX);
    octets[8..].copy_from_slice(&number.to_be_bytes());
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), PORT, 0, 0))
}

/// The number of the carrier behind an address, if the address is a carrier's.
pub(super) fn number(addr: SocketAddr) -> Option<u64> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let octets = ip.octets();
    let (prefix, number) = octets.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (*prefix == PREFIX).then_some(number)
}

/// Whether packets to this address go into a carrier.
pub(crate) fn is_carrier(addr: SocketAddr) -> bool {
    number(addr).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeAddr;
    use crate::transport::overlay;

    #[test]
    fn a_carrier_address_has_its_number_and_no_other_address_does() {
        for carrier in [0, 1, u64::MAX] {
            assert_eq!(number(of(carrier)), Some(carrier));
            assert_eq!(overlay::node_addr(of(carrier)), None);
        }
        assert!(!is_carrier(overlay::socket_addr(NodeAddr(*b"01234567"))));
        assert!(!is_carrier("10.0.0.1:1".parse().unwrap()));
        assert!(!is_carrier("[fd72:6563:6570:7464::1]:1".parse().unwrap()));
    }
}
