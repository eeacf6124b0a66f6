//! Links by TLS over TCP, on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;

use receptor_quic::mesh::{Carrier, LinkState, LinkStatus, Status};
use receptor_quic::{Authority, Event, Node, NodeBuilder, PeerAddr};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{echo, id, serve_echo, serve_sink, service, transfer};

fn authority() -> Authority {
    Authority::new("carriers", 1).unwrap()
}

fn builder(ca: &Authority, name: &str) -> NodeBuilder {
    Node::builder(name, ca.issue(&id(name), 1).unwrap())
}

/// A relay that takes links by UDP and by TLS.
async fn relay(ca: &Authority) -> Node {
    let relay = builder(ca, "relay").transit(true).listen("127.0.0.1:0").listen_tcp("127.0.0.1:0");
    let relay = relay.start().await.unwrap();
    serve_echo(&relay);
    serve_sink(&relay);
    relay
}

fn by_tls(name: &str, addr: SocketAddr) -> PeerAddr {
    PeerAddr { expected: Some(id(name)), carrier: Carrier::Tls, ..PeerAddr::from(addr) }
}

fn tcp(node: &Node) -> SocketAddr {
    node.local_tcp_addrs()[0]
}

async fn edge(ca: &Authority, relay: SocketAddr) -> Node {
    let edge = builder(ca, "edge").direct(false).peer(by_tls("relay", relay));
    let edge = edge.start().await.unwrap();
    edge.linked().await.unwrap();
    edge
}

/// The first status that fulfils a condition.
async fn status_when(node: &Node, is: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = node.status().await.unwrap();
        if is(&status) {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

/// The link that is up.
async fn link(node: &Node, to: &str) -> LinkStatus {
    let up = |link: &&LinkStatus| {
        link.state == LinkState::Up && link.peer.as_ref().is_some_and(|peer| peer.as_str() == to)
    };
    let status = status_when(node, |status| status.links.iter().any(|link| up(&link))).await;
    status.links.iter().find(up).unwrap().clone()
}

#[tokio::test]
async fn a_node_by_tls_alone_reaches_the_mesh_and_is_reached() {
    let ca = authority();
    let relay = relay(&ca).await;
    let edge = edge(&ca, tcp(&relay)).await;
    let far = builder(&ca, "far").direct(false).peer(relay.local_addrs()[0]).start().await.unwrap();
    serve_echo(&edge);
    serve_echo(&far);
    edge.converged(std::time::Duration::from_secs(10)).await.unwrap();
    far.linked().await.unwrap();
    far.converged(std::time::Duration::from_secs(10)).await.unwrap();

    echo(&edge, "relay").await;
    echo(&relay, "edge").await;
    echo(&edge, "far").await;
    echo(&far, "edge").await;

    let out = link(&edge, "relay").await;
    assert_eq!((out.carrier, out.address), (Carrier::Tls, tcp(&relay).to_string()));
    let back = link(&relay, "edge").await;
    assert_eq!(back.carrier, Carrier::Tls);
    assert!(back.address.starts_with("127.0.0.1:"), "{}", back.address);
    assert_eq!(link(&relay, "far").await.carrier, Carrier::Udp);
    let status = relay.status().await.unwrap();
    assert_eq!((status.listen_tcp, status.carriers.open), (relay.local_tcp_addrs(), 1));
    // The place of a connection is free as soon as there is a link.
    assert_eq!(status.handshakes.carriers.half_open, 0);
}

#[tokio::test]
async fn bulk_arrives_whole_by_tls_to_a_neighbour_and_beyond() {
    let ca = authority();
    let relay = relay(&ca).await;
    let edge = edge(&ca, tcp(&relay)).await;
    let far = builder(&ca, "far").direct(false).peer(by_tls("relay", tcp(&relay)));
    let far = far.start().await.unwrap();
    far.linked().await.unwrap();
    serve_sink(&far);
    for to in ["relay", "far"] {
        let stream = edge.open(&id(to), &service("sink")).await.unwrap();
        transfer(stream, 512).await;
    }
}

#[tokio::test]
async fn a_link_ends_with_its_tcp_connection_and_comes_back() {
    let ca = authority();
    let relay = relay(&ca).await;
    let (to, between) = (tcp(&relay), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = between.local_addr().unwrap();
    let (cut, mut cuts) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = between.accept().await {
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cuts.recv() => {}
            }
        }
    });
    let edge = edge(&ca, at).await;
    echo(&edge, "relay").await;
    let mut events = edge.events();
    cut.send(()).await.unwrap();
    let (mut down, mut up) = (false, false);
    while !(down && up) {
        match events.recv().await.unwrap() {
            Event::LinkDown { .. } => down = true,
            Event::LinkUp { .. } => up = down,
            _ => {}
        }
    }
    echo(&edge, "relay").await;
}

#[tokio::test]
async fn the_certificate_in_the_carrier_must_be_of_the_mesh() {
    let (ca, other) = (authority(), authority());
    let relay = relay(&ca).await;
    let stranger = builder(&other, "edge").peer(by_tls("relay", tcp(&relay)));
    let stranger = stranger.start().await.unwrap();
    let refused = stranger.linked().await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let wrong = builder(&ca, "edge").peer(by_tls("somebody-else", tcp(&relay)));
    let wrong = wrong.start().await.unwrap();
    let refused = wrong.linked().await.unwrap_err();
    assert!(refused.to_string().contains("somebody-else"), "{refused}");
    status_when(&relay, |status| status.carriers.open == 0).await;
}

/// A TLS client that trusts anybody, as attackers do.
async fn tls(to: SocketAddr, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anybody::Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("relay.example").unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// What comes until the other end closes, which it must.
async fn rest(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut rest = Vec::new();
    // An end without a farewell is one, too.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn a_browser_gets_404_and_others_keep_their_links() {
    let ca = authority();
    let relay = relay(&ca).await;
    let edge = edge(&ca, tcp(&relay)).await;
    for alpn in [&[][..], &[&b"http/1.1"[..]], &[b"h2", b"http/1.1"]] {
        let mut browser = tls(tcp(&relay), alpn).await;
        browser.write_all(b"GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(rest(browser).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer:?}");
    }
    let status = relay.status().await.unwrap();
    assert_eq!((status.carriers.not_found, status.carriers.open), (3, 1));
    echo(&edge, "relay").await;
}

#[tokio::test]
async fn garbage_and_frames_that_no_packet_has_are_counted_and_cut_off() {
    let ca = authority();
    let relay = relay(&ca).await;
    let edge = edge(&ca, tcp(&relay)).await;
    let mut garbage = TcpStream::connect(tcp(&relay)).await.unwrap();
    garbage.write_all(&[b'x'; 4_096]).await.unwrap();
    rest(garbage).await;
    for frame in [&[0, 0][..], &[0xff, 0xff, 1, 2, 3]] {
        let mut carrier = tls(tcp(&relay), &[b"receptor-quic/1"]).await;
        carrier.write_all(frame).await.unwrap();
        rest(carrier).await;
    }
    let cut = |status: &Status| (status.carriers.tls_failed, status.carriers.bad_frames) == (1, 2);
    status_when(&relay, cut).await;
    echo(&edge, "relay").await;
}

/// Time is the test's: it passes while nothing else happens.
#[tokio::test(start_paused = true)]
async fn connections_on_which_no_link_comes_about_end_in_time() {
    let ca = authority();
    let relay = relay(&ca).await;
    let silent = TcpStream::connect(tcp(&relay)).await.unwrap();
    rest(silent).await;
    let mut slow = tls(tcp(&relay), &[b"receptor-quic/1"]).await;
    // Packets that begin no connection, and the beginning of another one.
    for _ in 0..100 {
        slow.write_all(&[0, 3, 0x40, 1, 2]).await.unwrap();
    }
    slow.write_all(&[0, 200, 0x40]).await.unwrap();
    rest(slow).await;
    let mut browser = tls(tcp(&relay), &[b"http/1.1"]).await;
    browser.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    rest(browser).await;
    let status = relay.status().await.unwrap();
    assert_eq!((status.carriers.tls_failed, status.carriers.without_link), (1, 1));
    assert_eq!((status.carriers.open, status.handshakes.carriers.silent), (0, 3));
}

#[tokio::test]
async fn a_flood_of_connections_from_one_network_displaces_its_own() {
    // Both ends of all connections are in this process.
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: descriptors.maximum, ..descriptors };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    let ca = authority();
    let relay = relay(&ca).await;
    let edge = edge(&ca, tcp(&relay)).await;
    let mut flood = Vec::new();
    for _ in 0..700 {
        flood.push(TcpStream::connect(tcp(&relay)).await.unwrap());
    }
    let status = status_when(&relay, |status| status.handshakes.carriers.displaced >= 188).await;
    assert!(status.handshakes.carriers.half_open <= 512);
    // From the same address even, in its turn.
    let late = builder(&ca, "late").peer(by_tls("relay", tcp(&relay))).start().await.unwrap();
    late.linked().await.unwrap();
    echo(&late, "relay").await;
    echo(&edge, "relay").await;
}

mod anybody {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anybody(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
