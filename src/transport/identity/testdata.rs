//! The OpenSSL-made certificates in `certs/fixtures`, for the tests of this module.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::id::NodeId;
use crate::transport::Identity;
use crate::transport::identity::key::PrivateKey;
use crate::transport::identity::signature::Signer;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/fixtures")
}

pub(crate) fn text(file: &str) -> String {
    std::fs::read_to_string(fixtures().join(file)).unwrap()
}

pub(crate) fn id(text: &str) -> NodeId {
    NodeId::try_from(text).unwrap()
}

/// The identity of a fixture whose name is also its id.
pub(crate) fn identity(name: &str) -> Identity {
    Identity::load(&fixtures(), &id(name)).unwrap()
}

/// The node of the other mesh.
pub(crate) fn stranger() -> Identity {
    Identity::load(&fixtures().join("stranger"), &id("stranger")).unwrap()
}

/// Signs with the Ed25519 key of RFC 8032, section 7.1, test 1: always alike.
pub(crate) fn fixed_signer() -> Signer {
    let pem = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    Signer::new(PrivateKey::from_pem(pem).unwrap().signing())
}

/// The certificates of a fixture.
pub(crate) fn chain(name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text(&format!("{name}.crt")).as_bytes())
        .map(Result::unwrap)
        .collect()
}

/// The first certificate of a fixture, in DER.
pub(crate) fn certificate(name: &str) -> Vec<u8> {
    chain(name)[0].to_vec()
}
