//! The header of a switched packet.
//!
//! ```text
//!  0        1           2                10               18               26
//!  ┌────────┬───────────┬────────────────┬────────────────┬────────────────┬──────────────▶
//!  │ type   │ hop limit │ cookie         │ destination    │ source         │ QUIC packet
//!  └────────┴───────────┴────────────────┴────────────────┴────────────────┴──────────────▶
//! ```
//!
//! Packets of a stub's flow carry eight bytes more, the [`Attachment`].

use std::fmt;
use std::ops::Deref;

use crate::id::NodeAddr;

/// Eight random bytes per link and direction that admit packets to a node.
///
/// The receiver draws them and announces them in HELLO. A node that is not a neighbour cannot
/// inject packets, and a neighbour whose NAT assigns a new port is still recognised.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Cookie(pub [u8; 8]);

// A cookie is a credential: it must not appear in logs.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The attachment of the stub at one end of a flow, so that replies to it need no route.
///
/// A stub may come and go faster than the mesh learns of it. The packets of flows that it opens
/// carry the node that it is attached to. Replies go to that node, which delivers them to the stub.
/// The attachment is not verified: it only serves its own flow and never enters a routing table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Attachment {
    /// Neither end of the flow is a stub, or routes to the stub are used. Type `0x01`.
    #[default]
    None,
    /// The source is a stub that is attached to this node. Type `0x02`.
    Source(NodeAddr),
    /// The packet is for this stub, which is attached to the destination. Type `0x03`.
    Stub(NodeAddr),
}

/// The header of a switched packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How many more nodes may handle the packet, the receiver included.
    pub hop_limit: u8,
    /// Admits the packet to the node that receives it.
    pub cookie: Cookie,
    /// The node at which the packet ends.
    pub destination: NodeAddr,
    /// The node that originated it.
    pub source: NodeAddr,
    /// Where a stub at one of its ends is attached.
    pub attachment: Attachment,
}

/// A header as bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; Header::MAX_LEN],
    len: usize,
}

impl Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Header {
    /// The length on the wire without an attachment, in bytes.
    pub const LEN: usize = 26;
    /// The length on the wire with an attachment, in bytes.
    pub const MAX_LEN: usize = Self::LEN + 8;
    /// The type byte of a switched packet without an attachment.
    pub const TYPE: u8 = 0x01;
    /// The type byte of a packet from a stub, with the node that the stub is attached to.
    pub const TYPE_FROM_STUB: u8 = 0x02;
    /// The type byte of a packet to a node for a stub that is attached there.
    pub const TYPE_TO_STUB: u8 = 0x03;
    /// Packets whose first byte is below this are the mesh's own; QUIC packets have the fixed bit
    /// (RFC 9000 §17), which is 0x40, since the endpoint does not grease it.
    pub const FIRST_QUIC_BYTE: u8 = 0x40;

    /// Reads the header at the start of a packet.
    ///
    /// # Errors
    /// The packet is not a switched one; the sender's fault.
    pub fn decode(packet: &[u8]) -> Result<Self, HeaderError> {
        let kind = *packet.first().ok_or(HeaderError::TooShort)?;
        let len = Self::len_of(kind).ok_or(HeaderError::UnknownType(kind))?;
        if packet.len() <= len {
            return Err(HeaderError::TooShort);
        }
        let head = &packet[..len];
        let field = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            bytes
        };
        let attachment = match kind {
            Self::TYPE_FROM_STUB => Attachment::Source(NodeAddr(field(26))),
            Self::TYPE_TO_STUB => Attachment::Stub(NodeAddr(field(26))),
            _ => Attachment::None,
        };
        Ok(Self {
            hop_limit: head[1],
            cookie: Cookie(field(2)),
            destination: NodeAddr(field(10)),
            source: NodeAddr(field(18)),
            attachment,
        })
    }

    /// The length of a header with this type byte. `None` if the type is unknown.
    #[must_use]
    pub fn len_of(kind: u8) -> Option<usize> {
        match kind {
            Self::TYPE => Some(Self::LEN),
            Self::TYPE_FROM_STUB | Self::TYPE_TO_STUB => Some(Self::MAX_LEN),
            _ => None,
        }
    }

    /// The length of this header on the wire, in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        if self.attachment == Attachment::None { Self::LEN } else { Self::MAX_LEN }
    }

    /// The node at which the packet ends: the destination, or the stub behind it.
    #[must_use]
    pub fn end(&self) -> NodeAddr {
        match self.attachment {
            Attachment::Stub(stub) => stub,
            Attachment::None | Attachment::Source(_) => self.destination,
        }
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> HeaderBytes {
        let (kind, attached) = match self.attachment {
            Attachment::None => (Self::TYPE, [0; 8]),
            Attachment::Source(node) => (Self::TYPE_FROM_STUB, node.0),
            Attachment::Stub(stub) => (Self::TYPE_TO_STUB, stub.0),
        };
        let mut head = [0; Self::MAX_LEN];
        head[0] = kind;
        head[1] = self.hop_limit;
        head[2..10].copy_from_slice(&self.cookie.0);
        head[10..18].copy_from_slice(&self.destination.0);
        head[18..26].copy_from_slice(&self.source.0);
        head[26..34].copy_from_slice(&attached);
        HeaderBytes { bytes: head, len: self.wire_len() }
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
            attachment: Attachment::None,
        };
        let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../../docs/protocol.md").contains(&hex), "not on the page: {hex}");
        let mut packet = header.encode().to_vec();
        packet.push(0x40);
        assert_eq!(Header::decode(&packet), Ok(header));
        assert_eq!(packet, b"\x01\x09cookie!!to-therefromhere\x40");
    }

    #[test]
    fn the_attachment_of_a_stub_is_read_as_it_was_written() {
        let header = |attachment| Header {
            hop_limit: 9,
            cookie: Cookie(*b"cookie!!"),
            destination: NodeAddr(*b"to-there"),
            source: NodeAddr(*b"fromhere"),
            attachment,
        };
        let from_stub = header(Attachment::Source(NodeAddr(*b"attached")));
        let to_stub = header(Attachment::Stub(NodeAddr(*b"the-stub")));
        for (header, kind) in [(from_stub, 0x02), (to_stub, 0x03)] {
            let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(
                include_str!("../../docs/protocol.md").contains(&hex),
                "not on the page: {hex}"
            );
            let mut packet = header.encode().to_vec();
            assert_eq!((packet[0], packet.len()), (kind, Header::MAX_LEN));
            assert_eq!(Header::decode(&packet), Err(HeaderError::TooShort));
            packet.push(0x40);
            assert_eq!(Header::decode(&packet), Ok(header));
        }
        assert_eq!(
            (from_stub.end(), to_stub.end()),
            (NodeAddr(*b"to-there"), NodeAddr(*b"the-stub"))
        );
    }

    #[test]
    fn truncated_and_unknown_packets_are_refused() {
        for kind in [Header::TYPE, Header::TYPE_FROM_STUB, Header::TYPE_TO_STUB] {
            let packet = [kind; Header::MAX_LEN];
            for len in 0..=Header::len_of(kind).unwrap() {
                assert_eq!(Header::decode(&packet[..len]), Err(HeaderError::TooShort));
            }
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
            attachment: Attachment::None,
        };
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(b"@payload");
        Header::rewrite(&mut packet, Cookie([9; 8]));
        assert_eq!(
            Header::decode(&packet),
            Ok(Header { hop_limit: 1, cookie: Cookie([9; 8]), ..header })
        );
        assert!(packet.ends_with(b"@payload"));
    }
}
