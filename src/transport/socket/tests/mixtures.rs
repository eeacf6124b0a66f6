//! Buffers of packets that go different ways, against a reference that looks at one packet at a
//! time.

use std::collections::BTreeMap;

use super::*;
use crate::switch::Decision;

#[test]
fn a_mixed_buffer_is_sorted_and_each_source_keeps_its_order() {
    let wire = Wire::relay();
    let far = |nth| switched(header(FROM_RIGHT, FAR, ME), &[0x40, nth]);
    let near = |nth| switched(header(FROM_RIGHT, RIGHT, ME), &[0x41, nth]);
    let onward = |nth| switched(header(FROM_RIGHT, FAR, LEFT), &[0x42, nth]);
    let packets = [
        far(0),
        far(1),
        quic(28, 7),
        near(2),
        onward(3),
        far(4),
        near(5),
        quic(28, 8),
        onward(6),
        far(7),
    ];
    wire.udp.arrive(right(), &packets);
    wire.udp.arrive(right(), &[far(8), near(9), quic(28, 9)]);

    let all = wire.packets();
    let of = |from| {
        all.iter().filter(|got| got.from == from).map(|got| got.packet.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(overlay::socket_addr(FAR)), [0, 1, 4, 7, 8].map(|nth| vec![0x40, nth]));
    assert_eq!(of(overlay::socket_addr(RIGHT)), [2, 5, 9].map(|nth| vec![0x41, nth]));
    assert_eq!(of(mapped("10.0.0.3:7400")), [quic(28, 7), quic(28, 8), quic(28, 9)]);
    assert_eq!(all.len(), 11);
    let sent: Vec<_> =
        wire.udp.sent().iter().flat_map(|sent| sent.packets()).map(|p| p[27]).collect();
    assert_eq!(sent, [3, 6]);
    let status = wire.status();
    assert_eq!((status.delivered, status.forwarded), (8, 2));
    wire.assert_drops(&[]);
}

#[test]
fn a_packet_of_a_later_buffer_does_not_overtake_one_that_waits() {
    let wire = Wire::relay();
    let far = |nth| switched(header(FROM_RIGHT, FAR, ME), &[0x40, nth]);
    let near = |nth| switched(header(FROM_RIGHT, RIGHT, ME), &[0x40, nth]);
    // Both buffers come with one call; only the first run of each keeps its place.
    wire.udp.arrive(right(), &[near(0), far(1)]);
    wire.udp.arrive(right(), &[far(2)]);
    let all = wire.packets();
    let far: Vec<_> = all.iter().filter(|got| got.from == overlay::socket_addr(FAR)).collect();
    assert_eq!(far, [&got(FAR, &[0x40, 1]), &got(FAR, &[0x40, 2])]);
}

#[test]
fn random_mixtures_end_as_packet_by_packet() {
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let mut wire = Wire::relay();
        wire.buffers = 1 + rng.below(6);
        let table = relay();
        let mut reference = Reference::default();
        for _ in 0..1 + rng.below(4) {
            for _ in 0..1 + rng.below(6) {
                let (from, packets) = random_buffer(&mut rng);
                packets.iter().for_each(|packet| reference.take(&table, from, packet));
                wire.udp.arrive(from, &packets);
            }
            for got in wire.packets() {
                reference.got.entry(got.from).or_default().0.push(got.packet);
            }
        }
        for sent in wire.udp.sent() {
            reference.sent.entry(sent.to).or_default().0.extend(sent.packets());
        }
        wire.socket.tick();
        wire.socket.tick();
        for (from, (real, expected)) in &reference.got {
            assert_eq!(real, expected, "handed to quinn from {from}, seed {seed}");
        }
        for (to, (real, expected)) in &reference.sent {
            assert_eq!(real, expected, "sent on to {to}, seed {seed}");
        }
        let status = wire.status();
        let mut drops = status.dropped;
        drops.retain(|_, count| *count > 0);
        assert_eq!(drops, reference.dropped, "seed {seed}");
        let counted = (status.delivered, status.forwarded, status.forwarded_bytes);
        assert_eq!(
            counted,
            (reference.delivered, reference.forwarded, reference.bytes),
            "seed {seed}"
        );
    }
}

/// What happened, and what should have.
type Packets = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Looks at one packet at a time.
#[derive(Default)]
struct Reference {
    got: BTreeMap<SocketAddr, Packets>,
    sent: BTreeMap<SocketAddr, Packets>,
    dropped: BTreeMap<DropReason, u64>,
    delivered: u64,
    forwarded: u64,
    bytes: u64,
}

impl Reference {
    fn take(&mut self, table: &ForwardingTable, from: SocketAddr, packet: &[u8]) {
        let from = super::super::mapped(from);
        if overlay::node_addr(from).is_some() {
            return self.drop(DropReason::ForgedSource);
        }
        if packet[0] >= Header::FIRST_QUIC_BYTE {
            return self.got.entry(from).or_default().1.push(packet.to_vec());
        }
        if packet[0] == 0x04 {
            return self.drop(DropReason::StrayProbe);
        }
        let Ok(header) = Header::decode(packet) else {
            return self.drop(DropReason::BadHeader);
        };
        match table.decide(&header) {
            Decision::Deliver => {
                self.delivered += 1;
                let source = overlay::socket_addr(header.source);
                self.got.entry(source).or_default().1.push(packet[Header::LEN..].to_vec());
            }
            Decision::Forward(hop) => {
                self.forwarded += 1;
                self.bytes += packet.len() as u64;
                let onward =
                    Header { hop_limit: header.hop_limit - 1, cookie: hop.cookie, ..header };
                let to = SocketAddr::new(hop.to.ip().to_canonical(), hop.to.port());
                self.sent.entry(to).or_default().1.push(switched(onward, &packet[Header::LEN..]));
            }
            Decision::Hold => self.drop(DropReason::NoRoute),
            Decision::Drop(reason) => self.drop(reason),
        }
    }

    fn drop(&mut self, reason: DropReason) {
        *self.dropped.entry(reason).or_default() += 1;
    }
}

/// Packets of one length, but for a shorter last one, each of a random kind; often a few alike in a
/// row.
fn random_buffer(rng: &mut Rng) -> (SocketAddr, Vec<Vec<u8>>) {
    let from = match rng.below(12) {
        0 => overlay::socket_addr(FAR),
        1..4 => left(),
        _ => right(),
    };
    let stride = rng.pick(&[1, 20, 27, 28, 60, 200]);
    let mut packets = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let kind = rng.below(14);
        for _ in 0..1 + rng.below(3) {
            packets.push(random_packet(rng, kind, stride));
        }
    }
    if rng.below(2) == 0 {
        let len = 1 + rng.below(stride);
        packets.last_mut().unwrap().truncate(len);
    }
    (from, packets)
}

fn random_packet(rng: &mut Rng, kind: usize, len: usize) -> Vec<u8> {
    let head = match kind {
        0..3 => None,
        3 => Some(header(FROM_LEFT, LEFT, ME)),
        4 => Some(header(FROM_RIGHT, RIGHT, ME)),
        5 => Some(header(FROM_RIGHT, FAR, ME)),
        6 => Some(header(FROM_LEFT, LEFT, FAR)),
        7 => Some(header(FROM_RIGHT, FAR, LEFT)),
        8 => Some(header(FROM_LEFT, LEFT, RIGHT)),
        9 => Some(header(FROM_LEFT, FAR, rng.pick(&[ME, RIGHT]))),
        10 => Some(header(Cookie([5; 8]), LEFT, ME)),
        11 => Some(Header { hop_limit: rng.pick(&[0, 1, 2]), ..header(FROM_LEFT, LEFT, FAR) }),
        12 => Some(header(FROM_LEFT, LEFT, NOWHERE)),
        _ => {
            let mut packet: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
            packet[0] = rng.below(0x40) as u8;
            return packet;
        }
    };
    let mut packet: Vec<u8> = head.map_or_else(Vec::new, |head| head.encode().to_vec());
    packet.truncate(len);
    while packet.len() < len {
        packet.push(rng.below(256) as u8);
    }
    if kind < 3 {
        packet[0] |= 0x40;
    }
    packet
}
