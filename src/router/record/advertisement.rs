//! A record as it travels: its bytes, and the unique id derived from them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::router::record::draft::Said;

/// A record as it travels: the encoded bytes, repeated from node to node untouched, and the unique
/// id derived from them.
///
/// Because the bytes are repeated as they are, fields that a node does not know yet reach those
/// that do. Cloning is cheap (a reference count), and so is reading a clone of one that was read:
/// routers in one process share records.
///
/// Beside the bytes travels their proof, see [`Proof`](crate::router::Proof), which the id does not
/// cover. It is empty where nothing is signed.
#[derive(Clone)]
pub struct Advertisement {
    content: Arc<Content>,
    proof: Bytes,
}

struct Content {
    id: Uuid,
    bytes: Bytes,
    /// What the bytes say, once they were read.
    said: OnceLock<Said>,
}

impl Advertisement {
    /// An advertisement of these bytes, which need not be a valid record.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let content = Content { id: head_of_hash(&bytes), bytes, said: OnceLock::new() };
        Self { content: Arc::new(content), proof: Bytes::new() }
    }

    /// The same with this proof, which need not be a valid one.
    #[must_use]
    pub fn with_proof(self, proof: Bytes) -> Self {
        Self { proof, ..self }
    }

    /// What the bytes say, if they were read, and well formed.
    pub(crate) fn said(&self) -> Option<&Said> {
        self.content.said.get()
    }

    /// Remembers what the bytes say, unless that is known.
    pub(crate) fn remember(&self, said: Said) {
        self.content.said.get_or_init(|| said);
    }

    /// The unique id: the first 128 bits of SHA-256 over origin, version and content, which is what
    /// the bytes are.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.content.id
    }

    /// The first four bytes of the id, which distinguish copies of one version in summaries.
    #[must_use]
    pub fn check(&self) -> u32 {
        (self.id().as_u128() >> 96) as u32
    }

    /// The same id, with a last byte that is not what it was.
    #[cfg(test)]
    pub(crate) fn corrupted(&self) -> Self {
        let mut bytes = self.bytes().to_vec();
        bytes.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
        let content = Content { id: self.id(), bytes: bytes.into(), said: OnceLock::new() };
        Self { content: Arc::new(content), proof: self.proof.clone() }
    }

    /// The encoded record.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.content.bytes
    }

    /// The proof that the bytes are of their origin, as on the wire; empty without one.
    #[must_use]
    pub fn proof(&self) -> &Bytes {
        &self.proof
    }

    /// Names bytes and proof together.
    pub(crate) fn copy_id(&self) -> Uuid {
        if self.proof.is_empty() {
            return self.id();
        }
        Uuid::from_u128(self.id().as_u128() ^ head_of_hash(&self.proof).as_u128())
    }
}

/// The first 128 bits of SHA-256.
fn head_of_hash(bytes: &[u8]) -> Uuid {
    let digest = Sha256::digest(bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(id)
}

impl PartialEq for Advertisement {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.content, &other.content);
        (same || (self.id() == other.id() && self.bytes() == other.bytes()))
            && self.proof == other.proof
    }
}

impl Eq for Advertisement {}

impl fmt::Debug for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Advertisement")
            .field("id", &self.id())
            .field("len", &self.bytes().len())
            .finish()
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
