//! What comes in: dropped for its reason, delivered, sent on.

use std::num::NonZeroU64;

use super::*;
use crate::switch::{Backlog, HoldQueue};

#[test]
fn a_buffer_of_quic_packets_reaches_quinn_untouched() {
    let wire = Wire::relay();
    let packets = [quic(1_200, 1), quic(1_200, 2), quic(700, 3)];
    wire.udp.arrive(left(), &packets);
    let [batch] = &wire.batches()[..] else { panic!("one buffer") };
    assert_eq!(batch.contents, packets.concat());
    let RecvMeta { addr, len, stride, ecn, dst_ip, .. } = batch.meta;
    assert_eq!((addr, len, stride), (mapped("10.0.0.2:7400"), 3_100, 1_200));
    assert_eq!((ecn, dst_ip), (Some(EcnCodepoint::Ce), Some(addr_ip("10.0.0.1"))));
    assert_eq!(wire.status(), Wire::relay().status());
}

#[test]
fn a_buffer_for_this_node_is_stripped_in_place() {
    let wire = Wire::relay();
    let head = header(FROM_RIGHT, FAR, ME);
    let payloads = [quic(1_000, 1), quic(1_000, 2), quic(1, 3)];
    wire.udp.arrive(right(), &payloads.each_ref().map(|payload| switched(head, payload)));
    let [batch] = &wire.batches()[..] else { panic!("one buffer") };
    assert_eq!(batch.contents, payloads.concat());
    let RecvMeta { addr, len, stride, ecn, dst_ip, .. } = batch.meta;
    assert_eq!((addr, len, stride), (overlay::socket_addr(FAR), 2_001, 1_000));
    // The answer goes out wherever its next hop is.
    assert_eq!((ecn, dst_ip), (Some(EcnCodepoint::Ce), None));
    assert_eq!(wire.status().delivered, 3);
    assert_eq!(wire.udp.sent(), []);
    wire.assert_drops(&[]);
}

#[test]
fn a_buffer_for_another_node_goes_on_as_one_send() {
    let wire = Wire::relay();
    let packet = |hop_limit, cookie, payload: &[u8]| {
        switched(Header { hop_limit, ..header(cookie, LEFT, FAR) }, payload)
    };
    let payloads = [quic(1_000, 1), quic(1_000, 2), quic(300, 3)];
    wire.udp.arrive(left(), &payloads.each_ref().map(|payload| packet(9, FROM_LEFT, payload)));
    assert_eq!(wire.packets(), []);
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!(sent.packets(), payloads.each_ref().map(|payload| packet(8, TO_RIGHT, payload)));
    assert_eq!(
        (sent.to, sent.segment_size, sent.ecn),
        (right(), Some(1_026), Some(EcnCodepoint::Ce))
    );
    let status = wire.status();
    assert_eq!(
        (status.forwarded, status.forwarded_bytes, status.delivered),
        (3, 2_300 + 3 * 26, 0)
    );
    wire.assert_drops(&[]);
}

#[test]
fn a_packet_that_may_not_pass_is_dropped_for_its_reason() {
    use DropReason::{BadHeader, ForgedSource, HopLimit, UnknownCookie};
    let spent = |hop_limit| Header { hop_limit, ..header(FROM_LEFT, LEFT, FAR) };
    let cases = [
        ("a guessed cookie", switched(header(Cookie([1; 8]), LEFT, ME), b"@"), UnknownCookie),
        ("this node's cookie for others", switched(header(TO_LEFT, LEFT, ME), b"@"), UnknownCookie),
        ("no hops left", switched(spent(0), b"@"), HopLimit),
        ("the last hop", switched(spent(1), b"@"), HopLimit),
        ("this node's own address", switched(header(FROM_RIGHT, ME, LEFT), b"@"), ForgedSource),
        (
            "this node's own address, to itself",
            switched(header(FROM_RIGHT, ME, ME), b"@"),
            ForgedSource,
        ),
        (
            "another's address from an edge",
            switched(header(FROM_LEFT, FAR, ME), b"@"),
            ForgedSource,
        ),
        ("a header alone", switched(header(FROM_LEFT, LEFT, ME), b""), BadHeader),
        ("half a header", vec![Header::TYPE; 13], BadHeader),
        ("one byte", vec![Header::TYPE], BadHeader),
        ("type 0x00", vec![0x00; 100], BadHeader),
        ("type 0x05", vec![0x05; 100], BadHeader),
        ("type 0x3f", vec![0x3f; 100], BadHeader),
    ];
    for (what, packet, reason) in cases {
        let wire = Wire::relay();
        wire.udp.arrive(left(), std::slice::from_ref(&packet));
        assert_eq!(wire.packets(), [], "{what}");
        assert_eq!(wire.udp.sent(), [], "{what}");
        assert_eq!(wire.dropped(reason), 1, "{what}");
        wire.assert_drops(&[(reason, 1)]);
        assert!(!wire.socket.holds(), "{what}");

        let wire = Wire::relay();
        wire.udp.arrive(left(), &[packet.clone(), packet.clone(), packet]);
        assert_eq!(wire.packets(), [], "{what}");
        wire.assert_drops(&[(reason, 3)]);
    }
}

#[test]
fn a_packet_of_this_node_is_delivered_on_its_last_hop_or_beyond() {
    for hop_limit in [0, 1, 255] {
        let wire = Wire::relay();
        let head = Header { hop_limit, ..header(FROM_LEFT, LEFT, ME) };
        wire.udp.arrive(left(), &[switched(head, b"@")]);
        assert_eq!(wire.packets(), [got(LEFT, b"@")]);
    }
}

#[test]
fn an_overlay_address_on_the_wire_is_forged_whatever_it_carries() {
    let wire = Wire::relay();
    wire.udp.arrive(overlay::socket_addr(FAR), &[quic(100, 1), quic(100, 2)]);
    wire.udp
        .arrive(overlay::socket_addr(LEFT), &[switched(header(FROM_LEFT, LEFT, ME), &quic(50, 1))]);
    assert_eq!(wire.packets(), []);
    wire.assert_drops(&[(DropReason::ForgedSource, 3)]);
}

#[test]
fn garbage_inside_is_quinns_to_drop() {
    let wire = Wire::relay();
    let garbage = [0x01; 40];
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, ME), &garbage)]);
    // It is not looked into again: no packet is in a packet.
    assert_eq!(wire.packets(), [got(LEFT, &garbage)]);
    assert_eq!(wire.status().delivered, 1);
    wire.assert_drops(&[]);
}

#[test]
fn an_edge_carries_nobody_elses_packets() {
    let wire = Wire::relay();
    let mut edge = node(false, &[(LEFT, LEFT, OWN_HOPS)]);
    edge.link(hop(LEFT));
    wire.socket.publish(edge);
    for destination in [LEFT, NOWHERE] {
        wire.udp.arrive(right(), &[switched(header(FROM_RIGHT, FAR, destination), b"@")]);
    }
    assert_eq!(wire.packets(), []);
    wire.assert_drops(&[(DropReason::TransitDenied, 2)]);
    assert!(!wire.socket.holds());
}

#[test]
fn a_packet_without_a_route_is_given_up_at_the_second_tick() {
    let wire = Wire::relay();
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, NOWHERE), b"@")]);
    assert_eq!(wire.packets(), []);
    wire.assert_drops(&[]);
    assert!(wire.socket.holds());
    wire.socket.tick();
    assert!(wire.socket.holds());
    wire.assert_drops(&[]);
    wire.socket.tick();
    assert!(!wire.socket.holds());
    wire.assert_drops(&[(DropReason::NoRoute, 1)]);
    assert_eq!(wire.udp.sent(), []);
}

#[test]
fn a_held_packet_goes_on_when_the_route_comes() {
    let wire = Wire::relay();
    let head = header(FROM_LEFT, LEFT, NOWHERE);
    wire.udp.arrive(left(), &[switched(head, b"@one"), switched(head, b"@two")]);
    assert_eq!(wire.packets(), []);
    wire.socket.publish(relay_with(&[(NOWHERE, RIGHT, OWN_HOPS)]));
    let sent: Vec<_> = wire.udp.sent().into_iter().map(|sent| (sent.to, sent.contents)).collect();
    let onward = Header { hop_limit: 8, cookie: TO_RIGHT, ..head };
    assert_eq!(sent, [(right(), switched(onward, b"@one")), (right(), switched(onward, b"@two"))]);
    assert_eq!(wire.status().forwarded, 2);
    assert!(!wire.socket.holds());
    wire.assert_drops(&[]);
}

#[test]
fn a_held_packet_never_goes_back_to_where_it_came_from() {
    let wire = Wire::relay();
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, NOWHERE), b"@")]);
    assert_eq!(wire.packets(), []);
    wire.socket.publish(relay_with(&[(NOWHERE, LEFT, OWN_HOPS)]));
    assert_eq!(wire.udp.sent(), []);
    wire.socket.tick();
    wire.socket.tick();
    wire.assert_drops(&[(DropReason::NoRoute, 1)]);
}

#[test]
fn tables_that_bring_no_route_do_not_keep_a_packet_for_longer() {
    let wire = Wire::relay();
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, NOWHERE), b"@")]);
    assert_eq!(wire.packets(), []);
    for nth in 0..2 {
        let mut table = relay();
        table.admit(Cookie([nth; 8]), Ingress { neighbour: LEFT, transit: false });
        wire.socket.publish(table);
        wire.socket.tick();
    }
    wire.assert_drops(&[(DropReason::NoRoute, 1)]);
}

#[test]
fn held_packets_are_bounded_and_the_rest_counted() {
    let wire = Wire::relay();
    for _ in 0..30 {
        let head = header(FROM_LEFT, LEFT, NOWHERE);
        wire.udp.arrive(left(), &vec![switched(head, b"@"); 10]);
    }
    assert_eq!(wire.packets(), []);
    let held = HoldQueue::MAX_PACKETS as u64;
    wire.assert_drops(&[(DropReason::HoldFull, 300 - held)]);
    wire.socket.tick();
    wire.socket.tick();
    wire.assert_drops(&[(DropReason::NoRoute, held), (DropReason::HoldFull, 300 - held)]);
}

#[test]
fn what_the_socket_has_no_room_for_goes_on_in_order_when_it_has() {
    let wire = Wire::relay();
    let head = header(FROM_LEFT, LEFT, FAR);
    let packet = |nth: u8| switched(head, &[0x40, nth]);
    wire.udp.set_room(0);
    wire.udp.arrive(left(), &[packet(0), packet(1)]);
    wire.udp.arrive(left(), &[packet(2)]);
    assert_eq!(wire.packets(), []);
    assert_eq!(wire.status().forwarded, 0);
    // What comes while others wait, waits behind them.
    wire.udp.set_room(1);
    wire.udp.arrive(left(), &[packet(3), packet(4)]);
    assert_eq!(wire.packets(), []);
    wire.udp.set_room(usize::MAX);
    assert_eq!(wire.packets(), []);
    let nths: Vec<_> =
        wire.udp.sent().iter().flat_map(|sent| sent.packets()).map(|p| p[27]).collect();
    assert_eq!(nths, [0, 1, 2, 3, 4]);
    assert_eq!(wire.status().forwarded, 5);
    wire.assert_drops(&[]);
}

#[test]
fn the_receiving_task_is_woken_when_the_socket_has_room_again() {
    let wire = Wire::relay();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    wire.udp.set_room(0);
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, FAR), b"@")]);
    assert!(wire.poll(&mut cx).is_ready());
    assert!(wire.poll(&mut cx).is_pending());
    let asked = wire.udp.refusals();
    assert!(asked < 10, "asked {asked} times");
    wire.udp.set_room(1);
    assert!(woken.is_set());
    assert!(wire.poll(&mut cx).is_pending());
    assert_eq!(wire.udp.sent().len(), 1);
}

#[test]
fn the_backlog_is_bounded_and_the_rest_counted() {
    let wire = Wire::relay();
    let head = header(FROM_LEFT, LEFT, FAR);
    wire.udp.set_room(0);
    for _ in 0..60 {
        wire.udp.arrive(left(), &vec![switched(head, b"@"); 10]);
    }
    assert_eq!(wire.packets(), []);
    // One source alone gets half of it.
    let waiting = Backlog::<()>::MAX_PACKETS as u64 / 2;
    wire.assert_drops(&[(DropReason::QueueFull, 600 - waiting)]);
    wire.udp.set_room(usize::MAX);
    assert_eq!(wire.packets(), []);
    assert_eq!(wire.status().forwarded, waiting);
}

#[test]
fn a_neighbour_has_no_more_sent_on_than_it_may() {
    let wire = Wire::relay();
    let packet = switched(header(FROM_LEFT, LEFT, FAR), &[b'@'; 1_000]);
    wire.socket.limit_transit(NonZeroU64::new(4 * packet.len() as u64).unwrap());
    for _ in 0..10 {
        wire.udp.arrive(left(), std::slice::from_ref(&packet));
        assert_eq!(wire.packets(), []);
    }
    assert_eq!(wire.status().forwarded, 4);
    wire.assert_drops(&[(DropReason::RateLimited, 6)]);
    // Half a second later there is as much again as half a second allows.
    wire.socket.tick();
    for _ in 0..10 {
        wire.udp.arrive(left(), std::slice::from_ref(&packet));
        assert_eq!(wire.packets(), []);
    }
    assert_eq!(wire.status().forwarded, 6);
}

#[test]
fn a_batch_that_was_sent_in_part_is_not_sent_twice() {
    let wire = Wire::relay();
    wire.udp.set_segments(2);
    let head = header(FROM_LEFT, LEFT, FAR);
    let packets: Vec<_> = (0..6).map(|nth| switched(head, &[0x40, nth])).collect();
    wire.udp.set_room(2);
    wire.udp.arrive(left(), &packets);
    assert_eq!(wire.packets(), []);
    assert_eq!(wire.status().forwarded, 4);
    wire.udp.set_room(usize::MAX);
    assert_eq!(wire.packets(), []);
    let nths: Vec<_> =
        wire.udp.sent().iter().flat_map(|sent| sent.packets()).map(|p| p[27]).collect();
    assert_eq!(nths, [0, 1, 2, 3, 4, 5]);
    assert_eq!(wire.status().forwarded, 6);
}

#[test]
fn a_send_that_the_system_refuses_is_counted_and_nothing_waits_for_it() {
    let wire = Wire::relay();
    let head = header(FROM_LEFT, LEFT, FAR);
    wire.udp.break_down();
    wire.udp.arrive(left(), &[switched(head, b"@one"), switched(head, b"@two")]);
    wire.udp.arrive(left(), &[switched(header(FROM_LEFT, LEFT, ME), b"@")]);
    assert_eq!(wire.packets(), [got(LEFT, b"@")]);
    wire.assert_drops(&[(DropReason::SendFailed, 2)]);
}

#[test]
fn runs_for_quinn_are_bounded_and_each_packet_of_the_rest_is_counted() {
    let mut wire = Wire::relay();
    wire.buffers = 128;
    // Two packets from each in turn: no two runs can be one.
    let two = |source| {
        let head = header(FROM_RIGHT, source, ME);
        [switched(head, b"@x"), switched(head, b"@y")].concat()
    };
    let mut alternating = Vec::new();
    for _ in 0..8 {
        alternating.extend([two(FAR), two(RIGHT)]);
    }
    let packets: Vec<_> = alternating.concat().chunks(28).map(<[u8]>::to_vec).collect();
    for _ in 0..120 {
        wire.udp.arrive(right(), &packets);
    }
    let handed = wire.packets().len() as u64;
    let status = wire.status();
    assert_eq!(status.delivered, handed, "delivered is what quinn got");
    assert!(wire.dropped(DropReason::QueueFull) > 0);
    assert_eq!(handed + wire.dropped(DropReason::QueueFull), 120 * 32);
}

fn addr_ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}
