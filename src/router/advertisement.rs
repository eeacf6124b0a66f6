//! A record as it travels: its bytes, and the unique id derived from them.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A record as it travels: the encoded bytes, repeated from node to node untouched, and the unique id derived from them.
///
/// Because the bytes are repeated as they are, fields that a node does not know yet reach those that do. Cloning is
/// cheap (a reference count).
///
/// Beside the bytes travels their proof, see [`Proof`](super::Proof), which the id does not cover. It is empty where nothing
/// is signed.
#[derive(Clone, PartialEq, Eq)]
pub struct Advertisement {
    id: Uuid,
    bytes: Bytes,
    proof: Bytes,
}

impl Advertisement {
    /// An advertisement of these bytes, which need not be a valid record.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let digest = Sha256::digest(&bytes);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self { id: Uuid::from_bytes(id), bytes, proof: Bytes::new() }
    }

    /// The same with this proof, which need not be a valid one.
    #[must_use]
    pub fn with_proof(self, proof: Bytes) -> Self {
        Self { proof, ..self }
    }

    /// The unique id: the first 128 bits of SHA-256 over origin, version and content, which is what the bytes are.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The first four bytes of the id: tells copies of one version apart in summaries.
    #[must_use]
    pub fn check(&self) -> u32 {
        (self.id.as_u128() >> 96) as u32
    }

    /// The same id, with a last byte that is not what it was.
    #[cfg(test)]
    pub(crate) fn corrupted(&self) -> Self {
        let mut bytes = self.bytes.to_vec();
        bytes.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
        Self { bytes: bytes.into(), ..self.clone() }
    }

    /// The encoded record.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The proof that the bytes are of their origin, as it travels; empty: none.
    #[must_use]
    pub fn proof(&self) -> &Bytes {
        &self.proof
    }

    /// Names bytes and proof together.
    pub(crate) fn copy_id(&self) -> Uuid {
        Uuid::from_u128(self.id.as_u128() ^ Self::new(self.proof.clone()).id.as_u128())
    }
}

impl fmt::Debug for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Advertisement").field("id", &self.id).field("len", &self.bytes.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_follows_from_the_bytes_alone() {
        let one = Advertisement::new(Bytes::from_static(b"abc"));
        assert_eq!(one, Advertisement::new(Bytes::from_static(b"abc")));
        // printf abc | sha256sum
        assert_eq!(one.id().as_simple().to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(one.check(), 0xba78_16bf);
    }
}
