//! Certificate requests (PKCS#10, RFC 2986): a node's key stays on the node, and the CA signs its
//! public half.
//!
//! A request proves that its sender holds the key, and nothing else. Whoever signs it decides the
//! id, the roles and the validity: of the request only the key is taken, and a request that names
//! another node than the one it is signed for is rejected.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::files::{Access, Existing, FileError, Pem, write_atomically};
use super::identity::{IdentityError, IdentityFiles};
use super::key::{PrivateKey, to_pem};
use super::names::{common_name, distinct_ids, names_of, subject_alt_names};
use crate::id::NodeId;
use crate::transport::crypto::provider;

/// A request for a certificate, whose signature by its own key has been verified.
///
/// It is not confidential: it has the public key and the id that its sender asks for.
#[derive(Clone)]
pub struct CertificateRequest {
    origin: String,
    ids: Vec<NodeId>,
    pub(super) key: RequestedKey,
}

impl CertificateRequest {
    /// Maximum length of a request as PEM, in bytes.
    pub const MAX_LEN: usize = 16 * 1024;

    /// Writes the request `ID.csr` for a node's key to an existing directory, and returns the path.
    /// The key is `ID.key`; if it does not exist, a new one (ECDSA P-256, mode 0600) is generated.
    /// An older request is replaced.
    ///
    /// # Errors
    /// `ID.key` cannot be used, a file cannot be written, or the system has no randomness. A key
    /// that was generated before the error remains.
    pub fn create(dir: &Path, id: &NodeId) -> Result<PathBuf, RequestError> {
        let id = &id.base();
        let files = IdentityFiles::in_dir(dir, id)?;
        let key = match files.key.symlink_metadata() {
            Ok(_) => {
                let pem = Pem::read_key(&files.key)?;
                PrivateKey::from_pem(&pem.text)
                    .map_err(|problem| IdentityError::Key { origin: pem.origin, problem })?
            }
            Err(_) => {
                let key = PrivateKey::generate().ok_or(RequestError::NoRandomness)?;
                write_atomically(&files.key, &key.to_pem(), Access::Owner, Existing::Refuse)?;
                key
            }
        };
        let text = encode(id, &key)?;
        write_atomically(&files.request, &text, Access::Everyone, Existing::Replace)?;
        Ok(files.request)
    }

    /// Reads a request as PEM, and verifies its signature.
    ///
    /// # Errors
    /// It is too long, cannot be parsed, is for a key of a kind that nodes do not accept, or is not
    /// signed by that key.
    pub fn from_pem(text: &str) -> Result<Self, RequestError> {
        Self::parse(&Pem::given("request", text))
    }

    /// Like [`from_pem`](Self::from_pem), from a file.
    ///
    /// # Errors
    /// Like [`from_pem`](Self::from_pem); or the file cannot be read. The error names the file.
    pub fn read(path: &Path) -> Result<Self, RequestError> {
        Self::parse(&Pem::read(path)?)
    }

    fn parse(pem: &Pem) -> Result<Self, RequestError> {
        let rejected = |problem: &str| RequestError::Rejected {
            origin: pem.origin.clone(),
            problem: problem.to_owned(),
        };
        if pem.text.len() > Self::MAX_LEN {
            return Err(rejected("it is too long for a certificate request"));
        }
        if PrivateKeyDer::from_pem_slice(pem.text.as_bytes()).is_ok() {
            return Err(rejected("there is a private key in it, which has to stay on its node"));
        }
        // Not `CertReq::from_pem`: the PEM reader of `der` never returns if the DER ends early.
        let request = CertificateSigningRequestDer::from_pem_slice(pem.text.as_bytes())
            .ok()
            .and_then(|der| CertReq::from_der(&der).ok())
            .ok_or_else(|| rejected("it is not a certificate request (PEM, PKCS#10)"))?;
        let key = RequestedKey::of(&request.info).ok_or_else(|| {
            rejected("its key is not one of RSA (2048 to 4096 bits), ECDSA P-256 or P-384, Ed25519")
        })?;
        if !is_signed(&request, &key) {
            return Err(rejected("it is not signed by the key that it contains"));
        }
        let ids = ids_of(&request.info)
            .ok_or_else(|| rejected("its subject alternative names cannot be read"))?;
        Ok(Self { origin: pem.origin.clone(), ids, key })
    }

    /// The node ids that the request names; none if whoever signs it has to know.
    #[must_use]
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// Whether the request may be signed for this node.
    pub(super) fn check_is_for(&self, id: &NodeId) -> Result<(), RequestError> {
        match self.ids.iter().find(|named| *named != id) {
            Some(other) => Err(RequestError::OtherNode {
                origin: self.origin.clone(),
                named: other.clone(),
                id: id.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest")
            .field("origin", &self.origin)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

/// A certificate that was signed for a request. Its key is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCertificate {
    pub(super) pem: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl SignedCertificate {
    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it becomes valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Writes `ID.crt` into an existing directory, and returns the path.
    ///
    /// # Errors
    /// `ID.crt` exists, and is left unchanged; or it cannot be written.
    pub fn save(&self, dir: &Path, id: &NodeId) -> Result<PathBuf, RequestError> {
        let files = IdentityFiles::in_dir(dir, &id.base())?;
        match write_atomically(&files.certificate, &self.pem, Access::Everyone, Existing::Refuse) {
            Err(FileError::Exists { path }) => Err(RequestError::Exists { path }),
            other => Ok(other.map(|()| files.certificate)?),
        }
    }
}

/// The public key of a request: of one of the kinds that nodes accept.
#[derive(Clone)]
pub(super) struct RequestedKey {
    algorithm: &'static rcgen::SignatureAlgorithm,
    bits: Vec<u8>,
}

impl RequestedKey {
    /// `None` if it is of another kind.
    fn of(info: &CertReqInfo) -> Option<Self> {
        let bits = info.public_key.subject_public_key.as_bytes()?.to_vec();
        let der = info.public_key.to_der().ok()?;
        let kinds = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ];
        // The certificate will have exactly the key of the request, with its parameters.
        let keys = kinds.map(|algorithm| Self { algorithm, bits: bits.clone() });
        keys.into_iter().find(|key| key.subject_public_key_info() == der && key.is_in_bounds())
    }

    /// Keys of RSA that no node could use, or that would be expensive to verify, are rejected: up
    /// to 4,096 bits take 526 bytes with the exponent, and 2,048 take 270.
    fn is_in_bounds(&self) -> bool {
        self.algorithm != &rcgen::PKCS_RSA_SHA256 || (266..=530).contains(&self.bits.len())
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

fn encode(id: &NodeId, key: &PrivateKey) -> Result<String, RequestError> {
    let making = |error: rcgen::Error| RequestError::Making(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(id.as_str());
    params.subject_alt_names = subject_alt_names(id).map_err(making)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let request = params.serialize_request(key).map_err(making)?;
    Ok(to_pem("CERTIFICATE REQUEST", request.der()).to_string())
}

/// Whether the key of the request has signed it.
fn is_signed(request: &CertReq, key: &RequestedKey) -> bool {
    let signed = || {
        let message = request.info.to_der().ok()?;
        let signature = request.signature.as_bytes()?;
        let of_key = content(&request.info.public_key.algorithm)?;
        let of_signature = content(&request.algorithm)?;
        let known = provider().signature_verification_algorithms.all;
        let mut fitting = known.iter().filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == of_key
                && algorithm.signature_alg_id().as_ref() == of_signature
        });
        fitting
            .any(|algorithm| algorithm.verify_signature(&key.bits, &message, signature).is_ok())
            .then_some(())
    };
    signed().is_some()
}

/// The content of the SEQUENCE, as rustls compares it.
fn content(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    Some(AnyRef::from_der(&der).ok()?.value().to_vec())
}

/// The ids in the subject alternative names that the request asks for; `None` if it is damaged.
fn ids_of(info: &CertReqInfo) -> Option<Vec<NodeId>> {
    let mut names = Vec::new();
    for attribute in info.attributes.iter().filter(|attribute| attribute.oid == ExtensionReq::OID) {
        for value in attribute.values.iter() {
            let ExtensionReq(extensions) = ExtensionReq::from_der(&value.to_der().ok()?).ok()?;
            for extension in extensions.iter().filter(|it| it.extn_id == SubjectAltName::OID) {
                let value = extension.extn_value.as_bytes();
                let SubjectAltName(alternatives) = SubjectAltName::from_der(value).ok()?;
                names.extend(names_of(&alternatives));
            }
        }
    }
    Some(distinct_ids(&names))
}

/// Why a request is not made, not accepted or not signed. The caller's fault, or that of the files,
/// except [`NoRandomness`](Self::NoRandomness). No certificate was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key cannot be used, or the id is reserved.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate exists and is not overwritten.
    #[error("{} exists already; move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The request is not valid.
    #[error("{origin}: {problem}")]
    Rejected {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The request names another node.
    #[error("{origin} requests a certificate for {named}, not for {id}")]
    OtherNode {
        /// Where it came from.
        origin: String,
        /// The node that it names.
        named: NodeId,
        /// The node that it was to be signed for.
        id: NodeId,
    },
    /// The system has no randomness to generate a key from.
    #[error("the system gives no randomness")]
    NoRandomness,
    /// The request could not be made.
    #[error("the request cannot be made: {0}")]
    Making(String),
}

#[cfg(test)]
mod tests {
    use x509_cert::der::DecodePem as _;

    use super::*;
    use crate::transport::identity::testdata::{id, text};
    use crate::transport::{Authority, AuthorityError, Identity, roles_in_certificate};

    fn pem_of(node: &str, key: &str) -> String {
        encode(&id(node), &PrivateKey::from_pem(&text(key)).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_of_key_is_requested_and_signed_for_the_node_that_holds_it() {
        let authority = Authority::new("test", 10).unwrap();
        for key in ["othername.key", "uri.key", "dns.key", "p384.key"] {
            let request = CertificateRequest::from_pem(&pem_of("edge-1", key)).unwrap();
            assert_eq!(request.ids(), [id("edge-1")], "{key}");
            let signed = authority.sign(&request, &id("edge-1"), ["relay"], 5).unwrap();
            let roots = authority.certificate_pem();
            let identity = Identity::from_pem(signed.pem(), &text(key), &roots).unwrap();
            assert_eq!(identity.ids(), [id("edge-1")], "{key}");
            assert_eq!(identity.not_after(), signed.not_after());
            assert_eq!(identity.not_before(), signed.not_before());
            let own = &identity.certified().cert[0];
            assert!(roles_in_certificate(own).contains("relay"), "{key}");
        }
    }

    #[test]
    fn a_request_is_not_signed_for_another_node_or_with_what_is_out_of_bounds() {
        let authority = Authority::new("test", 10).unwrap();
        let request = CertificateRequest::from_pem(&pem_of("edge-1", "uri.key")).unwrap();
        let other = authority.sign(&request, &id("controller"), [], 5).unwrap_err();
        assert_eq!(
            other.to_string(),
            "the given request requests a certificate for edge-1, not for controller"
        );
        assert_eq!(
            authority.sign(&request, &id("edge-1"), [], 0),
            Err(AuthorityError::BadDays { days: 0 })
        );
        let bad = authority.sign(&request, &id("edge-1"), ["a b"], 5);
        assert!(matches!(bad, Err(AuthorityError::BadRole { .. })), "{bad:?}");
    }

    #[test]
    fn a_request_that_was_altered_anywhere_or_cut_is_rejected() {
        let pem = pem_of("edge-1", "uri.key");
        let der = CertReq::from_pem(&pem).unwrap().to_der().unwrap();
        for at in 0..der.len() {
            let mut altered = der.clone();
            altered[at] ^= 1;
            let altered = to_pem("CERTIFICATE REQUEST", &altered);
            assert!(CertificateRequest::from_pem(&altered).is_err(), "byte {at}");
            let cut = to_pem("CERTIFICATE REQUEST", &der[..at]);
            assert!(CertificateRequest::from_pem(&cut).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_request_with_the_key_of_another_is_rejected() {
        let mut request = CertReq::from_pem(pem_of("edge-1", "uri.key")).unwrap();
        let other =
            CertReq::from_pem(encode(&id("edge-1"), &PrivateKey::generate().unwrap()).unwrap());
        request.info.public_key = other.unwrap().info.public_key;
        let pem = to_pem("CERTIFICATE REQUEST", &request.to_der().unwrap());
        let error = CertificateRequest::from_pem(&pem).unwrap_err().to_string();
        assert_eq!(error, "the given request: it is not signed by the key that it contains");
    }

    #[test]
    fn what_is_no_request_says_why() {
        for (text, why) in [
            (String::new(), "not a certificate request"),
            (text("ca.crt"), "not a certificate request"),
            (pem_of("edge-1", "uri.key") + &text("uri.key"), "a private key in it"),
            ("x".repeat(CertificateRequest::MAX_LEN + 1), "too long"),
        ] {
            let error = CertificateRequest::from_pem(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn creating_again_keeps_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = CertificateRequest::create(dir.path(), &id("edge-1")).unwrap();
        let key = std::fs::read(dir.path().join("edge-1.key")).unwrap();
        let before = CertificateRequest::read(&path).unwrap();
        CertificateRequest::create(dir.path(), &id("edge-1")).unwrap();
        assert_eq!(std::fs::read(dir.path().join("edge-1.key")).unwrap(), key);
        assert_eq!(CertificateRequest::read(&path).unwrap().key.bits, before.key.bits);
        let reserved = CertificateRequest::create(dir.path(), &id("ca"));
        assert!(matches!(
            reserved,
            Err(RequestError::Identity(IdentityError::ReservedName { .. }))
        ));
    }
}
