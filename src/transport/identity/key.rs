//! A private key: read from PEM, used to sign, and never shown.

use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::SigningKey;
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use zeroize::{Zeroize as _, Zeroizing};

/// Why a private key is not accepted. The caller's fault; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no `PRIVATE KEY`, `EC PRIVATE KEY` or `RSA PRIVATE KEY` in the text, or it is
    /// damaged.
    #[error("there is no readable private key in it (PEM in PKCS#8, SEC1 or PKCS#1)")]
    NotFound,
    /// The key is protected by a password, which is not supported.
    #[error("the key is encrypted; decrypt it with: openssl pkey -in ENCRYPTED -out PLAIN")]
    Encrypted,
    /// The key is of a kind, a size or a curve that is not supported, or damaged inside.
    #[error("the key is not one of RSA (2048 to 4096 bits), ECDSA P-256 or P-384, Ed25519")]
    Unsupported,
}

/// A private key. Its encoded form is overwritten in memory when the last clone is dropped.
///
/// The signing key that rustls makes of it (ring's own form) is not: ring does not overwrite its
/// keys.
#[derive(Clone)]
pub(crate) struct PrivateKey {
    der: Arc<ZeroizingDer>,
    signing: Arc<dyn SigningKey>,
    /// The SubjectPublicKeyInfo, in DER.
    public: Arc<[u8]>,
}

struct ZeroizingDer(PrivateKeyDer<'static>);

impl Drop for ZeroizingDer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PrivateKey {
    /// Generates an ECDSA P-256 key; `None` if the system has no randomness.
    pub(crate) fn generate() -> Option<Self> {
        // rcgen keeps a copy of the encoded key, which is freed but not overwritten.
        let pair = rcgen::KeyPair::generate().ok()?;
        Self::from_der(PrivateKeyDer::Pkcs8(pair.serialize_der().into())).ok()
    }

    pub(crate) fn from_pem(text: &str) -> Result<Self, KeyError> {
        // PKCS#8 marks encryption in its label, the older forms in a header.
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        Self::from_der(
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotFound)?,
        )
    }

    fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let der = ZeroizingDer(der);
        let signing = rustls::crypto::ring::sign::any_supported_type(&der.0)
            .map_err(|_| KeyError::Unsupported)?;
        let public = signing.public_key().ok_or(KeyError::Unsupported)?.as_ref().into();
        Ok(Self { der: Arc::new(der), signing, public })
    }

    /// The key as PEM, in the form it was read in.
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        let label = match &self.der.0 {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        to_pem(label, self.der.0.secret_der())
    }

    pub(crate) fn signing(&self) -> &Arc<dyn SigningKey> {
        &self.signing
    }

    /// The SubjectPublicKeyInfo, in DER.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn belongs_to(&self, public: &SubjectPublicKeyInfoDer<'_>) -> bool {
        &*self.public == public.as_ref()
    }

    /// Derives a secret per `label`, deterministically from the key. It does not reveal the key.
    pub(crate) fn derive(&self, label: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((label.len() as u64).to_be_bytes());
        hash.update(label);
        hash.update(self.der.0.secret_der());
        hash.finalize().into()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.signing.algorithm())
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        SubjectPublicKeyInfoRef::from_der(&self.public)
            .ok()
            .and_then(|info| info.subject_public_key.as_bytes())
            .expect("rustls encoded it")
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.certificate_scheme().1
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signing
            .choose_scheme(&[self.certificate_scheme().0])
            .ok_or(rcgen::Error::UnsupportedSignatureAlgorithm)?
            .sign(message)
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl PrivateKey {
    /// How certificates are signed with it, for rustls and for rcgen.
    fn certificate_scheme(&self) -> (SignatureScheme, &'static rcgen::SignatureAlgorithm) {
        let schemes: [(SignatureScheme, &'static rcgen::SignatureAlgorithm); 3] = [
            (SignatureScheme::ECDSA_NISTP256_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
            (SignatureScheme::ED25519, &rcgen::PKCS_ED25519),
        ];
        schemes
            .into_iter()
            .find(|(scheme, _)| self.signing.choose_scheme(&[*scheme]).is_some())
            .unwrap_or((SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256))
    }
}

/// DER as PEM text.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    use x509_cert::der::pem::{LineEnding, encode_string, encoded_len};

    // The encoder allocates once: the length is known before.
    debug_assert!(encoded_len(label, LineEnding::LF, der).is_ok());
    Zeroizing::new(
        encode_string(label, LineEnding::LF, der)
            .expect("the labels are valid and the length is small"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::text;

    #[test]
    fn every_supported_form_is_read_and_written() {
        for (file, label) in [
            ("othername.key", "-----BEGIN RSA PRIVATE KEY-----"),
            ("uri.key", "-----BEGIN PRIVATE KEY-----"),
            ("dns.key", "-----BEGIN PRIVATE KEY-----"),
            ("p384.key", "-----BEGIN EC PRIVATE KEY-----"),
        ] {
            let key = PrivateKey::from_pem(&text(file)).unwrap();
            let pem = key.to_pem();
            assert!(pem.starts_with(label), "{file}");
            assert!(text(file).contains(pem.trim_end()), "{file}");
        }
    }

    #[test]
    fn what_is_not_a_usable_key_says_why() {
        assert_eq!(PrivateKey::from_pem("").err(), Some(KeyError::NotFound));
        assert_eq!(PrivateKey::from_pem(&text("ca.crt")).err(), Some(KeyError::NotFound));
        assert_eq!(PrivateKey::from_pem(&text("encrypted.key")).err(), Some(KeyError::Encrypted));
        let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n";
        assert_eq!(PrivateKey::from_pem(old).err(), Some(KeyError::Encrypted));
        let damaged = "-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(damaged).err(), Some(KeyError::Unsupported));
    }

    #[test]
    fn derived_secrets_depend_on_the_label_and_the_key() {
        let key = PrivateKey::from_pem(&text("uri.key")).unwrap();
        let other = PrivateKey::from_pem(&text("dns.key")).unwrap();
        assert_eq!(key.derive("a"), key.clone().derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), other.derive("a"));
    }
}
