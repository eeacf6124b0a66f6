//! The TLS of every connection: version 1.3, both sides authenticated, one application protocol, no
//! resumption.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;

use crate::id::NodeId;
use crate::transport::clock::WallClock;
use crate::transport::crypto::provider;
use crate::transport::identity::Identity;
use crate::transport::identity::Trust;
use crate::transport::identity::names::{NamesError, ids_in_certificate};
use crate::transport::identity::presented::Sighting;
use crate::transport::identity::verify::PeerVerifier;

/// The application protocol of links and peer connections.
pub(crate) const ALPN: &[u8] = b"receptor-quic/1";

/// What a dialler gives quinn as the name of the server. It means nothing: nodes are known by the
/// ids in their certificates, and the name is not sent.
pub(crate) const SERVER_NAME: &str = "receptor";

/// What follows the suffix of an ephemeral's id in the server name that it sends on peer
/// connections.
const SUFFIX_DOMAIN: &str = ".ephemeral.receptor";

/// The server name by which an ephemeral reports the suffix of its id to a peer, which sees its
/// address and certificate only. Without a suffix, one that is not sent.
pub(crate) fn server_name(suffix: Option<&str>) -> String {
    suffix.map_or_else(|| SERVER_NAME.to_owned(), |suffix| format!("{suffix}{SUFFIX_DOMAIN}"))
}

/// The suffix that the dialler of a connection has reported. Its claim: what it claims must fit its
/// address.
pub(crate) fn peer_suffix(connection: &quinn::Connection) -> Option<String> {
    let data =
        connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.server_name?.strip_suffix(SUFFIX_DOMAIN).map(str::to_owned)
}

/// The TLS configurations of one identity under one trust. A reload makes a new one; live
/// connections keep theirs.
#[derive(Clone)]
pub(crate) struct TlsConfig {
    server: Arc<QuicServerConfig>,
    client: rustls::ClientConfig,
    resolver: Arc<SingleCertAndKey>,
    trust: Trust,
}

impl TlsConfig {
    /// Certificates are accepted by `trust`, which may be stricter than the roots that the identity
    /// was loaded with.
    pub(crate) fn new(identity: &Identity, trust: &Trust) -> Self {
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified())));
        Self {
            server: Arc::new(server(&resolver, trust, &Sighting::default())),
            client: client(&resolver, trust),
            resolver,
            trust: trust.clone(),
        }
    }

    /// For [`quinn::ServerConfig::with_crypto`]; to be replaced on the endpoint at a reload.
    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.server)
    }

    /// As [`server`](Self::server), for one attempt, whose refused certificate goes to `sighting`.
    pub(crate) fn server_reporting(&self, sighting: &Sighting) -> Arc<QuicServerConfig> {
        Arc::new(server(&self.resolver, &self.trust, sighting))
    }

    /// For [`quinn::ClientConfig::new`]. With `expected`, a certificate without that id is refused.
    #[cfg(test)]
    pub(crate) fn client(&self, expected: Option<NodeId>) -> Arc<QuicClientConfig> {
        self.client_reporting(expected, &Sighting::default())
    }

    /// For one dial, whose refused certificate goes to `sighting`. With `expected`, a certificate
    /// without that id is refused.
    ///
    /// All but the verifier is shared between dials.
    pub(crate) fn client_reporting(
        &self,
        expected: Option<NodeId>,
        sighting: &Sighting,
    ) -> Arc<QuicClientConfig> {
        self.client_of(self.client.clone(), expected, sighting)
    }

    /// As [`client_reporting`](Self::client_reporting), and sends the [server name](server_name).
    pub(crate) fn client_naming(
        &self,
        expected: Option<NodeId>,
        sighting: &Sighting,
    ) -> Arc<QuicClientConfig> {
        let mut config = self.client.clone();
        config.enable_sni = true;
        self.client_of(config, expected, sighting)
    }

    fn client_of(
        &self,
        mut config: rustls::ClientConfig,
        expected: Option<NodeId>,
        sighting: &Sighting,
    ) -> Arc<QuicClientConfig> {
        let verifier = PeerVerifier::new(self.trust.clone(), expected).reporting(sighting);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(
            QuicClientConfig::try_from(config)
                .expect("the provider has the cipher suite that QUIC starts with"),
        )
    }
}

/// The certificates of the other side of a connection, its own first. Empty only before the
/// handshake is over.
pub(crate) fn peer_certificates(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|any| any.downcast().ok())
        .map_or_else(Vec::new, |certificates| *certificates)
}

/// The ids in the peer's certificate.
///
/// # Errors
/// The handshake is not complete.
pub(crate) fn peer_ids(connection: &quinn::Connection) -> Result<Vec<NodeId>, NamesError> {
    let certificates = peer_certificates(connection);
    ids_in_certificate(certificates.first().ok_or(NamesError::NoNodeId)?)
}

const PROVIDER_HAS_TLS13: &str = "the provider has cipher suites of TLS 1.3";

fn server(
    resolver: &Arc<SingleCertAndKey>,
    trust: &Trust,
    sighting: &Sighting,
) -> QuicServerConfig {
    let verifier = PeerVerifier::new(trust.clone(), None).reporting(sighting);
    let mut config =
        rustls::ServerConfig::builder_with_details(Arc::clone(provider()), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect(PROVIDER_HAS_TLS13)
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(resolver) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption: a resumed session does not verify the certificate again, so that a revocation,
    // denial or renewal since would be missed. No early data either, which can be replayed.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // The default allocates room for 256 sessions, for each connection that is accepted.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    QuicServerConfig::try_from(config)
        .expect("the provider has the cipher suite that QUIC starts with")
}

fn client(resolver: &Arc<SingleCertAndKey>, trust: &Trust) -> rustls::ClientConfig {
    let verifier = PeerVerifier::new(trust.clone(), None);
    let mut config =
        rustls::ClientConfig::builder_with_details(Arc::clone(provider()), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect(PROVIDER_HAS_TLS13)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(resolver) as Arc<dyn ResolvesClientCert>);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No resumption, for the same reason as on the server.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // SNI would disclose on the path which node is dialled.
    config.enable_sni = false;
    config
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").field("trust", &self.trust).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
