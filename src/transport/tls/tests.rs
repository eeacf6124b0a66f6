//! Real endpoints on loopback, with certificates that OpenSSL made: who connects, and what both ends learn if not.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quinn::{ConnectionError, Endpoint};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;
use crate::transport::code::CloseCode;
use crate::transport::key::PrivateKey;
use crate::transport::refusal::WrongName;
use crate::transport::reset::endpoint_config;
use crate::transport::testdata::{chain, fixtures, id, identity, stranger, text};
use crate::transport::{Authority, Fingerprint};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_certificate_connects_to_every_other_and_both_ends_learn_the_ids() {
    let mut identities: Vec<Identity> =
        ["othername", "uri", "dns", "p384", "many", "chained"].map(identity).into();
    identities.push(Authority::load(&fixtures()).unwrap().issue(&id("issued"), 1).unwrap());
    for acceptor in &identities {
        let server = Node::new(acceptor, acceptor.trust());
        for dialler in &identities {
            let client = Node::new(dialler, dialler.trust());
            for expected in [None, acceptor.ids().last().cloned()] {
                let (ours, theirs) = client.dial(&server, expected).await;
                let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
                assert_eq!(peer_ids(&ours).unwrap(), acceptor.ids());
                assert_eq!(peer_ids(&theirs).unwrap(), dialler.ids());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_speaks_the_one_protocol_and_does_not_name_the_acceptor_in_the_clear() {
    let [client, server] = [Node::plain("uri"), Node::plain("dns")];
    let (_ours, theirs) = client.dial(&server, Some(id("dns"))).await;
    let data = theirs.unwrap().handshake_data().unwrap();
    let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
    assert_eq!(data.protocol.as_deref(), Some(ALPN));
    assert_eq!(data.server_name, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_the_acceptor_does_not_know_is_named_at_both_ends() {
    let client = Node::new(&stranger(), &ours());
    assert_refused(client.dial(&Node::plain("uri"), None).await, &Refusal::UnknownCa, By::Acceptor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_the_dialler_does_not_know_is_named_at_both_ends() {
    let server = Node::new(&stranger(), &ours());
    assert_refused(Node::plain("uri").dial(&server, None).await, &Refusal::UnknownCa, By::Dialler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_out_of_their_time_are_told_apart_at_both_ends() {
    for (name, refusal) in [("expired", Refusal::Expired), ("future", Refusal::NotYetValid)] {
        assert_refused(Node::plain(name).dial(&Node::plain("uri"), None).await, &refusal, By::Acceptor).await;
        assert_refused(Node::plain("uri").dial(&Node::plain(name), None).await, &refusal, By::Dialler).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_not_expected_is_named_at_both_ends() {
    let dialled = Node::plain("uri").dial(&Node::plain("many"), Some(id("edge-7"))).await;
    let refusal = Refusal::WrongName {
        expected: Some(id("edge-7")),
        found: vec![id("many"), id("many@uri"), id("many-dns")],
    };
    assert_refused(dialled, &refusal, By::Dialler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_names_no_node_is_refused_at_both_ends() {
    let client = Node::plain("uri");
    let mut config = client.tls.client.clone();
    let key = PrivateKey::from_pem(&text("nameless.key")).unwrap();
    config.client_auth_cert_resolver = present(&chain("nameless"), &key);
    let refusal = Refusal::WrongName { expected: None, found: Vec::new() };
    assert_refused(client.dial_with(config, &Node::plain("dns")).await, &refusal, By::Acceptor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialler_without_a_certificate_is_told_so() {
    let client = Node::plain("uri");
    let mut config = client.tls.client.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let dialled = client.dial_with(config, &Node::plain("dns")).await;
    assert_refused(dialled, &Refusal::NoClientCertificate, By::Acceptor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_protocol_or_none_is_named_at_both_ends() {
    for protocols in [vec![b"h3".to_vec()], vec![b"receptor-quic/2".to_vec()], Vec::new()] {
        let client = Node::plain("uri");
        let mut config = client.tls.client.clone();
        config.alpn_protocols = protocols;
        let dialled = client.dial_with(config, &Node::plain("dns")).await;
        assert_refused(dialled, &Refusal::WrongAlpn, By::Acceptor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_of_either_side_deny_and_both_ends_know() {
    let refusing: [fn(Trust) -> Trust; 3] = [
        |trust| trust.with_denied([id("uri"), id("dns")]),
        |trust| trust.with_allowed([id("p384")]),
        |trust| trust.with_pins([Fingerprint([0; 32])]),
    ];
    for refuse in refusing {
        let strict = |name| Node::new(&identity(name), &refuse(ours()));
        assert_refused(Node::plain("uri").dial(&strict("dns"), None).await, &Refusal::Denied, By::Acceptor)
            .await;
        assert_refused(strict("uri").dial(&Node::plain("dns"), None).await, &Refusal::Denied, By::Dialler)
            .await;
    }
    let pin = identity("uri").key_fingerprint();
    let open = ours().with_denied([id("p384")]).with_allowed([id("uri")]).with_pins([pin]);
    let (dialler, acceptor) = Node::plain("uri").dial(&Node::new(&identity("dns"), &open), None).await;
    dialler.unwrap();
    acceptor.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_named_at_both_ends_and_others_go_on() {
    // The other mesh's CA has the same name and no revocation list: the list of ours does not speak for it.
    let trust = Trust::from_pem(&(text("ca.crt") + &text("stranger/ca.crt"))).unwrap();
    let listed = trust.with_crls(&text("crl.pem")).unwrap();
    let strict = |name| Node::new(&identity(name), &listed);
    let revoked = Node::plain("revoked");
    assert_refused(revoked.dial(&strict("dns"), None).await, &Refusal::Revoked, By::Acceptor).await;
    assert_refused(strict("uri").dial(&revoked, None).await, &Refusal::Revoked, By::Dialler).await;
    for name in ["uri", "chained"] {
        let (dialler, acceptor) = strict(name).dial(&strict("dns"), None).await;
        dialler.unwrap();
        acceptor.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_the_wrong_use_is_refused_only_there() {
    let [restricted, plain] = [Node::plain("client-only"), Node::plain("uri")];
    let (dialler, acceptor) = restricted.dial(&plain, None).await;
    dialler.unwrap();
    acceptor.unwrap();
    let (dialler, acceptor) = ends(plain.dial(&restricted, None).await).await;
    for (error, by_peer) in [(dialler, false), (acceptor, true)] {
        let refusal = Refusal::from_connection_error(&error);
        assert!(
            matches!(&refusal, Some(Refusal::BadCertificate { reason }) if reason.contains("InvalidPurpose")),
            "{refusal:?}"
        );
        assert_eq!(Refusal::by_peer(&error), by_peer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_alone_proves_nothing_without_its_key() {
    let client = Node::plain("uri");
    let mut config = client.tls.client.clone();
    let key = PrivateKey::from_pem(&text("uri.key")).unwrap();
    config.client_auth_cert_resolver = present(&chain("many"), &key);
    let (dialler, acceptor) = ends(client.dial_with(config, &Node::plain("dns")).await).await;
    for error in [dialler, acceptor] {
        let refusal = Refusal::from_connection_error(&error);
        assert!(matches!(refusal, Some(Refusal::BadCertificate { .. })), "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_to_new_connections_at_once_and_live_ones_are_checked_again() {
    #[expect(clippy::disallowed_methods, reason = "the handshake uses this clock as well")]
    let now = SystemTime::now();
    let [client, server] = [Node::plain("uri"), Node::plain("dns")];
    let (dialler, acceptor) = client.dial(&server, None).await;
    let (dialler, acceptor) = (dialler.unwrap(), acceptor.unwrap());
    assert_eq!(recheck(&acceptor, &ours(), now), Ok(vec![id("uri")]));
    assert_eq!(recheck(&dialler, &ours(), now), Ok(vec![id("dns")]));

    let reloaded = ours().with_denied([id("uri")]);
    let tls = TlsConfig::new(&identity("dns"), &reloaded);
    server.endpoint.set_server_config(Some(quinn::ServerConfig::with_crypto(tls.server())));
    // Were the session resumed, the certificate would not be looked at.
    assert_refused(client.dial(&server, None).await, &Refusal::Denied, By::Acceptor).await;

    assert_eq!(recheck(&acceptor, &reloaded, now), Err(Refusal::Denied));
    assert_eq!(recheck(&acceptor, stranger().trust(), now), Err(Refusal::UnknownCa));
    assert_eq!(recheck(&acceptor, &ours(), identity("uri").not_after() + DAY), Err(Refusal::Expired));
    // What is no longer accepted is closed with a code that names it.
    acceptor.close(CloseCode::Revoked.to_quic(), b"");
    let error = within_limit(dialler.closed()).await;
    assert_eq!(Refusal::from_connection_error(&error), Some(Refusal::Revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_certificate_does_not_carry_is_named_after_the_handshake_too() {
    let (dialler, acceptor) = Node::plain("uri").dial(&Node::plain("dns"), None).await;
    let (dialler, acceptor) = (dialler.unwrap(), acceptor.unwrap());
    let names = WrongName { expected: Some(id("edge-7")), found: peer_ids(&acceptor).unwrap() };
    acceptor.close(CloseCode::WrongName.to_quic(), names.to_string().as_bytes());
    let error = within_limit(dialler.closed()).await;
    let expected = Refusal::WrongName { expected: Some(id("edge-7")), found: vec![id("uri")] };
    assert_eq!(Refusal::from_connection_error(&error), Some(expected));
    assert!(Refusal::by_peer(&error));
}

#[test]
fn a_restarted_node_resets_the_connections_of_the_process_before() {
    // Two processes, one after the other, on one port. The first runs only while it is asked to, and then never again.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let start = || Node::on(socket.try_clone().unwrap(), &identity("dns"), &ours());
    let first = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let others = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();

    let before = first.block_on(async { start() });
    let address = before.address();
    let dialled = others.spawn(async move {
        let client = Node::plain("uri");
        (client.connecting(address, None).await.unwrap(), client)
    });
    let (accepted, (stale, _client)) = first.block_on(async {
        let accepted = within_limit(before.accepted()).await.unwrap();
        // The handshake is confirmed at both ends once this is acknowledged.
        let mut stream = accepted.open_uni().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.finish().unwrap();
        within_limit(stream.stopped()).await.unwrap();
        (accepted, within_limit(dialled).await.unwrap())
    });
    drop(first);

    let _after = others.block_on(async { start() });
    let error = others.block_on(async {
        // A packet that was still under way may have been answered already.
        if let Ok(mut stream) = stale.open_uni().await {
            let _ = stream.write_all(b"is anybody there?").await;
        }
        within_limit(stale.closed()).await
    });
    assert!(matches!(error, ConnectionError::Reset), "{error:?}");
    drop((accepted, before)); // until here they were only mute
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn ours() -> Trust {
    Trust::from_pem(&text("ca.crt")).unwrap()
}

/// Which end refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Dialler,
    Acceptor,
}

type Dialled = (Result<quinn::Connection, ConnectionError>, Result<quinn::Connection, ConnectionError>);

/// Asserts that both ends name the same reason, and agree on who refused.
async fn assert_refused(dialled: Dialled, refusal: &Refusal, by: By) {
    let (dialler, acceptor) = ends(dialled).await;
    assert_eq!(Refusal::from_connection_error(&dialler).as_ref(), Some(refusal), "at the dialler: {dialler}");
    assert_eq!(
        Refusal::from_connection_error(&acceptor).as_ref(),
        Some(refusal),
        "at the acceptor: {acceptor}"
    );
    assert_eq!(Refusal::by_peer(&dialler), by == By::Acceptor, "at the dialler: {dialler}");
    assert_eq!(Refusal::by_peer(&acceptor), by == By::Dialler, "at the acceptor: {acceptor}");
}

/// How each end of a connection that was refused ended: in the handshake, or, for the dialler, right after it.
async fn ends((dialler, acceptor): Dialled) -> (ConnectionError, ConnectionError) {
    let dialler = match dialler {
        Ok(connection) => within_limit(connection.closed()).await,
        Err(error) => error,
    };
    (dialler, acceptor.expect_err("the acceptor sees the end of the handshake last"))
}

/// Fails rather than hang.
async fn within_limit<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens, and soon")
}

struct Node {
    endpoint: Endpoint,
    tls: TlsConfig,
}

impl Node {
    /// A fixture that trusts its CA.
    fn plain(name: &str) -> Self {
        Self::new(&identity(name), &ours())
    }

    fn new(identity: &Identity, trust: &Trust) -> Self {
        Self::on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), identity, trust)
    }

    fn on(socket: UdpSocket, identity: &Identity, trust: &Trust) -> Self {
        let tls = TlsConfig::new(identity, trust);
        let server = quinn::ServerConfig::with_crypto(tls.server());
        let endpoint =
            Endpoint::new(endpoint_config(identity), Some(server), socket, Arc::new(quinn::TokioRuntime))
                .unwrap();
        Self { endpoint, tls }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn connecting(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
    ) -> Result<quinn::Connection, ConnectionError> {
        let config = quinn::ClientConfig::new(self.tls.client(expected));
        self.endpoint.connect_with(config, address, SERVER_NAME).unwrap().await
    }

    async fn accepted(&self) -> Result<quinn::Connection, ConnectionError> {
        self.endpoint.accept().await.expect("the endpoint is open").await
    }

    async fn dial(&self, server: &Self, expected: Option<NodeId>) -> Dialled {
        within_limit(async { tokio::join!(self.connecting(server.address(), expected), server.accepted()) })
            .await
    }

    /// Dials with a configuration that was tampered with.
    async fn dial_with(&self, config: rustls::ClientConfig, server: &Self) -> Dialled {
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let connecting = self.endpoint.connect_with(config, server.address(), SERVER_NAME).unwrap();
        within_limit(async { tokio::join!(connecting, server.accepted()) }).await
    }
}

fn present(chain: &[CertificateDer<'static>], key: &PrivateKey) -> Arc<dyn ResolvesClientCert> {
    let certified = CertifiedKey::new(chain.to_vec(), Arc::clone(key.signing()));
    Arc::new(SingleCertAndKey::from(certified))
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
