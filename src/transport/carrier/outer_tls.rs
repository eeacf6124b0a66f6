//! The TLS around a carrier's frames. It authenticates nobody: the QUIC connection inside does.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;

use super::ALPN;
use crate::transport::Identity;
use crate::transport::clock::WallClock;
use crate::transport::crypto::provider;

const PROVIDER_HAS_TLS13: &str = "the provider has cipher suites of TLS 1.3";

/// For connections to other nodes.
pub(super) fn client() -> Arc<rustls::ClientConfig> {
    let mut config =
        rustls::ClientConfig::builder_with_details(Arc::clone(provider()), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect(PROVIDER_HAS_TLS13)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For connections from other nodes, with the certificate of the mesh.
pub(super) fn server(identity: &Identity) -> Arc<rustls::ServerConfig> {
    let mut config =
        rustls::ServerConfig::builder_with_details(Arc::clone(provider()), Arc::new(WallClock))
            .with_protocol_versions(&[&TLS13])
            .expect(PROVIDER_HAS_TLS13)
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified()))));
    // A browser or a scanner is told that there is nothing.
    config.alpn_protocols = vec![ALPN.to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// Accepts any certificate. A carrier may lead through a proxy that terminates TLS with one of its
/// own, and the packets inside are sealed all the same.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is configured".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
