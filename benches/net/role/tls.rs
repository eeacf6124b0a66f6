//! The TLS of the baseline: as this crate's, but rustls' own verifiers.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use receptor_quic::transport::bench;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;

use super::Settings;
use crate::Result;
use crate::certificates::{CERTIFICATE, KEY, ROOT};

pub(super) fn configs(settings: &Settings) -> Result<(QuicServerConfig, QuicClientConfig)> {
    let dir = settings.dir()?;
    let chain = vec![CertificateDer::from(std::fs::read(dir.join(CERTIFICATE))?)];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(std::fs::read(dir.join(KEY))?));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(dir.join(ROOT))?))?;
    let roots = Arc::new(roots);
    let provider = bench::provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![b"bench".to_vec()];
    server.send_tls13_tickets = 0;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"bench".to_vec()];
    client.resumption = Resumption::disabled();
    Ok((server.try_into()?, client.try_into()?))
}
