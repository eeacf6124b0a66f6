//! Packets without a route, own and others': they wait a moment for one.

use crate::switch::{DropReason, Flow, ForwardingTable, Header, HeldPacket, NextHop};
use crate::sync::lock;
use crate::transport::socket::Socket;
use crate::transport::socket::packet::{refresh_attachment, way};
use crate::transport::socket::udp::bound::send_failure;

impl Socket {
    /// Keeps a packet until there is a route, or until it has waited too long.
    pub(in crate::transport::socket) fn hold(&self, held: HeldPacket) {
        if self.table.load().is_claimed(held.destination) {
            self.wanted.add(held.destination);
        }
        if !lock(&self.hold).push(held) {
            self.counters.dropped(DropReason::HoldFull, 1);
        }
    }

    /// Sends those that have a route now.
    pub(in crate::transport::socket) fn retry_held(&self, table: &ForwardingTable) {
        // The packets of this node get the hop limit that goes with the route; the others keep
        // theirs.
        let route = |held: &HeldPacket| match held.ingress {
            Some(_) => {
                let header = Header::decode(&held.packet).ok()?;
                let flow = Flow { source: header.source, destination: header.destination };
                table.next_hop(flow, held.ingress).map(|next_hop| (next_hop, None))
            }
            None => {
                let header = Header::decode(&held.packet).ok()?;
                way(table, &header, &held.packet[header.wire_len()..])
                    .map(|(next_hop, hops)| (next_hop, Some(hops)))
            }
        };
        let routable = lock(&self.hold).take_routable(route);
        for (mut held, (next_hop, hop_limit)) in routable {
            if let Some(hop_limit) = hop_limit {
                held.packet[1] = hop_limit.saturating_add(1);
                refresh_attachment(&mut held.packet, table);
            }
            self.send_held(held, next_hop);
        }
    }

    fn send_held(&self, mut held: HeldPacket, next_hop: NextHop) {
        Header::rewrite(&mut held.packet, next_hop.cookie);
        let transit = held.ingress.is_some();
        match self.transmit(&held.packet, None, None, next_hop) {
            Ok(()) if transit => self.counters.forwarded(1, held.packet.len() as u64),
            Ok(()) => {}
            Err(unsent) => self.counters.dropped(send_failure(&unsent.error), 1),
        }
    }
}
