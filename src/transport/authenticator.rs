//! Exported authenticators: prove a certificate on a connection whose handshake used another one.
//!
//! A node that renews its certificate proves the new one on every live connection, in the manner of
//! RFC 9261: it sends the chain with a signature over the connection's TLS exporter. No other node
//! can produce that signature, and it is worthless on any other connection. The connection is
//! judged by the newest certificate proven, so it outlives the earlier ones.

use std::fmt;

use bytes::Bytes;
use quinn::{Connection, Side};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use super::identity::Identity;
use super::identity::signature::{self, SignatureError, Signer};
use super::identity::verify::PeerRole;
use super::identity::verify::credential::{self, MAX_CREDENTIAL};

/// What every signed message begins with: a signature over an authenticator is one over nothing
/// else.
const CONTEXT: &[u8] = b"receptor-quic authenticator 1\0";
/// The label of the TLS exporter that ties an authenticator to its connection.
const EXPORTER: &[u8] = b"EXPORTER receptor-quic authenticator";

/// A certificate chain, and the proof that its owner is at one end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Authenticator {
    /// The chain as it travels.
    pub(crate) credential: Bytes,
    /// The scheme (`u16`), then the signature.
    pub(crate) signature: Bytes,
}

/// What an authenticator is signed for: one end of one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) exporter: [u8; 32],
    /// Which end signs.
    pub(crate) signer: PeerRole,
}

/// SHA-256 of a credential.
pub(crate) type CredentialHash = [u8; 32];

/// Why an authenticator proves nothing. Its sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum AuthenticatorError {
    #[error("the certificate chain of an authenticator could not be read")]
    Unreadable,
    #[error("the signature of an authenticator is wrong")]
    Forged,
    #[error("the signature scheme of an authenticator is unknown")]
    UnknownScheme,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Binding {
    /// What this end signs.
    pub(crate) fn own(connection: &Connection) -> Self {
        let signer = match connection.side() {
            Side::Client => PeerRole::Dialler,
            Side::Server => PeerRole::Acceptor,
        };
        Self::of(connection, signer)
    }

    /// What the other end signs.
    pub(crate) fn of_peer(connection: &Connection) -> Self {
        Self::of(connection, PeerRole::of_peer(connection))
    }

    fn of(connection: &Connection, signer: PeerRole) -> Self {
        let mut exporter = [0; 32];
        // It fails only before the handshake is complete, and a connection that is not complete
        // proves nothing.
        let _ = connection.export_keying_material(&mut exporter, EXPORTER, b"");
        Self { exporter, signer }
    }

    /// Tells the connections of one pair of nodes apart; the same at both ends.
    pub(crate) fn tag(&self) -> [u8; 8] {
        let hash: [u8; 32] = Sha256::digest(self.exporter).into();
        *hash.first_chunk().expect("a hash has 32 bytes")
    }

    fn message(&self, credential: &CredentialHash) -> Vec<u8> {
        let signer = match self.signer {
            PeerRole::Dialler => 0,
            PeerRole::Acceptor => 1,
        };
        [CONTEXT, &[signer], &self.exporter, credential].concat()
    }
}

impl Authenticator {
    /// The most bytes of a signature. One by RSA-4096 has 514.
    pub(crate) const MAX_SIGNATURE: usize = 1_024;

    /// Proves an identity; `None` if the system has no randomness to sign with.
    pub(crate) fn new(identity: &Identity, binding: &Binding) -> Option<Self> {
        let certified = identity.certified();
        Self::sign(credential::encode(&certified.cert), &Signer::new(&certified.key), binding)
    }

    pub(crate) fn sign(credential: Bytes, signer: &Signer, binding: &Binding) -> Option<Self> {
        let signature = signer.sign(&binding.message(&hash(&credential)))?;
        Some(Self { credential, signature })
    }

    pub(crate) fn hash(&self) -> CredentialHash {
        hash(&self.credential)
    }

    /// The chain, if its owner is at that end of that connection. Whether the chain is trusted is
    /// another question.
    pub(crate) fn verify(
        &self,
        binding: &Binding,
    ) -> Result<Vec<CertificateDer<'static>>, AuthenticatorError> {
        if self.credential.len() > MAX_CREDENTIAL || self.signature.len() > Self::MAX_SIGNATURE {
            return Err(AuthenticatorError::Unreadable);
        }
        let chain = credential::decode(&self.credential).ok_or(AuthenticatorError::Unreadable)?;
        let own = chain.first().and_then(|own| EndEntityCert::try_from(own).ok());
        let own = own.ok_or(AuthenticatorError::Unreadable)?;
        let message = binding.message(&self.hash());
        signature::verify(&own, &message, &self.signature).map_err(|error| match error {
            SignatureError::UnknownScheme => AuthenticatorError::UnknownScheme,
            SignatureError::Wrong => AuthenticatorError::Forged,
        })?;
        Ok(chain.into_iter().map(CertificateDer::into_owned).collect())
    }
}

/// The hash of the credential that an identity shows.
pub(crate) fn credential_hash(identity: &Identity) -> CredentialHash {
    hash(&credential::encode(&identity.certified().cert))
}

/// The hash of a chain that the other side showed.
pub(crate) fn chain_hash(chain: &[CertificateDer<'_>]) -> CredentialHash {
    hash(&credential::encode(chain))
}

fn hash(credential: &[u8]) -> CredentialHash {
    Sha256::digest(credential).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{chain, fixed_signer, identity};

    const BINDING: Binding = Binding { exporter: [7; 32], signer: PeerRole::Dialler };

    #[test]
    fn an_authenticator_proves_a_chain_at_one_end_of_one_connection() {
        for name in ["othername", "uri", "dns", "p384", "chained"] {
            let proof = Authenticator::new(&identity(name), &BINDING).unwrap();
            assert_eq!(proof.verify(&BINDING).unwrap(), chain(name), "{name}");
            for other in [
                Binding { exporter: [8; 32], ..BINDING },
                Binding { signer: PeerRole::Acceptor, ..BINDING },
            ] {
                assert_eq!(proof.verify(&other), Err(AuthenticatorError::Forged), "{name}");
            }
        }
    }

    #[test]
    fn a_chain_cannot_be_proven_with_the_key_of_another() {
        let genuine = Authenticator::new(&identity("uri"), &BINDING).unwrap();
        let other = Authenticator::new(&identity("dns"), &BINDING).unwrap();
        let mixed = Authenticator { credential: other.credential, ..genuine };
        assert!(mixed.verify(&BINDING).is_err());
    }

    #[test]
    fn junk_is_unreadable() {
        for credential in [vec![], vec![0xff; 40], vec![0x91, 0xc4, 0], vec![0; MAX_CREDENTIAL + 1]]
        {
            let junk = Authenticator {
                credential: credential.into(),
                signature: Bytes::from_static(b"junk"),
            };
            assert_eq!(junk.verify(&BINDING), Err(AuthenticatorError::Unreadable));
        }
    }

    #[test]
    fn the_signed_message_is_the_one_on_the_protocol_page() {
        let page = include_str!("../../docs/protocol.md");
        let proof =
            Authenticator::sign(Bytes::from_static(b"credential"), &fixed_signer(), &BINDING)
                .unwrap();
        let hex: String = proof.signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(page.contains(&hex), "not on the page: {hex}");
    }
}
