//! What goes out: headers on, the right socket, the right size.

use super::*;

#[test]
fn a_batch_to_a_peer_gets_a_header_a_packet_and_stays_one_send() {
    let wire = Wire::relay();
    let payloads = [quic(1_000, 1), quic(1_000, 2), quic(400, 3)];
    wire.send(overlay::socket_addr(FAR), &payloads.concat(), Some(1_000)).unwrap();
    let head = Header {
        hop_limit: OWN_HOPS,
        cookie: TO_RIGHT,
        destination: FAR,
        source: ME,
        attachment: Attachment::None,
    };
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!(sent.packets(), payloads.each_ref().map(|payload| switched(head, payload)));
    assert_eq!(
        (sent.to, sent.segment_size, sent.ecn),
        (right(), Some(1_026), Some(EcnCodepoint::Ect0))
    );
    // Its own packets are not forwarded.
    let status = wire.status();
    assert_eq!((status.forwarded, status.relayed, status.relayed_bytes), (0, 3, 2_400 + 3 * 26));
}

#[test]
fn a_single_packet_is_no_batch() {
    let wire = Wire::relay();
    wire.send(overlay::socket_addr(LEFT), &quic(100, 1), None).unwrap();
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!((sent.to, sent.segment_size, sent.contents.len()), (left(), None, 126));
}

#[test]
fn batches_beyond_what_one_datagram_holds_are_split() {
    let wire = Wire::relay();
    // 50 packets of 1,400 bytes are less than 64 KiB for quinn, and more with their headers.
    let payloads: Vec<_> = (0..47).map(|nth| quic(1_390, nth)).collect();
    wire.send(overlay::socket_addr(FAR), &payloads.concat(), Some(1_390)).unwrap();
    let sent = wire.udp.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| sent.contents.len() <= 65_507));
    let carried: Vec<_> =
        sent.iter().flat_map(|sent| sent.packets()).map(|p| p[26..].to_vec()).collect();
    assert_eq!(carried, payloads);
    // A batch that leaves one packet over sends that one without a segment size.
    assert_eq!(sent[1].segment_size, None);
}

#[test]
fn batches_follow_what_the_system_takes_now() {
    let wire = Wire::relay();
    assert_eq!(wire.socket.max_transmit_segments(), 64);
    // The system refused a batch: from now on it takes single packets.
    wire.udp.set_segments(1);
    assert_eq!(wire.socket.max_transmit_segments(), 1);
    let head = header(FROM_LEFT, LEFT, FAR);
    wire.udp.arrive(left(), &vec![switched(head, b"@"); 3]);
    assert_eq!(wire.packets(), []);
    assert_eq!(wire.udp.sent().len(), 3);
}

#[test]
fn what_the_socket_has_no_room_for_stays_with_quinn() {
    let wire = Wire::relay();
    wire.udp.set_room(0);
    let error = wire.send(overlay::socket_addr(FAR), b"@", None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    wire.assert_drops(&[]);
}

#[test]
fn a_send_that_the_system_refuses_does_not_end_the_connection() {
    let wire = Wire::relay();
    wire.udp.break_down();
    // quinn takes any other error for the end of the connection.
    wire.send(overlay::socket_addr(FAR), b"@", None).unwrap();
    wire.send(mapped("10.0.0.9:1"), b"@", None).unwrap();
    wire.assert_drops(&[(DropReason::SendFailed, 2)]);
}

#[test]
fn packets_to_itself_come_back_and_wake_the_reader() {
    let wire = Wire::relay();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(wire.poll(&mut Context::from_waker(&waker)).is_pending());
    let payloads = [quic(1_000, 1), quic(1_000, 2), quic(400, 3)];
    wire.send(overlay::socket_addr(ME), &payloads.concat(), Some(1_000)).unwrap();
    assert!(woken.is_set());
    assert_eq!(wire.packets(), payloads.each_ref().map(|payload| got(ME, payload)));
    assert_eq!(wire.udp.sent(), []);
}

#[test]
fn a_batch_to_itself_that_is_longer_than_a_buffer_comes_back_in_pieces() {
    let mut wire = Wire::relay();
    wire.buffer_len = 2_500;
    let payloads: Vec<_> = (0..9).map(|nth| quic(1_000, nth)).collect();
    wire.send(overlay::socket_addr(ME), &payloads.concat(), Some(1_000)).unwrap();
    let expected: Vec<_> = payloads.iter().map(|payload| got(ME, payload)).collect();
    assert_eq!(wire.packets(), expected);
}

#[test]
fn a_packet_that_begins_here_waits_for_its_route() {
    let wire = Wire::relay();
    wire.send(overlay::socket_addr(NOWHERE), &[b"@one", &b"@2"[..]].concat(), Some(4)).unwrap();
    assert!(wire.socket.holds());
    wire.socket.publish(relay_with(&[(NOWHERE, LEFT, OWN_HOPS)]));
    let head = Header {
        hop_limit: OWN_HOPS,
        cookie: TO_LEFT,
        destination: NOWHERE,
        source: ME,
        attachment: Attachment::None,
    };
    let sent: Vec<_> = wire.udp.sent().into_iter().map(|sent| (sent.to, sent.contents)).collect();
    assert_eq!(sent, [(left(), switched(head, b"@one")), (left(), switched(head, b"@2"))]);
    assert_eq!(wire.status().forwarded, 0);

    wire.send(overlay::socket_addr(NodeAddr([9; 8])), b"@", None).unwrap();
    wire.socket.tick();
    wire.socket.tick();
    wire.assert_drops(&[(DropReason::NoRoute, 1)]);
}

#[test]
fn the_last_packet_to_a_peer_is_sent_again_when_the_table_changes() {
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), &[b"@one", &b"@two"[..]].concat(), Some(4)).unwrap();
    wire.udp.sent();
    wire.socket.publish(relay());
    assert_eq!(wire.udp.sent(), [], "the same table is no change");

    wire.socket.publish(relay_with(&[(FAR, LEFT, 20)]));
    let head = Header {
        hop_limit: 20,
        cookie: TO_LEFT,
        destination: FAR,
        source: ME,
        attachment: Attachment::None,
    };
    let sent: Vec<_> = wire.udp.sent().into_iter().map(|sent| (sent.to, sent.contents)).collect();
    assert_eq!(sent, [(left(), switched(head, b"@two"))]);

    wire.socket.untrack(FAR);
    wire.socket.publish(relay());
    assert_eq!(wire.udp.sent(), []);
}

#[test]
fn a_packet_that_was_not_answered_is_sent_again_with_each_table() {
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), b"@one", None).unwrap();
    wire.udp.sent();
    // Another route changes, not the one to the peer.
    wire.socket.publish(relay_with(&[(NOWHERE, LEFT, 20)]));
    assert_eq!(wire.udp.sent().len(), 1);
    wire.socket.peers.load()[&FAR].answered(None);
    wire.socket.publish(relay());
    assert_eq!(wire.udp.sent(), [], "it has arrived, and the way is the same");
}

#[test]
fn a_packet_that_was_answered_is_sent_again_by_another_way() {
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), b"@one", None).unwrap();
    wire.udp.sent();
    wire.socket.peers.load()[&FAR].answered(None);
    wire.socket.publish(relay_with(&[(FAR, LEFT, 20)]));
    assert_eq!(wire.udp.sent().len(), 1, "the way back may be another one");
}

#[test]
fn nothing_is_sent_from_an_address_that_is_gone() {
    let wire = Wire::relay();
    let from = |ip: &str| {
        let transmit = Transmit {
            destination: mapped("10.0.0.9:1234"),
            ecn: None,
            contents: b"@",
            segment_size: None,
            src_ip: Some(ip.parse().unwrap()),
        };
        wire.socket.try_send(&transmit).unwrap();
        wire.udp.sent()[0].src_ip
    };
    wire.socket.set_gone(vec!["10.0.0.1".parse().unwrap()]);
    assert_eq!(from("::ffff:10.0.0.1"), None, "the system chooses another");
    assert_eq!(from("::ffff:10.0.0.2"), Some("10.0.0.2".parse().unwrap()));
    wire.socket.set_gone(Vec::new());
    assert_eq!(from("::ffff:10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
}

#[test]
fn a_nudge_sends_the_last_packet_to_a_silent_peer_again() {
    let wire = Wire::relay();
    wire.socket.track(FAR);
    wire.send(overlay::socket_addr(FAR), b"@one@two", Some(4)).unwrap();
    wire.udp.sent();
    wire.socket.nudge();
    let sent = wire.udp.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].to, &sent[0].contents[26..]), (right(), &b"@two"[..]));
}

#[test]
fn an_ipv4_socket_gets_plain_addresses_and_quinn_mapped_ones() {
    let wire = Wire::relay();
    let transmit = Transmit {
        destination: mapped("10.0.0.9:1234"),
        ecn: None,
        contents: b"@",
        segment_size: None,
        src_ip: Some("::ffff:10.0.0.1".parse().unwrap()),
    };
    wire.socket.try_send(&transmit).unwrap();
    let [sent] = &wire.udp.sent()[..] else { panic!("one send") };
    assert_eq!((sent.to, sent.src_ip), (addr("10.0.0.9:1234"), Some("10.0.0.1".parse().unwrap())));
    wire.udp.arrive(addr("10.0.0.9:1234"), &[quic(10, 1)]);
    assert_eq!(wire.packets()[0].from, mapped("10.0.0.9:1234"));
    assert_eq!(wire.socket.local_addr().unwrap(), addr("[::]:7400"));
}

#[test]
fn an_ipv6_socket_keeps_mapped_addresses() {
    let wire = Wire::over(FakeUdp::new("[::]:7400"));
    wire.send(mapped("10.0.0.9:1234"), b"@", None).unwrap();
    assert_eq!(wire.udp.sent()[0].to, mapped("10.0.0.9:1234"));
}

#[test]
fn answers_leave_from_the_socket_that_the_question_came_in_at() {
    let two = Two::loopback();
    two.v4.arrive(addr("127.0.0.1:5000"), &[quic(10, 1)]);
    two.v6.arrive(addr("[::1]:5000"), &[quic(10, 2)]);
    let batches = two.wire.batches();
    let froms: Vec<_> = batches.iter().map(|batch| batch.meta.addr).collect();
    assert_eq!(froms, [mapped("127.0.0.1:5000"), addr("[::1]:5000")]);
    for batch in batches {
        let transmit = Transmit {
            destination: batch.meta.addr,
            ecn: None,
            contents: b"@",
            segment_size: None,
            src_ip: batch.meta.dst_ip,
        };
        two.wire.socket.try_send(&transmit).unwrap();
        two.wire.send(batch.meta.addr, b"@", None).unwrap();
    }
    let tos = |udp: &FakeUdp| udp.sent().into_iter().map(|sent| sent.to).collect::<Vec<_>>();
    assert_eq!(tos(&two.v4), [addr("127.0.0.1:5000"); 2]);
    assert_eq!(tos(&two.v6), [addr("[::1]:5000"); 2]);
}

#[test]
fn sockets_take_turns_so_that_a_flood_at_one_does_not_silence_the_other() {
    let mut two = Two::loopback();
    two.wire.buffers = 1;
    for nth in 0..10 {
        two.v4.arrive(addr("127.0.0.1:5000"), &[quic(10, nth)]);
    }
    two.v6.arrive(addr("[::1]:5000"), &[quic(10, 99)]);
    let got = two.wire.packets();
    assert_eq!(got.len(), 11);
    assert!(got[..2].iter().any(|got| got.from == addr("[::1]:5000")));
}

#[test]
fn a_full_socket_beside_one_with_room_is_waited_for_without_spinning() {
    let two = Two::loopback();
    two.v6.set_room(0);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    // As quinn does it: it sends when the poller says that it may, and asks again if that was
    // wrong.
    let mut poller = two.wire.socket.clone().create_io_poller();
    let mut tries = 0;
    while poller.as_mut().poll_writable(&mut cx).is_ready() {
        tries += 1;
        assert!(tries < 10, "the poller says again and again that there is room");
        assert!(two.wire.send(addr("[::1]:5000"), b"@", None).is_err());
    }
    two.v6.set_room(1);
    assert!(woken.is_set());
    assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
    two.wire.send(addr("[::1]:5000"), b"@", None).unwrap();
}

#[test]
fn a_backlog_over_two_sockets_is_flushed_without_spinning() {
    let two = Two::loopback();
    let mut table = relay_with(&[(FAR, FAR, OWN_HOPS)]);
    for (neighbour, to) in [(FAR, "127.0.0.1:5000"), (RIGHT, "[::1]:5000")] {
        table.link(NextHop {
            neighbour,
            to: addr(to),
            from: None,
            local_port: None,
            cookie: TO_RIGHT,
        });
    }
    two.wire.socket.publish(table);
    two.v4.set_room(0);
    two.v6.set_room(0);
    for destination in [FAR, RIGHT] {
        two.v4.arrive(
            addr("127.0.0.1:6000"),
            &[switched(header(FROM_LEFT, LEFT, destination), b"@")],
        );
    }
    assert_eq!(two.wire.packets(), []);
    two.v4.set_room(usize::MAX);
    assert_eq!(two.wire.packets(), []);
    assert_eq!((two.v4.sent().len(), two.v6.sent().len()), (1, 0));
    two.v6.set_room(usize::MAX);
    assert_eq!(two.wire.packets(), []);
    assert_eq!((two.v4.sent().len(), two.v6.sent().len()), (0, 1));
    assert_eq!(two.wire.status().forwarded, 2);
}

/// A packet by one of the sockets, from an address to an address.
type Asked = (usize, &'static str, &'static str);
/// A destination, and the socket by which packets go there.
type Dialled = (&'static str, usize);

/// A node on several sockets, and what each of them has sent.
fn several(addrs: &[&str]) -> (Wire, Vec<Arc<FakeUdp>>) {
    let udp: Vec<_> = addrs.iter().map(|addr| FakeUdp::new(addr)).collect();
    let sockets = udp.iter().map(|udp| udp.clone() as Arc<dyn AsyncUdpSocket>).collect();
    let socket = Arc::new(Socket::new(sockets, ME, Arc::default()).unwrap());
    (Wire { socket, udp: udp[0].clone(), buffer_len: 64 * 1024, buffers: 4 }, udp)
}

/// Answers what comes in from `from` by one of the sockets, at its address `to`; the socket by
/// which that leaves.
fn answered_by(
    wire: &Wire,
    udp: &[Arc<FakeUdp>],
    socket: usize,
    from: &str,
    to: &str,
) -> Vec<usize> {
    udp[socket].arrive_at(addr(from), addr(to).ip(), &[quic(50, 1)]);
    for batch in wire.batches() {
        let transmit = Transmit {
            destination: batch.meta.addr,
            ecn: None,
            contents: b"@",
            segment_size: None,
            src_ip: batch.meta.dst_ip,
        };
        wire.socket.try_send(&transmit).unwrap();
    }
    sent_by(udp)
}

fn sent_by(udp: &[Arc<FakeUdp>]) -> Vec<usize> {
    udp.iter().enumerate().flat_map(|(nth, udp)| vec![nth; udp.sent().len()]).collect()
}

#[test]
fn an_answer_leaves_by_the_socket_that_was_asked() {
    let cases: [(&[&str], &[Asked]); 4] = [
        (
            &["0.0.0.0:5020", "[::]:5021"],
            &[
                (0, "127.0.0.1:9", "127.0.0.1:0"),
                (0, "192.0.2.9:9", "192.0.2.1:0"),
                (1, "[::1]:9", "[::1]:0"),
                (1, "[2001:db8::9]:9", "[2001:db8::1]:0"),
            ],
        ),
        (
            &["127.0.0.1:5022", "0.0.0.0:5023"],
            &[
                (0, "127.0.0.1:8", "127.0.0.1:0"),
                (1, "127.0.0.1:9", "127.0.0.1:0"),
                (1, "192.0.2.9:9", "192.0.2.1:0"),
            ],
        ),
        (
            &["[::]:1", "[::1]:2"],
            &[
                (0, "[::1]:8", "[::1]:0"),
                (1, "[::1]:9", "[::1]:0"),
                (0, "[::ffff:192.0.2.9]:9", "[::ffff:192.0.2.1]:0"),
            ],
        ),
        (
            &["127.0.0.1:1", "127.0.0.2:2", "[::]:3"],
            &[
                (0, "127.0.0.1:9", "127.0.0.1:0"),
                (1, "127.0.0.1:9", "127.0.0.2:0"),
                (2, "[::1]:9", "[::1]:0"),
            ],
        ),
    ];
    for (addrs, packets) in cases {
        let (wire, udp) = several(addrs);
        for _ in 0..2 {
            for (socket, from, to) in packets {
                let by = answered_by(&wire, &udp, *socket, from, to);
                assert_eq!(by, [*socket], "{addrs:?}: from {from} to {to}");
            }
        }
    }
}

#[test]
fn a_dial_leaves_by_a_socket_of_the_right_family() {
    let cases: [(&[&str], &[Dialled]); 3] = [
        (
            &["[::]:5021", "0.0.0.0:5020"],
            &[("192.0.2.9:9", 1), ("127.0.0.1:9", 1), ("[2001:db8::9]:9", 0), ("[::1]:9", 0)],
        ),
        (&["127.0.0.1:5022", "0.0.0.0:5023"], &[("127.0.0.1:9", 0), ("192.0.2.9:9", 1)]),
        (&["[::1]:1", "[::]:2"], &[("[::1]:9", 0), ("[2001:db8::9]:9", 1), ("127.0.0.1:9", 1)]),
    ];
    for (addrs, dials) in cases {
        let (wire, udp) = several(addrs);
        for (to, socket) in dials {
            wire.send(super::super::mapped(addr(to)), b"@", None).unwrap();
            assert_eq!(sent_by(&udp), [*socket], "{addrs:?}: to {to}");
        }
    }
}

/// A node on both loopback addresses.
struct Two {
    wire: Wire,
    v4: Arc<FakeUdp>,
    v6: Arc<FakeUdp>,
}

impl Two {
    fn loopback() -> Self {
        let (v4, v6) = (FakeUdp::new("127.0.0.1:7400"), FakeUdp::new("[::1]:7400"));
        let sockets: Vec<Arc<dyn AsyncUdpSocket>> = vec![v4.clone(), v6.clone()];
        let socket = Arc::new(Socket::new(sockets, ME, Arc::default()).unwrap());
        let wire = Wire { socket, udp: v4.clone(), buffer_len: 64 * 1024, buffers: 4 };
        Self { wire, v4, v6 }
    }
}
