//! What travels with a record to prove whose it is, and why that may not be believed.

use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a credential is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Distrust {
    /// It is genuine, and the signature too, but its time is over.
    Expired,
    /// It is genuine, and the signature too, but its time has not come: most likely a clock is
    /// wrong.
    NotYetValid,
    /// It is genuine, and the signature too, but it was revoked.
    Revoked,
    /// It is genuine, and the signature too, but it is excluded by this node's configuration.
    Denied,
    /// It was not issued by a CA that this node trusts.
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
    /// Whether the record was signed by a key that a trusted issuer gave to its origin at some
    /// time.
    pub(crate) fn is_genuine(self) -> bool {
        match self {
            Self::Expired | Self::NotYetValid | Self::Revoked | Self::Denied => true,
            Self::UnknownIssuer | Self::WrongUsage => false,
        }
    }
}

/// What comes with a record: a signature over its bytes, and the name of the credential to verify
/// it with.
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
        let proof = Proof {
            credential: CredentialName::of(b"abc"),
            signature: Bytes::from_static(b"signed"),
        };
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
