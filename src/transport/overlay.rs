//! How quinn sees a peer that is reached through the switch: as an IPv6 address.
//!
//! The address is a fixed unique-local prefix (RFC 4193), `fd72:6563:6570:746f`, followed by the 8
//! bytes of the node address. It exists inside the process only; no interface has it, and packets
//! that claim to come from it are dropped.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::id::NodeAddr;

const PREFIX: [u8; 8] = [0xfd, 0x72, 0x65, 0x63, 0x65, 0x70, 0x74, 0x6f];
/// The port of a flow between two nodes that routes lead to.
const PORT: u16 = 1;
/// The port of a flow that this node has opened as a stub.
const PORT_OWN: u16 = 2;
/// The first port of flows that stubs have opened, one for each node that they are attached to.
const FIRST_ATTACHED: u16 = 16;

/// How many nodes stubs may be attached to, of which this process has heard.
pub(crate) const MAX_ATTACHMENTS: u16 = 32_768;

/// The kind of a flow. quinn sees it as the port of the peer's address: it keeps the packets of one
/// connection together, and treats a stub that attaches elsewhere as a peer whose address has
/// changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowKind {
    /// Routes lead to both ends.
    Routed,
    /// This node is a stub, and has opened the flow.
    Own,
    /// The peer is a stub that has opened the flow, attached to the node of this number.
    Attached(u16),
}

impl FlowKind {
    fn port(self) -> u16 {
        match self {
            Self::Routed => PORT,
            Self::Own => PORT_OWN,
            Self::Attached(number) => FIRST_ATTACHED + number,
        }
    }
}

/// The kind of the flow behind an overlay address.
pub(crate) fn flow_kind(addr: SocketAddr) -> FlowKind {
    match addr.port() {
        PORT_OWN => FlowKind::Own,
        port => port.checked_sub(FIRST_ATTACHED).map_or(FlowKind::Routed, FlowKind::Attached),
    }
}

/// The address by which quinn knows a node that routes lead to.
#[cfg(test)]
pub(crate) fn socket_addr(node: NodeAddr) -> SocketAddr {
    flow_addr(node, FlowKind::Routed)
}

/// The address by which quinn knows a node at the other end of a flow.
pub(crate) fn flow_addr(node: NodeAddr, kind: FlowKind) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&PREFIX);
    octets[8..].copy_from_slice(&node.0);
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), kind.port(), 0, 0))
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
        for kind in [
            FlowKind::Routed,
            FlowKind::Own,
            FlowKind::Attached(0),
            FlowKind::Attached(MAX_ATTACHMENTS),
        ] {
            let addr = flow_addr(node, kind);
            assert_eq!((node_addr(addr), flow_kind(addr)), (Some(node), kind));
        }
    }
}
