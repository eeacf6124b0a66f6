//! Flows that stubs open: where replies go, and what quinn sees of it.

use super::*;
use crate::transport::overlay::{FlowKind, flow_addr, flow_kind};

/// An ephemeral somewhere, which nobody has a route to.
const STUB: NodeAddr = NodeAddr(*b"--stub--");

fn from_stub(at: NodeAddr) -> Header {
    Header { attachment: Attachment::Source(at), ..header(FROM_RIGHT, STUB, ME) }
}

/// The socket of a stub that is attached to `RIGHT`.
fn stub() -> Wire {
    let wire = Wire::over(FakeUdp::new("10.0.0.1:7400"));
    let mut table = node(false, &[]);
    table.set_default_route(vec![hop(RIGHT)], 64);
    wire.socket.publish(table);
    wire
}

#[test]
fn a_reply_to_a_stub_goes_to_the_node_it_said_it_is_attached_to() {
    let wire = Wire::relay();
    wire.udp.arrive(
        right(),
        &[switched(from_stub(FAR), &quic(100, 1)), switched(from_stub(FAR), &quic(90, 2))],
    );
    let packets = wire.packets();
    assert_eq!(
        packets.iter().map(|got| got.packet.clone()).collect::<Vec<_>>(),
        [quic(100, 1), quic(90, 2)]
    );
    let from = packets[0].from;
    assert_eq!((overlay::node_addr(from), flow_kind(from)), (Some(STUB), FlowKind::Attached(0)));
    assert_eq!(packets[1].from, from);
    wire.send(from, &[quic(50, 3), quic(50, 4)].concat(), Some(50)).unwrap();
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    let head = Header {
        hop_limit: OWN_HOPS,
        cookie: TO_RIGHT,
        destination: FAR,
        source: ME,
        attachment: Attachment::Stub(STUB),
    };
    assert_eq!(sent.packets(), [switched(head, &quic(50, 3)), switched(head, &quic(50, 4))]);
    assert_eq!((sent.to, sent.segment_size), (right(), Some(84)));
    wire.assert_drops(&[]);
}

#[test]
fn another_attachment_is_another_address_to_quinn() {
    let wire = Wire::relay();
    let from = |at| {
        wire.udp.arrive(right(), &[switched(from_stub(at), &quic(100, 1))]);
        flow_kind(wire.packets()[0].from)
    };
    assert_eq!(from(FAR), FlowKind::Attached(0));
    assert_eq!(from(RIGHT), FlowKind::Attached(1));
    assert_eq!(from(FAR), FlowKind::Attached(0));
    // Replies cannot go where no route leads.
    assert_eq!(from(NOWHERE), FlowKind::Routed);
    // And packets of the stub that say nothing are of no such flow.
    wire.udp.arrive(right(), &[switched(header(FROM_RIGHT, STUB, ME), &quic(100, 1))]);
    assert_eq!(wire.packets(), [got(STUB, &quic(100, 1))]);
}

#[test]
fn a_stub_says_where_it_is_attached_and_its_replies_are_of_the_same_flow() {
    let wire = stub();
    assert!(wire.socket.is_attached_stub());
    let own = flow_addr(FAR, FlowKind::Own);
    wire.send(own, &quic(100, 1), None).unwrap();
    let head = Header {
        hop_limit: 64,
        cookie: TO_RIGHT,
        destination: FAR,
        source: ME,
        attachment: Attachment::Source(RIGHT),
    };
    assert_eq!(wire.udp.sent()[0].packets(), [switched(head, &quic(100, 1))]);
    let reply = Header { attachment: Attachment::Stub(ME), ..header(FROM_RIGHT, FAR, RIGHT) };
    wire.udp.arrive(right(), &[switched(reply, &quic(100, 2))]);
    assert_eq!(wire.packets(), [Got { from: own, packet: quic(100, 2) }]);
}

#[test]
fn a_packet_that_waits_for_a_link_gets_the_attachment_of_that_link() {
    let wire = Wire::over(FakeUdp::new("10.0.0.1:7400"));
    wire.socket.publish(node(false, &[]));
    wire.send(flow_addr(FAR, FlowKind::Own), &quic(100, 1), None).unwrap();
    assert_eq!(wire.udp.sent(), []);
    let mut table = node(false, &[]);
    table.set_default_route(vec![hop(LEFT)], 64);
    wire.socket.publish(table);
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    let sent = Header::decode(&sent.packets()[0]).unwrap();
    assert_eq!((sent.attachment, sent.cookie), (Attachment::Source(LEFT), TO_LEFT));
}

#[test]
fn packets_of_different_flows_of_a_node_are_kept_apart() {
    let wire = Wire::relay();
    // The same first 26 bytes but for the type, and the same with another attachment.
    let plain = header(FROM_RIGHT, STUB, ME);
    let packets = [
        switched(from_stub(FAR), &quic(92, 1)),
        switched(from_stub(RIGHT), &quic(92, 2)),
        switched(plain, &quic(100, 3)),
    ];
    wire.udp.arrive(right(), &packets);
    let kinds: Vec<_> =
        wire.packets().iter().map(|got| (flow_kind(got.from), got.packet.len())).collect();
    assert_eq!(
        kinds,
        [(FlowKind::Attached(0), 92), (FlowKind::Attached(1), 92), (FlowKind::Routed, 100)]
    );
}
