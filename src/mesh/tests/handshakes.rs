//! Handshakes that are begun and not finished, by strangers and by members, while honest nodes
//! connect.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::task::JoinHandle;

use super::attacker::{Scene, id, mallory};
use crate::mesh::HandshakeStatus;
use crate::switch::{Attachment, Header};
use crate::testing::{Mesh, VirtualSocket};
use crate::transport::tls::{SERVER_NAME, TlsConfig};

/// Honest nodes beside the relay `victim` and its edge.
const HONEST: usize = 20;
/// Between two first packets of a flood of 300 a second, or of 200.
const PACE_300: Duration = Duration::from_micros(3_333);
const PACE_200: Duration = Duration::from_millis(5);
/// What a new connection of an honest node may take beside a flood: some round trips of the virtual
/// network, and a Retry.
const SOON: Duration = Duration::from_millis(500);

/// A UDP socket that only sends, or receives nothing but Retry packets.
#[derive(Debug)]
struct Mute {
    udp: Arc<VirtualSocket>,
    /// Kept instead of sent.
    captured: Option<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncUdpSocket for Mute {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.udp.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match &self.captured {
            Some(captured) => {
                captured.lock().unwrap().push(transmit.contents.to_vec());
                Ok(())
            }
            None => self.udp.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.udp.poll_recv(cx, bufs, meta) {
                Poll::Ready(Ok(received)) => {
                    // RFC 9000 §17.2.5: a long header of type 3.
                    let retry = |nth: usize| meta[nth].len > 0 && bufs[nth][0] & 0xf0 == 0xf0;
                    if (0..received).any(retry) {
                        return Poll::Ready(Ok(received));
                    }
                }
                other => return other,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// First packets of connections that go no further, one per connection.
struct Mint {
    endpoint: quinn::Endpoint,
    socket: Arc<Mute>,
    config: quinn::ClientConfig,
    to: SocketAddr,
    // Dropped, they would end the connections.
    begun: Vec<quinn::Connecting>,
}

impl Mint {
    fn new(scene: &Scene, capture: bool) -> Self {
        let udp = scene.mesh.network().bind_host();
        let socket = Arc::new(Mute { udp, captured: capture.then(Mutex::default) });
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quinn::EndpointConfig::default(),
            None,
            socket.clone(),
            runtime,
        )
        .expect("the virtual network has room");
        let tls = TlsConfig::new(&scene.identity, scene.identity.trust());
        let mut config = quinn::ClientConfig::new(tls.client(None));
        // Nothing is repeated.
        let mut transport = quinn::TransportConfig::default();
        transport.initial_rtt(Duration::from_secs(600));
        config.transport_config(Arc::new(transport));
        Self { endpoint, socket, config, to: scene.mesh.addr("victim"), begun: Vec::new() }
    }

    fn begin(&mut self) {
        let connecting = self.endpoint.connect_with(self.config.clone(), self.to, SERVER_NAME);
        self.begun.push(connecting.expect("the address is a valid one"));
    }

    /// A first packet that nobody has seen.
    async fn packet(&mut self) -> Vec<u8> {
        self.begin();
        loop {
            tokio::task::yield_now().await;
            let captured = self.socket.captured.as_ref().expect("it captures");
            let first = std::mem::take(&mut *captured.lock().unwrap()).into_iter().next();
            if let Some(first) = first {
                return first;
            }
        }
    }
}

/// `victim` is a relay with an edge and honest edges; `mallory` has a certificate.
async fn scene() -> Scene {
    let honest: Vec<_> = (0..HONEST).map(|n| format!("h{n}-victim")).collect();
    let links = honest.iter().map(String::as_str).chain(["edge-victim"]);
    let mesh = Mesh::builder(links).start().await;
    let identity = mesh.authority().issue(&mallory(), 1).unwrap();
    Scene { mesh, identity }
}

/// Sends first packets to `victim` without end, behind a switched header if there is one.
fn flood(
    scene: &Scene,
    udp: Arc<VirtualSocket>,
    mut mint: Mint,
    header: Option<Header>,
    pace: Duration,
) -> JoinHandle<()> {
    let destination = scene.mesh.addr("victim");
    let header = header.map_or_else(Vec::new, |header| header.encode().to_vec());
    tokio::spawn(async move {
        loop {
            let contents = [&header[..], &mint.packet().await].concat();
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: &contents,
                segment_size: None,
                src_ip: None,
            };
            udp.try_send(&transmit).unwrap();
            tokio::time::sleep(pace).await;
        }
    })
}

/// Each honest node in turn connects to `to` for the first time.
async fn assert_all_connect(scene: &Scene, to: &str) {
    for n in 0..HONEST {
        let start = tokio::time::Instant::now();
        let pong = scene.mesh.node(&format!("h{n}")).ping(&id(to)).await;
        assert!(pong.is_ok(), "h{n}: {pong:?}");
        assert!(start.elapsed() < SOON, "h{n}: {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn handshakes(scene: &Scene, name: &str) -> HandshakeStatus {
    scene.mesh.node(name).status().await.unwrap().handshakes
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_only_begins_handshakes_keeps_nobody_out() {
    let scene = scene().await;
    let member = scene.member().await;
    let (edge, victim) = (id("edge").addr(), id("victim").addr());
    let header = Header {
        hop_limit: 9,
        cookie: member.link.hello.cookie,
        destination: edge,
        source: mallory().addr(),
        attachment: Attachment::Source(victim),
    };
    let mint = Mint::new(&scene, true);
    let flood = flood(&scene, member.udp.clone(), mint, Some(header), PACE_200);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_all_connect(&scene, "edge").await;
    let seen = handshakes(&scene, "edge").await.peers;
    assert!(seen.half_open <= 8 + 1, "{seen:?}");
    assert!(seen.retried > 800 && seen.silent > 0 && seen.displaced == 0, "{seen:?}");
    flood.abort();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(handshakes(&scene, "edge").await.peers.half_open, 0);
    drop(member);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_only_begins_handshakes_keeps_nobody_out() {
    let scene = scene().await;
    let mint = Mint::new(&scene, true);
    let flood = flood(&scene, scene.mesh.network().bind_host(), mint, None, PACE_300);
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Through the mesh, and to the node under attack itself.
    assert_all_connect(&scene, "edge").await;
    let late = scene.mesh.joiner("late", &["victim"]).start().await.unwrap();
    tokio::time::timeout(SOON, late.linked()).await.expect("a link in time").unwrap();
    let seen = handshakes(&scene, "victim").await;
    assert!(seen.links.half_open <= 8 + 1, "{seen:?}");
    assert!(seen.links.retried > 1_000 && seen.links.silent > 0, "{seen:?}");
    assert_eq!(seen.peers.retried, 0);
    flood.abort();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handshakes(&scene, "victim").await.links.half_open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_proves_its_address_displaces_itself() {
    let scene = scene().await;
    // Its connections answer a Retry, and nothing else.
    let mut mint = Mint::new(&scene, false);
    let flood: JoinHandle<()> = tokio::spawn(async move {
        loop {
            mint.begin();
            tokio::time::sleep(PACE_300).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_all_connect(&scene, "edge").await;
    for n in 0..3 {
        let late = scene.mesh.joiner(&format!("late{n}"), &["victim"]).start().await.unwrap();
        tokio::time::timeout(SOON, late.linked()).await.expect("a link in time").unwrap();
    }
    let seen = handshakes(&scene, "victim").await;
    assert!(seen.links.half_open <= 512 && seen.links.displaced > 100, "{seen:?}");
    flood.abort();
}
