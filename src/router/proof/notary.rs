//! Who signs this node's records, and who says whether those of others are genuine.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::id::NodeId;
use crate::router::proof::attachment::{Attachment, AttachmentVerdict};

/// Signs this node's records, and verifies those of others. The router knows no cryptography: a program hands it a notary in
/// [`Config::notary`](crate::router::Config::notary).
///
/// A record travels with a [`Proof`]: a signature over its bytes, and the name of the **credential** that the signature is
/// verified with. A credential is what ties a key to a node id, a certificate chain for one. The router fetches each from the
/// neighbour that sent the record, once per origin, and keeps it as long as the record.
///
/// Calls come from inside the router's own, one at a time, and must not block.
pub trait Notary: fmt::Debug + Send + Sync {
    /// This node's own credential: at most [`Proof::MAX_CREDENTIAL`] bytes, and the same at every call. A node whose
    /// credential changes gets another notary, see [`Router::set_notary`](crate::router::Router::set_notary).
    fn credential(&self) -> Bytes;

    /// A signature over this node's record, not empty and at most [`Proof::MAX_SIGNATURE`] bytes. None: the key cannot sign
    /// now; the router tries again a second later.
    fn sign(&self, record: &[u8]) -> Option<Bytes>;

    /// Whether `record` is of `origin`.
    ///
    /// `credential` is what [`Proof::credential`] names, if the router has it. Without it the answer is
    /// [`Verdict::NeedsCredential`] even where the notary could do without, because the neighbours will ask this node for it.
    /// (A notary without credentials, whose proofs need none, never gives that answer.)
    fn verify(&self, origin: &NodeId, record: &[u8], proof: &Proof, credential: Option<&[u8]>) -> Verdict;

    /// How long from now a credential that was found good remains valid, zero once it has expired;
    /// `None` if it does not expire. The router drops records with their credentials. By default
    /// none expires.
    fn remaining(&self, credential: &[u8]) -> Option<Duration> {
        let _ = credential;
        None
    }

    /// Whether paths may lead through a node whose record says that it carries transit. Asked about
    /// records that were found [valid](Verdict::Valid) with this credential; `None` if it is not
    /// known yet. Nodes that may not are ends of paths only.
    fn permits_transit(&self, _origin: &NodeId, _credential: Option<&[u8]>) -> bool {
        true
    }

    /// Whether the stub that `attachment` names has signed it, and for how long it holds. The
    /// credential is that of the stub's [base](NodeId::base). A signature over a record must never
    /// be valid for an attachment, nor vice versa.
    fn verify_attachment(&self, attachment: &Attachment) -> AttachmentVerdict;
}

/// What a [`Notary`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The record is of its origin.
    Valid,
    /// Nobody who verified it could have repeated it: whoever sent it is guilty, and loses the session.
    Forged,
    /// This node does not trust the credential; others may. The record is not taken, and its sender is not guilty.
    Untrusted(Distrust),
    /// The credential is wanted first.
    NeedsCredential,
}

/// Why a credential is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Distrust {
    /// It is genuine, and the signature too, but its time is over.
    Expired,
    /// It is genuine, and the signature too, but its time has not come: most likely a clock is wrong.
    NotYetValid,
    /// It is genuine, and the signature too, but it was revoked.
    Revoked,
    /// It is genuine, and the signature too, but this node was told not to let it in.
    Denied,
    /// Nobody that this node trusts has issued it.
    UnknownIssuer,
    /// It is not meant for nodes of a mesh.
    WrongUsage,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::Revoked => "it is revoked",
            Self::Denied => "it is denied",
            Self::UnknownIssuer => "no trusted CA has issued it",
            Self::WrongUsage => "it is not meant for this",
        })
    }
}

impl Distrust {
    /// Whether the record was signed by a key that a trusted issuer gave to its origin at some time.
    pub(crate) fn is_genuine(self) -> bool {
        match self {
            Self::Expired | Self::NotYetValid | Self::Revoked | Self::Denied => true,
            Self::UnknownIssuer | Self::WrongUsage => false,
        }
    }
}

/// What comes with a record: a signature over its bytes, and the name of the credential to verify it with.
///
/// On the wire it is one byte string: the name, then the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which credential the signature is verified with.
    pub credential: CredentialName,
    /// The signature; its form is the notary's business.
    pub signature: Bytes,
}

/// The name of a credential: the first 16 bytes of SHA-256 of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(pub [u8; Self::LEN]);

impl Proof {
    /// The most bytes of a proof on the wire. A signature by RSA-4096 has 512.
    pub const MAX: usize = 1024;

    /// The most bytes of a signature.
    pub const MAX_SIGNATURE: usize = Self::MAX - CredentialName::LEN;

    /// The most bytes of a credential. A chain of four certificates of RSA-4096 fits.
    pub const MAX_CREDENTIAL: usize = 8 * 1024;

    /// The proof as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        [&self.credential.0[..], &self.signature].concat().into()
    }

    /// Reads a proof. None: too short or too long to be one.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let (name, signature) = bytes.split_first_chunk()?;
        let fits = !signature.is_empty() && bytes.len() <= Self::MAX;
        fits.then(|| Self {
            credential: CredentialName(*name),
            signature: bytes.slice(CredentialName::LEN..),
        })
    }
}

impl CredentialName {
    /// The length of a name in bytes.
    pub const LEN: usize = 16;

    /// The name of this credential.
    #[must_use]
    pub fn of(credential: &[u8]) -> Self {
        let digest = Sha256::digest(credential);
        let mut name = [0; Self::LEN];
        name.copy_from_slice(&digest[..Self::LEN]);
        Self(name)
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for CredentialName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for CredentialName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let name = <[u8; Self::LEN]>::try_from(bytes.as_slice());
        name.map(Self).map_err(|_| D::Error::invalid_length(bytes.len(), &"16"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_survives_the_wire_and_nothing_else_is_one() {
        let proof =
            Proof { credential: CredentialName::of(b"abc"), signature: Bytes::from_static(b"signed") };
        assert_eq!(Proof::decode(&proof.encode()), Some(proof.clone()));
        // printf abc | sha256sum
        assert_eq!(format!("{:?}", proof.credential), "ba7816bf8f01cfea414140de5dae2223");
        for len in [0, 1, CredentialName::LEN, Proof::MAX + 1] {
            assert_eq!(Proof::decode(&vec![1; len].into()), None, "{len}");
        }
        for len in [CredentialName::LEN + 1, Proof::MAX] {
            assert!(Proof::decode(&vec![1; len].into()).is_some(), "{len}");
        }
    }
}
