//! Functions over one packet that this node originates.

use quinn::udp::Transmit;

use crate::switch::{Attachment, ForwardingTable, Header, NextHop};

/// The next hop of a QUIC packet that begins here, and its hop limit. Handshakes avoid direct
/// paths: see [`originate_packet`](ForwardingTable::originate_packet).
pub(super) fn way(table: &ForwardingTable, header: &Header, quic: &[u8]) -> Option<(NextHop, u8)> {
    table.originate_packet(header, quic.first().is_some_and(|first| is_handshake(*first)))
}

/// Whether a QUIC packet is part of a handshake, by its first byte: those have long headers (RFC
/// 9000 §17.2).
pub(super) fn is_handshake(first: u8) -> bool {
    first & 0x80 != 0
}

/// The packets of a batch.
pub(super) fn segments<'a>(transmit: &Transmit<'a>) -> impl ExactSizeIterator<Item = &'a [u8]> {
    transmit.contents.chunks(transmit.segment_size.unwrap_or(transmit.contents.len()).max(1))
}

/// Updates the attachment in a packet from this node, if one of its ends is a stub.
pub(super) fn refresh_attachment(packet: &mut [u8], table: &ForwardingTable) {
    let Ok(header) = Header::decode(packet) else { return };
    let header = match header.attachment {
        Attachment::None => return,
        Attachment::Source(_) => match table.attached_toward(header.destination) {
            Some(at) => Header { attachment: Attachment::Source(at), ..header },
            None => return,
        },
        Attachment::Stub(stub) => {
            Header { destination: table.attachment(stub, header.destination), ..header }
        }
    };
    let header = header.encode();
    packet[..header.len()].copy_from_slice(&header);
}
