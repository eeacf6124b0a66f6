//! Handshakes that are begun and not ended, or that cost more than they should.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::AsyncUdpSocket as _;
use quinn::udp::Transmit;
use receptor_quic::testing::{Mesh, Network, mesh};

use crate::carrier::overlay;
use crate::chains::namesakes;
use crate::initials::Initials;
use crate::log::Log;
use crate::member::{EDGE, client_config, id};
use crate::scene::Scene;
use crate::tls::Credentials;

/// How many first packets a flood has per second.
const RATE: u64 = 200;
/// How long a flood lasts before the honest nodes come, and in all.
const SECONDS: u64 = 12;

#[tokio::test(start_paused = true)]
async fn first_packets_through_the_mesh_keep_nobody_out() {
    let mesh =
        Mesh::builder(["victim-r", "peer-r"]).without_transit(["victim", "peer"]).start().await;
    let scene = Scene::of(mesh);
    let log = Log::open();
    let link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let victim = id("victim").addr();
    let flood = async {
        let mut initials = Initials::default();
        for _ in 0..RATE * SECONDS {
            scene.mallory.carrier.switch(victim, &initials.next().await);
            tokio::time::sleep(Duration::from_millis(1_000 / RATE)).await;
        }
    };
    let honest = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_few(log.take());
        scene.newcomers(20, "r", "victim").await
    };
    let ((), reached) = tokio::join!(flood, honest);
    assert_eq!(reached, 20);
    drop(link);
}

#[tokio::test(start_paused = true)]
async fn first_packets_of_one_outsider_keep_nobody_out() {
    let scene = Scene::of(mesh(["victim-r", "peer-r"]).await);
    let log = Log::open();
    let to = scene.addr("victim");
    let flood = async {
        let mut initials = Initials::default();
        for _ in 0..RATE * SECONDS {
            scene.mallory.carrier.send(to, &initials.next().await);
            tokio::time::sleep(Duration::from_millis(1_000 / RATE)).await;
        }
    };
    let honest = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_few(log.take());
        // Over the mesh, and by links of their own.
        (scene.newcomers(20, "r", "victim").await, scene.newcomers(20, "victim", "peer").await)
    };
    let ((), reached) = tokio::join!(flood, honest);
    assert_eq!(reached, (20, 20));
}

#[tokio::test(start_paused = true)]
async fn first_packets_with_false_sources_keep_nobody_out() {
    let network = Network::new(7);
    let scene = Scene::of(Mesh::on(network.clone(), ["victim-r", "peer-r"]).await);
    let to = scene.addr("victim");
    let flood = async {
        let mut initials = Initials::default();
        for number in 0..RATE * SECONDS {
            // Each from another host, spread over many prefixes, that never answers.
            let [_, _, high, low] = (number as u32).to_be_bytes();
            let source = SocketAddr::from(([203, low, high, 9], 9));
            let socket = network.bind(source).unwrap();
            let contents = &initials.next().await;
            let transmit =
                Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None };
            socket.try_send(&transmit).unwrap();
            tokio::time::sleep(Duration::from_millis(1_000 / RATE)).await;
        }
    };
    let honest = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        (scene.newcomers(20, "r", "victim").await, scene.newcomers(20, "victim", "peer").await)
    };
    let ((), reached) = tokio::join!(flood, honest);
    assert_eq!(reached, (20, 20));
}

/// As many same-named intermediates as fit: a search for a path may try them in every order.
#[tokio::test(start_paused = true)]
async fn a_chain_of_namesakes_costs_its_victim_little() {
    let scene = Scene::of(mesh(["victim-peer"]).await);
    let log = Log::open();
    let to = scene.addr("victim");
    let refuse = async |credentials: &Credentials, times: usize| {
        let before = cpu_nanos();
        for _ in 0..times {
            let config = client_config(Some(credentials));
            let connection =
                scene.mallory.endpoint.connect_with(config, to, "receptor").unwrap().await;
            // The server judges the chain after the client has finished.
            if let Ok(connection) = connection {
                connection.closed().await;
            }
        }
        cpu_nanos() - before
    };
    let plain = refuse(&namesakes(0), 20).await;
    for count in [4, 5, 7, 8, 18] {
        let junk = refuse(&namesakes(count), 20).await;
        // Sent, received and read, a long chain costs its length. The orders of its parts are no
        // length.
        assert!(junk < 6 * plain, "{junk} ns for {count} intermediates, {plain} ns without");
    }
    assert_few(log.take());
    assert_eq!(scene.newcomers(20, "victim", "peer").await, 20);
}

#[track_caller]
fn assert_few(lines: usize) {
    assert!(lines <= 100, "{lines} lines were logged");
}

/// What this thread has computed so far.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn connections_that_stop_after_the_handshake_leave_room_for_others() {
    let mesh =
        Mesh::builder(["victim-r", "peer-r"]).without_transit(["victim", "peer"]).start().await;
    let scene = Scene::of(mesh);
    let _link = scene.mallory.link(scene.addr("r"), EDGE).await;
    let mut links = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..200 {
        // A neighbour that never says HELLO, and a peer that never opens a stream.
        links.push(scene.mallory.connect(scene.addr("victim")).await);
        peers.push(scene.mallory.connect(overlay(id("victim").addr())).await);
    }
    assert_eq!(scene.newcomers(20, "victim", "peer").await, 20);
    assert_eq!(scene.newcomers(20, "r", "victim").await, 20);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let open = |connections: &[Result<quinn::Connection, _>]| {
        connections
            .iter()
            .flatten()
            .filter(|connection| connection.close_reason().is_none())
            .count()
    };
    // Links must say HELLO in time; of one peer a few connections may be kept.
    assert_eq!(open(&links), 0);
    assert!(open(&peers) <= 4, "{}", open(&peers));
}
