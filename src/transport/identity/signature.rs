//! Signatures by the key of a certificate, outside of TLS.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use webpki::EndEntityCert;

use crate::transport::crypto::provider;

/// One scheme per kind of key, with its number in TLS 1.3. Without a choice there is no downgrade.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// Signs with the key of an identity. `Debug` shows the scheme, never the key.
pub(crate) struct Signer(Box<dyn rustls::sign::Signer>);

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureError {
    /// A later version may know the scheme.
    UnknownScheme,
    /// The certificate's key has not signed this.
    Wrong,
}

impl Signer {
    pub(crate) fn new(key: &Arc<dyn SigningKey>) -> Self {
        Self(
            key.choose_scheme(&SCHEMES)
                .expect("there is a scheme for each kind of key that is taken"),
        )
    }

    /// Returns the number of the scheme (`u16`) followed by the signature; `None` if the system has
    /// no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Bytes> {
        let signature = self.0.sign(message).ok()?;
        Some([&u16::from(self.0.scheme()).to_be_bytes()[..], &signature].concat().into())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({:?})", self.0.scheme())
    }
}

/// Whether the key of this certificate signed the message.
pub(crate) fn verify(
    certificate: &EndEntityCert<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let (scheme, signature) = signature.split_first_chunk().ok_or(SignatureError::Wrong)?;
    let scheme = SignatureScheme::from(u16::from_be_bytes(*scheme));
    if !SCHEMES.contains(&scheme) {
        return Err(SignatureError::UnknownScheme);
    }
    let known = provider().signature_verification_algorithms.mapping;
    // Of several algorithms the first is that of TLS 1.3, where the curve belongs to the scheme.
    let algorithm =
        known.iter().find(|(of, _)| *of == scheme).and_then(|(_, algorithms)| algorithms.first());
    let algorithm = algorithm.ok_or(SignatureError::UnknownScheme)?;
    certificate.verify_signature(*algorithm, message, signature).map_err(|_| SignatureError::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{chain, identity};

    /// The fixtures by their kinds of key, and what each signs with.
    const KINDS: [(&str, SignatureScheme); 4] = [
        ("dns", SignatureScheme::ED25519),
        ("uri", SignatureScheme::ECDSA_NISTP256_SHA256),
        ("p384", SignatureScheme::ECDSA_NISTP384_SHA384),
        ("othername", SignatureScheme::RSA_PSS_SHA256),
    ];

    #[test]
    fn every_kind_of_key_signs_with_its_own_scheme_and_its_certificate_alone_verifies() {
        for (name, scheme) in KINDS {
            let signature = sign(name, b"message");
            assert_eq!(signature[..2], u16::from(scheme).to_be_bytes(), "{name}");
            for (other, _) in KINDS {
                let expected = if other == name { Ok(()) } else { Err(SignatureError::Wrong) };
                assert_eq!(verified(other, b"message", &signature), expected, "{name} by {other}");
            }
            assert_eq!(
                verified(name, b"massage", &signature),
                Err(SignatureError::Wrong),
                "{name}"
            );
        }
    }

    #[test]
    fn a_signature_that_was_cut_or_altered_anywhere_is_wrong_or_of_no_known_scheme() {
        for (name, _) in KINDS {
            let signature = sign(name, b"message");
            for len in 0..signature.len() {
                assert_eq!(
                    verified(name, b"message", &signature[..len]),
                    Err(SignatureError::Wrong),
                    "{name} {len}"
                );
            }
            for at in 0..signature.len() {
                let mut altered = signature.to_vec();
                altered[at] ^= 0x11;
                assert!(verified(name, b"message", &altered).is_err(), "{name} {at}");
            }
        }
    }

    #[test]
    fn schemes_that_no_key_signs_with_are_unknown() {
        let signature = sign("othername", b"message");
        let schemes = [
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::ED448,
        ];
        for scheme in schemes {
            let renamed = [&u16::from(scheme).to_be_bytes()[..], &signature[2..]].concat();
            assert_eq!(
                verified("othername", b"message", &renamed),
                Err(SignatureError::UnknownScheme)
            );
        }
    }

    #[test]
    fn a_signer_does_not_show_its_key() {
        assert_eq!(
            format!("{:?}", Signer::new(&identity("dns").certified().key)),
            "Signer(ED25519)"
        );
    }

    fn sign(name: &str, message: &[u8]) -> Bytes {
        Signer::new(&identity(name).certified().key).sign(message).unwrap()
    }

    fn verified(name: &str, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let chain = chain(name);
        verify(&EndEntityCert::try_from(&chain[0]).unwrap(), message, signature)
    }
}
