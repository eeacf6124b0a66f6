//! Real endpoints on loopback, with certificates that OpenSSL made: who connects, and what both
//! ends learn if not.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use quinn::{ConnectionError, Endpoint};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;
use crate::transport::authenticator::{Authenticator, AuthenticatorError, Binding};
use crate::transport::clock;
use crate::transport::code::CloseCode;
use crate::transport::endpoint::reset::endpoint_config;
use crate::transport::identity::key::PrivateKey;
use crate::transport::identity::testdata::{chain, fixtures, id, identity, stranger, text};
use crate::transport::identity::verify::certificate_error::WrongName;
use crate::transport::refusal::{Refusal, RefusalReason, Refuser};
use crate::transport::standing::{Offered, Standing};
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
    assert_refused(
        client.dial(&Node::plain("uri"), None).await,
        &RefusalReason::UnknownCa,
        By::Acceptor,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_the_dialler_does_not_know_is_named_at_both_ends() {
    let server = Node::new(&stranger(), &ours());
    assert_refused(
        Node::plain("uri").dial(&server, None).await,
        &RefusalReason::UnknownCa,
        By::Dialler,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_out_of_their_time_are_told_apart_at_both_ends() {
    for (name, refusal) in
        [("expired", RefusalReason::Expired), ("future", RefusalReason::NotYetValid)]
    {
        assert_refused(
            Node::plain(name).dial(&Node::plain("uri"), None).await,
            &refusal,
            By::Acceptor,
        )
        .await;
        assert_refused(
            Node::plain("uri").dial(&Node::plain(name), None).await,
            &refusal,
            By::Dialler,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_not_expected_is_named_at_both_ends() {
    let dialled = Node::plain("uri").dial(&Node::plain("many"), Some(id("edge-7"))).await;
    let refusal = RefusalReason::WrongName {
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
    let refusal = RefusalReason::WrongName { expected: None, found: Vec::new() };
    assert_refused(client.dial_with(config, &Node::plain("dns")).await, &refusal, By::Acceptor)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialler_without_a_certificate_is_told_so() {
    let client = Node::plain("uri");
    let mut config = client.tls.client.clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let dialled = client.dial_with(config, &Node::plain("dns")).await;
    assert_refused(dialled, &RefusalReason::NoClientCertificate, By::Acceptor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_protocol_or_none_is_named_at_both_ends() {
    for protocols in [vec![b"h3".to_vec()], vec![b"receptor-quic/2".to_vec()], Vec::new()] {
        let client = Node::plain("uri");
        let mut config = client.tls.client.clone();
        config.alpn_protocols = protocols;
        let dialled = client.dial_with(config, &Node::plain("dns")).await;
        assert_refused(dialled, &RefusalReason::WrongAlpn, By::Acceptor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_of_either_side_deny_and_both_ends_know() {
    type Refuse = fn(Trust) -> Trust;
    let refusing: [(Refuse, RefusalReason); 3] = [
        (|trust| trust.with_denied([id("uri"), id("dns")]), RefusalReason::Denied),
        (|trust| trust.with_allowed([id("p384")]), RefusalReason::Denied),
        (|trust| trust.with_pins([Fingerprint([0; 32])]), RefusalReason::NotPinned),
    ];
    for (refuse, why) in refusing {
        let strict = |name| Node::new(&identity(name), &refuse(ours()));
        assert_refused(Node::plain("uri").dial(&strict("dns"), None).await, &why, By::Acceptor)
            .await;
        assert_refused(strict("uri").dial(&Node::plain("dns"), None).await, &why, By::Dialler)
            .await;
    }
    let pin = identity("uri").key_fingerprint();
    let open = ours().with_denied([id("p384")]).with_allowed([id("uri")]).with_pins([pin]);
    let (dialler, acceptor) =
        Node::plain("uri").dial(&Node::new(&identity("dns"), &open), None).await;
    dialler.unwrap();
    acceptor.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_named_at_both_ends_and_others_go_on() {
    // The other mesh's CA has the same name and no revocation list: the list of ours does not speak
    // for it.
    let trust = Trust::from_pem(&(text("ca.crt") + &text("stranger/ca.crt"))).unwrap();
    let listed = trust.with_crls(&text("crl.pem")).unwrap();
    let strict = |name| Node::new(&identity(name), &listed);
    let revoked = Node::plain("revoked");
    assert_refused(revoked.dial(&strict("dns"), None).await, &RefusalReason::Revoked, By::Acceptor)
        .await;
    assert_refused(strict("uri").dial(&revoked, None).await, &RefusalReason::Revoked, By::Dialler)
        .await;
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
        assert_eq!(reason(&error), Some(RefusalReason::WrongPurpose));
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
        let reason = reason(&error);
        assert!(matches!(reason, Some(RefusalReason::BadCertificate { .. })), "{reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_to_new_connections_at_once_and_live_ones_are_judged_again() {
    let now = clock::system();
    let [client, server] = [Node::plain("uri"), Node::plain("dns")];
    let (dialler, acceptor) = client.dial(&server, None).await;
    let (dialler, acceptor) = (dialler.unwrap(), acceptor.unwrap());
    let [mut dialled, mut accepted] =
        [(&dialler, "dns"), (&acceptor, "uri")].map(|(connection, peer)| {
            Standing::new(id(peer), Binding::of_peer(connection), peer_certificates(connection))
        });
    assert!(accepted.judge(&ours(), now).is_ok() && dialled.judge(&ours(), now).is_ok());

    let reloaded = ours().with_denied([id("uri")]);
    let tls = TlsConfig::new(&identity("dns"), &reloaded);
    server.endpoint.set_server_config(Some(quinn::ServerConfig::with_crypto(tls.server())));
    // Were the session resumed, the certificate would not be looked at.
    assert_refused(client.dial(&server, None).await, &RefusalReason::Denied, By::Acceptor).await;

    let mut refused = |trust: &Trust, at| accepted.judge(trust, at).unwrap_err();
    assert_eq!(refused(&reloaded, now).reason, RefusalReason::Denied);
    assert_eq!(refused(stranger().trust(), now).reason, RefusalReason::UnknownCa);
    let expired = refused(&ours(), identity("uri").not_after() + DAY);
    assert_eq!(expired.reason, RefusalReason::Expired);
    // What is no longer accepted is closed with a code that names the reason.
    acceptor.close(expired.close_code().to_quic(), b"");
    let error = within_limit(dialler.closed()).await;
    let refusal = Refusal::from_connection_error(&error).unwrap();
    assert_eq!((refusal.reason.clone(), refusal.by), (RefusalReason::Expired, Refuser::OtherNode));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proven_on_a_live_connection_takes_the_place_of_the_first() {
    let [client, server] = [Node::plain("uri"), Node::plain("dns")];
    let (dialler, acceptor) = client.dial(&server, None).await;
    let (dialler, acceptor) = (dialler.unwrap(), acceptor.unwrap());
    let now = clock::system();
    let tick = |n: u64| tokio::time::Instant::now().into_std() + Duration::from_secs(2 * n);
    let other = Authority::new("other", 1).unwrap();
    let renewed = other.issue(&id("uri"), 1).unwrap();
    let both = Trust::from_pem(&(ours().roots_pem() + &other.certificate_pem())).unwrap();
    let proof = Authenticator::new(&renewed, &Binding::own(&dialler)).unwrap();

    let binding = Binding::of_peer(&acceptor);
    let mut standing = Standing::new(id("uri"), binding, peer_certificates(&acceptor));
    // Its issuer is not trusted yet: it is kept.
    assert_eq!(standing.offer(proof.clone(), &ours(), now, tick(0)), Ok(Offered::Kept));
    assert_eq!(
        standing.judge(&other.trust(), now).map_err(|why| why.reason.clone()),
        Ok(good_until(&renewed))
    );
    // From now on the issuer of the first one is not needed.
    assert_eq!(standing.offer(proof, &both, now, tick(1)), Ok(Offered::Known));
    assert_eq!(standing.judge(&ours(), now).unwrap_err().reason, RefusalReason::UnknownCa);

    // Nor does a certificate for another id count, nor a proof from another connection or end.
    let mallory = Authenticator::new(&other.issue(&id("mallory"), 1).unwrap(), &binding).unwrap();
    assert_eq!(standing.offer(mallory, &both, now, tick(2)), Ok(Offered::Kept));
    let again = other.issue(&id("uri"), 1).unwrap();
    let reflected = Authenticator::new(&again, &Binding::own(&acceptor)).unwrap();
    assert_eq!(standing.offer(reflected, &both, now, tick(3)), Err(AuthenticatorError::Forged));
    // Two at once: the second waits.
    let [first, second] = [(); 2].map(|()| {
        Authenticator::new(&other.issue(&id("uri"), 1).unwrap(), &Binding::own(&dialler)).unwrap()
    });
    assert_eq!(standing.offer(first, &both, now, tick(4)), Ok(Offered::Accepted));
    assert_eq!(standing.offer(second, &both, now, tick(4)), Ok(Offered::Early));
    assert!(!standing.may_judge(tick(4)) && standing.may_judge(tick(5)));
    assert_eq!(standing.judge_pending(&both, now), Ok(Offered::Accepted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_certificate_does_not_carry_is_named_after_the_handshake_too() {
    let (dialler, acceptor) = Node::plain("uri").dial(&Node::plain("dns"), None).await;
    let (dialler, acceptor) = (dialler.unwrap(), acceptor.unwrap());
    let names = WrongName { expected: Some(id("edge-7")), found: peer_ids(&acceptor).unwrap() };
    acceptor.close(CloseCode::WrongName.to_quic(), names.to_string().as_bytes());
    let error = within_limit(dialler.closed()).await;
    let expected =
        RefusalReason::WrongName { expected: Some(id("edge-7")), found: vec![id("uri")] };
    assert_eq!(reason(&error), Some(expected));
    assert!(Refusal::by_peer(&error));
}

#[test]
fn a_restarted_node_resets_the_connections_of_the_process_before() {
    // Two processes, one after the other, on one port. The first runs only while it is asked to,
    // and then never again.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let start = || Node::on(socket.try_clone().unwrap(), &identity("dns"), &ours());
    let first = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let others =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();

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

fn good_until(identity: &Identity) -> u64 {
    identity.not_after().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
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

type Dialled =
    (Result<quinn::Connection, ConnectionError>, Result<quinn::Connection, ConnectionError>);

/// Asserts that both ends name the same reason, and agree on who refused.
async fn assert_refused(dialled: Dialled, refusal: &RefusalReason, by: By) {
    let (dialler, acceptor) = ends(dialled).await;
    assert_eq!(reason(&dialler).as_ref(), Some(refusal), "at the dialler: {dialler}");
    assert_eq!(reason(&acceptor).as_ref(), Some(refusal), "at the acceptor: {acceptor}");
    assert_eq!(Refusal::by_peer(&dialler), by == By::Acceptor, "at the dialler: {dialler}");
    assert_eq!(Refusal::by_peer(&acceptor), by == By::Dialler, "at the acceptor: {acceptor}");
}

fn reason(error: &ConnectionError) -> Option<RefusalReason> {
    Refusal::from_connection_error(error).map(|refusal| refusal.reason.clone())
}

/// How each end of a connection that was refused ended: in the handshake, or, for the dialler,
/// right after it.
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
        let endpoint = Endpoint::new(
            endpoint_config(identity).0,
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
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
        within_limit(async {
            tokio::join!(self.connecting(server.address(), expected), server.accepted())
        })
        .await
    }

    /// Dials with a configuration that was tampered with.
    async fn dial_with(&self, config: rustls::ClientConfig, server: &Self) -> Dialled {
        let config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
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
