//! The header of a switched packet.
//!
//! ```text
//!  0        1           2                10               18               26
//!  ┌────────┬───────────┬────────────────┬────────────────┬────────────────┬──────────────▶
//!  │ type   │ hop limit │ cookie         │ destination    │ source         │ QUIC packet
//!  └────────┴───────────┴────────────────┴────────────────┴────────────────┴──────────────▶
//! ```

use std::fmt;

use crate::id::NodeAddr;

/// Eight random bytes, drawn per link and direction, that admit packets to a node.
///
/// The receiver draws it and tells its neighbour in HELLO, so whoever is not a neighbour cannot inject packets, and a
/// neighbour whose NAT gives it a new port is still known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Cookie(pub [u8; 8]);

// A cookie is a credential: it does not go into logs.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The header of a switched packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How many more nodes may handle the packet, the receiver included.
    pub hop_limit: u8,
    /// What admits the packet to the node that receives it.
    pub cookie: Cookie,
    /// The node at which the packet ends.
    pub destination: NodeAddr,
    /// The node at which it began.
    pub source: NodeAddr,
}

impl Header {
    /// The length on the wire, in bytes.
    pub const LEN: usize = 26;
    /// The type byte of a switched packet.
    pub const TYPE: u8 = 0x01;
    /// Packets whose first byte is below this are the mesh's own; QUIC packets have the fixed bit (RFC 9000 §17), which
    /// is 0x40, since the endpoint does not grease it.
    pub const FIRST_QUIC_BYTE: u8 = 0x40;

    /// Reads the header at the start of a packet.
    ///
    /// # Errors
    /// The packet is not a switched one; the sender's fault.
    pub fn decode(packet: &[u8]) -> Result<Self, HeaderError> {
        let Some((head, payload)) = packet.split_first_chunk::<{ Self::LEN }>() else {
            return Err(HeaderError::TooShort);
        };
        if head[0] != Self::TYPE {
            return Err(HeaderError::UnknownType(head[0]));
        }
        if payload.is_empty() {
            return Err(HeaderError::TooShort);
        }
        let field = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            bytes
        };
        Ok(Self {
            hop_limit: head[1],
            cookie: Cookie(field(2)),
            destination: NodeAddr(field(10)),
            source: NodeAddr(field(18)),
        })
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut head = [0; Self::LEN];
        head[0] = Self::TYPE;
        head[1] = self.hop_limit;
        head[2..10].copy_from_slice(&self.cookie.0);
        head[10..18].copy_from_slice(&self.destination.0);
        head[18..26].copy_from_slice(&self.source.0);
        head
    }

    /// Makes the packet at `packet` one for the next node: one hop fewer, and that node's cookie.
    ///
    /// # Panics
    /// Never for a packet that [`decode`](Self::decode) read.
    pub fn rewrite(packet: &mut [u8], cookie: Cookie) {
        packet[1] = packet[1].saturating_sub(1);
        packet[2..10].copy_from_slice(&cookie.0);
    }
}

/// Why bytes are not a switched packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer bytes than a header and one byte of payload.
    #[error("shorter than a header and a payload")]
    TooShort,
    /// A type that this version does not know.
    #[error("unknown packet type {0:#04x}")]
    UnknownType(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            hop_limit: 9,
            cookie: Cookie(*b"cookie!!"),
            destination: NodeAddr(*b"to-there"),
            source: NodeAddr(*b"fromhere"),
        };
        let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../../docs/protocol.md").contains(&hex), "not on the page: {hex}");
        let mut packet = header.encode().to_vec();
        packet.push(0x40);
        assert_eq!(Header::decode(&packet), Ok(header));
        assert_eq!(packet, b"\x01\x09cookie!!to-therefromhere\x40");
    }

    #[test]
    fn truncated_and_unknown_packets_are_refused() {
        let packet = [Header::TYPE; Header::LEN];
        for len in 0..=Header::LEN {
            assert_eq!(Header::decode(&packet[..len]), Err(HeaderError::TooShort));
        }
        assert_eq!(Header::decode(&[0x3f; 40]), Err(HeaderError::UnknownType(0x3f)));
    }

    #[test]
    fn rewriting_takes_a_hop_and_changes_the_cookie() {
        let header = Header {
            hop_limit: 2,
            cookie: Cookie([1; 8]),
            destination: NodeAddr([2; 8]),
            source: NodeAddr([3; 8]),
        };
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(b"@payload");
        Header::rewrite(&mut packet, Cookie([9; 8]));
        assert_eq!(Header::decode(&packet), Ok(Header { hop_limit: 1, cookie: Cookie([9; 8]), ..header }));
        assert!(packet.ends_with(b"@payload"));
    }
}
