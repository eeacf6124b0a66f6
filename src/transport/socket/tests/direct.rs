//! Direct paths: out by the path, in by its cookie; and the probes that keep them.

use super::*;
use crate::transport::socket::probes::ReceivedProbe;

/// What `FAR` puts into packets that it sends straight to this node.
const FROM_FAR: Cookie = Cookie([0xcc; 8]);
/// What this node puts into those for `FAR`.
const TO_FAR: Cookie = Cookie([0xc1; 8]);

fn far() -> SocketAddr {
    addr("192.0.2.9:4433")
}

/// A relay with a direct path to `FAR`.
fn direct() -> Wire {
    let wire = Wire::relay();
    let mut table = relay();
    table.direct(NextHop {
        neighbour: FAR,
        to: super::super::mapped(far()),
        from: None,
        local_port: None,
        cookie: TO_FAR,
    });
    table.admit_direct(FROM_FAR, FAR);
    wire.socket.publish(table);
    wire
}

fn probe(round: u64) -> Vec<u8> {
    let mut probe = vec![0x04; 64];
    probe[2..10].copy_from_slice(&round.to_be_bytes());
    probe
}

#[test]
fn packets_to_a_peer_with_a_direct_path_go_straight_there_and_are_counted() {
    let wire = direct();
    let payload = [quic(1_000, 1), quic(300, 2)];
    wire.send(overlay::socket_addr(FAR), &payload.concat(), Some(1_000)).unwrap();
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    let head = Header {
        hop_limit: 1,
        cookie: TO_FAR,
        destination: FAR,
        source: ME,
        attachment: Attachment::None,
    };
    assert_eq!(
        (sent.to, sent.packets()),
        (far(), payload.each_ref().map(|p| switched(head, p)).to_vec())
    );
    wire.send(overlay::socket_addr(RIGHT), &quic(100, 1), None).unwrap();
    let status = wire.status();
    assert_eq!((status.direct, status.direct_bytes), (2, 1_300 + 2 * 26));
    assert_eq!((status.relayed, status.relayed_bytes), (1, 126));
}

#[test]
fn transit_never_takes_a_direct_path() {
    let wire = direct();
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, FAR), &quic(500, 1))]);
    assert_eq!(wire.packets(), []);
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!(sent.to, right());
}

#[test]
fn a_path_brings_its_peers_packets_and_nothing_else() {
    use DropReason::{ForgedSource, TransitDenied, UnknownCookie};
    let wire = direct();
    // From wherever: a NAT may have given the peer another port.
    wire.udp.arrive(addr("198.51.100.7:9"), &[switched(header(FROM_FAR, FAR, ME), &quic(700, 1))]);
    let [got] = &wire.packets()[..] else { panic!("one packet") };
    assert_eq!((got.from, got.packet.len()), (overlay::socket_addr(FAR), 700));
    let cases = [
        ("a guessed cookie", header(Cookie([9; 8]), FAR, ME), UnknownCookie),
        ("the other direction's cookie", header(TO_FAR, FAR, ME), UnknownCookie),
        ("another's packet", header(FROM_FAR, LEFT, ME), ForgedSource),
        ("transit", header(FROM_FAR, FAR, LEFT), TransitDenied),
    ];
    for (what, header, reason) in cases {
        let wire = direct();
        wire.udp.arrive(far(), &[switched(header, b"@forged")]);
        assert_eq!(wire.packets(), [], "{what}");
        assert_eq!(wire.udp.sent(), [], "{what}");
        wire.assert_drops(&[(reason, 1)]);
    }
}

#[test]
fn when_a_path_opens_or_dies_the_last_packet_is_sent_again() {
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), &quic(90, 1), None).unwrap();
    let mut table = relay();
    table.direct(NextHop {
        neighbour: FAR,
        to: super::super::mapped(far()),
        from: None,
        local_port: None,
        cookie: TO_FAR,
    });
    wire.socket.publish(table);
    wire.socket.publish(relay());
    let to: Vec<_> = wire.udp.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [right(), far(), right()]);
}

#[test]
fn a_handshake_is_not_sent_again_by_a_direct_path() {
    // The Initial's long header, then a short one.
    let initial = |len| [&[0xc0][..], &vec![1; len]].concat();
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), &initial(90), None).unwrap();
    let mut table = relay();
    table.direct(NextHop {
        neighbour: FAR,
        to: super::super::mapped(far()),
        from: None,
        local_port: None,
        cookie: TO_FAR,
    });
    wire.socket.publish(table.clone());
    wire.socket.nudge();
    let to: Vec<_> = wire.udp.sent().iter().map(|sent| sent.to).collect();
    assert!(to.iter().all(|to| *to == right()), "{to:?}");

    // One that waited for a route, and finds a direct path and one through the mesh.
    let wire = Wire::over(FakeUdp::new("10.0.0.1:7400"));
    wire.send(overlay::socket_addr(FAR), &initial(90), None).unwrap();
    wire.send(overlay::socket_addr(FAR), &quic(90, 1), None).unwrap();
    wire.socket.publish(table);
    let to: Vec<_> = wire.udp.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [right(), far()]);
}

#[test]
fn probes_of_known_rounds_are_handed_on_with_their_addresses() {
    let wire = Wire::relay();
    let mut received = wire.socket.probes().receiver().unwrap();
    assert!(wire.socket.probes().receiver().is_none());
    wire.socket.probes().set_rounds([7, 8].into());
    wire.udp.arrive(far(), &[probe(7), probe(7), probe(8), probe(9)]);
    assert_eq!(wire.packets(), []);
    let (from, to) = (super::super::mapped(far()), Some(addr("10.0.0.1:1").ip()));
    for round in [7, 7, 8] {
        let (local_port, bytes) = (None, probe(round).try_into().unwrap());
        assert_eq!(received.try_recv().unwrap(), ReceivedProbe { from, to, local_port, bytes });
    }
    received.try_recv().unwrap_err();
    wire.assert_drops(&[(DropReason::StrayProbe, 1)]);
}

#[test]
fn what_is_no_probe_and_what_there_is_no_room_for_is_dropped() {
    let wire = Wire::relay();
    wire.socket.probes().set_rounds([7].into());
    for bad in [vec![0x04], vec![0x04; 63], vec![0x04; 65], [probe(7), vec![0]].concat()] {
        wire.udp.arrive(far(), &[bad]);
        assert_eq!(wire.packets(), []);
    }
    assert_eq!(wire.dropped(DropReason::StrayProbe), 4);
    for _ in 0..300 {
        wire.udp.arrive(far(), &[probe(7)]);
    }
    assert_eq!(wire.packets(), []);
    assert_eq!(wire.dropped(DropReason::StrayProbe), 4 + 300 - 256);
}

#[test]
fn probes_and_packets_share_buffers() {
    let wire = direct();
    let mut received = wire.socket.probes().receiver().unwrap();
    wire.socket.probes().set_rounds([7].into());
    let packet = switched(header(FROM_FAR, FAR, ME), &quic(38, 1));
    wire.udp.arrive(far(), &[packet.clone(), probe(7), quic(64, 2), probe(7), packet]);
    let got: Vec<_> = wire.packets().iter().map(|got| got.packet.len()).collect();
    assert_eq!(got, [38, 64, 38]);
    assert!(
        received.try_recv().is_ok() && received.try_recv().is_ok() && received.try_recv().is_err()
    );
    wire.assert_drops(&[]);
}

#[test]
fn a_probe_goes_out_as_it_is_from_the_address_that_is_asked_for() {
    let wire = Wire::relay();
    wire.socket.send_probe(far(), Some(addr("10.0.0.1:1").ip()), None, &probe(7));
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!(
        (sent.to, sent.src_ip, &sent.contents),
        (far(), Some(addr("10.0.0.1:1").ip()), &probe(7))
    );
}
