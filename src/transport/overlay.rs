//! How quinn sees a peer that is reached through the switch: as an IPv6 address.
//!
//! The address is a fixed unique-local prefix (RFC 4193), `fd72:6563:6570:746f`, followed by the 8 bytes of the node
//! address. It exists inside the process only; no interface has it, and packets that claim to come from it are dropped.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::id::NodeAddr;

const PREFIX: [u8; 8] = [0xfd, 0x72, 0x65, 0x63, 0x65, 0x70, 0x74, 0x6f];
const PORT: u16 = 1;

/// The address by which quinn knows a node.
pub(crate) fn socket_addr(node: NodeAddr) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&PREFIX);
    octets[8..].copy_from_slice(&node.0);
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), PORT, 0, 0))
}

/// The node behind an address, if the address is of the overlay.
pub(crate) fn node_addr(addr: SocketAddr) -> Option<NodeAddr> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let octets = ip.octets();
    let (prefix, node) = octets.split_first_chunk::<8>()?;
    (*prefix == PREFIX).then(|| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(node);
        NodeAddr(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_address_names_its_node_and_no_other_address_does() {
        let node = NodeAddr(*b"01234567");
        assert_eq!(node_addr(socket_addr(node)), Some(node));
        assert_eq!(node_addr("[fd72:6563:6570:7470::1]:1".parse().unwrap()), None);
        assert_eq!(node_addr("10.0.0.1:1".parse().unwrap()), None);
    }
}
