//! Strangers that send packets at a relay.

use std::sync::Arc;
use std::time::Duration;

use quinn::AsyncUdpSocket;
use quinn::udp::Transmit;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::attacker::{Scene, id, mallory};
use crate::id::NodeAddr;
use crate::mesh::PeerPath;
use crate::rng::SplitMix64;
use crate::switch::{Attachment, Cookie, DropReason, Header};
use crate::testing::{LinkQuality, Mesh, Network};

const LEN: usize = 4 << 20;

#[tokio::test(start_paused = true)]
async fn a_transfer_through_a_relay_is_whole_whatever_a_stranger_sends_there() {
    for seed in 0..3 {
        let network = Network::new(seed);
        network.set_default(LinkQuality { bandwidth: Some(4 << 20), ..LinkQuality::default() });
        let mesh = Mesh::on(network, ["a-r", "b-r"]).await;
        let (ended, running) = watch::channel(false);
        let spraying = tokio::spawn(spray(mesh.network().clone(), mesh.addr("r"), seed, running));
        let received = transfer(&mesh, seed).await;
        ended.send_replace(true);
        let sent = spraying.await.unwrap();
        // What is on its way arrives.
        tokio::time::sleep(Duration::from_secs(1)).await;

        assert_eq!(received, checksum(&contents(seed)), "seed {seed}");
        let status = mesh.node("r").status().await.unwrap();
        assert!(sent.guessed > 100 && sent.garbage > 100, "{sent:?}, seed {seed}");
        let drops: Vec<_> = status.switch.dropped.iter().filter(|(_, count)| **count > 0).collect();
        let expected =
            [(&DropReason::BadHeader, &sent.garbage), (&DropReason::UnknownCookie, &sent.guessed)];
        assert_eq!(drops, expected, "seed {seed}");
        assert!(status.switch.forwarded_bytes > LEN as u64);
        assert_eq!(status.links.len(), 2, "seed {seed}");
        // Nothing came through to the ends.
        for end in ["a", "b"] {
            let status = mesh.node(end).status().await.unwrap();
            assert!(status.switch.dropped.values().all(|count| *count == 0), "{:?}", status.switch);
        }
        mesh.node("a").ping(&id("b")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_neighbours_packets_that_may_not_pass_are_counted_and_nothing_else_happens() {
    use DropReason::{BadHeader, ForgedSource, HopLimit, NoRoute};
    let scene = Scene::new().await;
    let member = scene.member().await;
    let (me, honest, victim) = (mallory().addr(), id("honest").addr(), id("victim").addr());
    let cookie = member.link.hello.cookie;
    let header = |hop_limit, destination, source| Header {
        hop_limit,
        cookie,
        destination,
        source,
        attachment: Attachment::None,
    };
    let send = |header: Header, payload: &[u8]| {
        let contents = [&*header.encode(), payload].concat();
        let destination = scene.mesh.addr("victim");
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        member.udp.try_send(&transmit).unwrap();
    };
    let before = scene.status().await.switch;
    assert!(before.dropped.values().all(|count| *count == 0));
    let mut rng = SplitMix64::new(1);
    let garbage = [&[0xc3][..], &rng.bytes(1_199)].concat();
    for _ in 0..10 {
        send(header(9, victim, honest), b"@forged");
        send(header(9, honest, victim), b"@forged");
        send(header(0, honest, me), b"@spent");
        send(header(1, honest, me), b"@spent");
        send(header(9, NodeAddr([7; 8]), me), b"@nobody");
        send(header(9, victim, me), b"");
        // This arrives, at the victim and through it at its neighbour, and is no QUIC.
        send(header(9, victim, me), &garbage);
        send(header(9, honest, me), &garbage);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = scene.status().await.switch;
    let drops: Vec<_> = status.dropped.iter().filter(|(_, count)| **count > 0).collect();
    let expected = [(&BadHeader, &10), (&ForgedSource, &20), (&HopLimit, &20), (&NoRoute, &10)];
    assert_eq!(drops, expected);
    assert_eq!(
        (status.delivered, status.forwarded),
        (before.delivered + 10, before.forwarded + 10)
    );
    let honest = scene.mesh.node("honest").status().await.unwrap().switch;
    assert!(honest.dropped.values().all(|count| *count == 0), "{honest:?}");
    assert_eq!(honest.delivered, 10);
    // Its link is as it was, and so is everybody else's.
    assert!(member.link.connection.close_reason().is_none());
    scene.assert_serves("packets").await;
    assert!(scene.status().await.peers.iter().all(|peer| peer.path == PeerPath::Link));
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_without_transit_sends_for_itself_and_for_stubs_that_nobody_else_has() {
    let scene = Scene::new().await;
    let member = scene.edge().await;
    let (me, honest, victim) = (mallory().addr(), id("honest").addr(), id("victim").addr());
    let (stub, stranger) = (NodeAddr([5; 8]), NodeAddr([6; 8]));
    let cookie = member.link.hello.cookie;
    let send = |source, attachment| {
        let header = Header { hop_limit: 9, cookie, destination: honest, source, attachment };
        let contents = [&*header.encode(), b"@a packet"].concat();
        let destination = scene.mesh.addr("victim");
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        member.udp.try_send(&transmit).unwrap();
    };
    let before = scene.status().await.switch;
    send(me, Attachment::None);
    send(stub, Attachment::Source(me));
    for (source, attachment) in [
        (stranger, Attachment::None),
        (victim, Attachment::Source(me)),
        (stub, Attachment::Source(stranger)),
        (stub, Attachment::Source(victim)),
    ] {
        send(source, attachment);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = scene.status().await.switch;
    assert_eq!(after.forwarded, before.forwarded + 2);
    let drops: Vec<_> = after.dropped.iter().filter(|(_, count)| **count > 0).collect();
    assert_eq!(drops, [(&DropReason::ForgedSource, &4)]);
}

/// What was sent at the relay, by what it is to be counted as.
#[derive(Debug, Default)]
struct Sent {
    guessed: u64,
    garbage: u64,
}

async fn spray(
    network: Network,
    relay: std::net::SocketAddr,
    seed: u64,
    mut running: watch::Receiver<bool>,
) -> Sent {
    let socket: Arc<_> = network.bind_host();
    let mut rng = SplitMix64::new(seed);
    let mut sent = Sent::default();
    let nodes = [id("a").addr(), id("b").addr(), id("r").addr(), NodeAddr([9; 8])];
    while !*running.borrow() {
        for _ in 0..5 {
            let len = 30 + (rng.next() % 1_000) as usize;
            let mut packet = rng.bytes(len);
            match rng.next() % 4 {
                // Almost right: real nodes, a good hop limit, a cookie that is a guess.
                0 | 1 => {
                    let node = |n: u64| nodes[(n % 4) as usize];
                    let mut cookie = [0; 8];
                    cookie.copy_from_slice(&rng.bytes(8));
                    let (destination, source) = (node(rng.next()), node(rng.next()));
                    let header = Header {
                        hop_limit: 20,
                        cookie: Cookie(cookie),
                        destination,
                        source,
                        attachment: Attachment::None,
                    };
                    packet[..Header::LEN].copy_from_slice(&header.encode());
                    sent.guessed += 1;
                }
                2 => {
                    packet[0] = [0x00, 0x05, 0x3f][(rng.next() % 3) as usize];
                    sent.garbage += 1;
                }
                // Not the switch's: quinn drops it.
                _ => packet[0] |= 0x40,
            }
            let transmit = Transmit {
                destination: relay,
                ecn: None,
                contents: &packet,
                segment_size: None,
                src_ip: None,
            };
            socket.try_send(&transmit).unwrap();
        }
        let _ = tokio::time::timeout(Duration::from_millis(5), running.changed()).await;
    }
    sent
}

/// Sends from `a` to `b`; what `b` received.
async fn transfer(mesh: &Mesh, seed: u64) -> Vec<u8> {
    let service = "sink";
    let mut listener = mesh.node("b").serve("sink").unwrap();
    let receiving = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().stream;
        let mut hash = Sha256::new();
        while let Some(chunk) = stream.recv.read_chunk(1 << 16).await.unwrap() {
            hash.update(&chunk);
        }
        hash.finalize().to_vec()
    });
    let mut stream = mesh.node("a").open(&id("b"), service).await.unwrap();
    stream.send.write_all(&contents(seed)).await.unwrap();
    stream.send.finish();
    receiving.await.unwrap()
}

fn contents(seed: u64) -> Vec<u8> {
    SplitMix64::new(seed).bytes(LEN)
}

fn checksum(contents: &[u8]) -> Vec<u8> {
    Sha256::digest(contents).to_vec()
}
