//! Handshakes that are begun and not ended, or that cost more than they should.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, EndpointConfig, UdpPoller};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use receptor_quic::testing::{Mesh, Network, mesh};
use rustls::pki_types::PrivateKeyDer;

use crate::carrier::overlay;
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
    let mesh = Mesh::builder(["victim-r", "peer-r"]).without_transit(["victim", "peer"]).start().await;
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
            let connection = scene.mallory.endpoint.connect_with(config, to, "receptor").unwrap().await;
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

/// A chain of a stranger's, with this many intermediates that all have the same name and none of
/// which issued another.
fn namesakes(count: usize) -> Credentials {
    let params = |ca| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "namesake");
        params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
        params
    };
    let issuer = Issuer::new(params(true), KeyPair::generate().unwrap());
    let own = KeyPair::generate().unwrap();
    let mut chain = vec![params(false).signed_by(&own, &issuer).unwrap().der().clone()];
    chain.extend((0..count).map(|_| {
        let certificate = params(true).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        certificate.der().clone()
    }));
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    Credentials { chain, key }
}

/// What this thread has computed so far.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn connections_that_stop_after_the_handshake_leave_room_for_others() {
    let mesh = Mesh::builder(["victim-r", "peer-r"]).without_transit(["victim", "peer"]).start().await;
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
        connections.iter().flatten().filter(|connection| connection.close_reason().is_none()).count()
    };
    // Links must say HELLO in time; of one peer a few connections may be kept.
    assert_eq!(open(&links), 0);
    assert!(open(&peers) <= 4, "{}", open(&peers));
}

/// First packets of QUIC connections, as many as are wanted.
#[derive(Default)]
struct Initials(VecDeque<Vec<u8>>);

impl Initials {
    async fn next(&mut self) -> Vec<u8> {
        const BATCH: usize = 50;
        if self.0.is_empty() {
            let socket = Arc::new(Capture::default());
            let runtime = Arc::new(quinn::TokioRuntime);
            let config = EndpointConfig::default();
            let endpoint =
                quinn::Endpoint::new_with_abstract_socket(config, None, socket.clone(), runtime).unwrap();
            let config = client_config(None);
            let to = SocketAddr::from(([10, 0, 0, 1], 7400));
            let connect = |_| endpoint.connect_with(config.clone(), to, "receptor").unwrap();
            let connecting: Vec<_> = (0..BATCH).map(connect).collect();
            while socket.0.lock().unwrap().len() < BATCH {
                tokio::task::yield_now().await;
            }
            self.0 = std::mem::take(&mut socket.0.lock().unwrap());
            drop(connecting);
        }
        self.0.pop_front().unwrap()
    }
}

/// A socket that keeps what is sent.
#[derive(Debug, Default)]
struct Capture(Mutex<VecDeque<Vec<u8>>>);

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Capture {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.0.lock().unwrap().extend(transmit.contents.chunks(segment).map(<[u8]>::to_vec));
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7400))
    }
}
