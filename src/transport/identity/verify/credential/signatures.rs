//! A cache of valid signatures, so that copies of a record are not verified again.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use crate::sync::lock;
use crate::transport::identity::verify::chain::Name;

/// What a signature is remembered by: a collision-free hash of chain, message and signature.
type Key = [u8; 32];

/// Recently verified valid signatures; invalid ones are not remembered. Each is kept for its
/// copies, which other neighbours send within seconds.
pub(super) struct Signatures(Mutex<LruCache<Key, (), BuildHasherDefault<DefaultHasher>>>);

impl Signatures {
    /// Maximum number of signatures that are remembered, about 400 kB: the records of a mesh of
    /// 4,096 nodes may arrive over each link before the first of them is used.
    const MAX: usize = 4_096;

    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::unbounded_with_hasher(BuildHasherDefault::new())))
    }

    pub(super) fn key(chain: Name, message: &[u8], signature: &[u8]) -> Key {
        let mut hash = Sha256::new_with_prefix(chain);
        // Fixed lengths first, so that no two inputs are hashed as the same bytes.
        hash.update((signature.len() as u64).to_be_bytes());
        hash.update(signature);
        hash.update(message);
        hash.finalize().into()
    }

    pub(super) fn insert(&self, key: Key) {
        let mut known = self.known();
        known.put(key, ());
        if known.len() > Self::MAX {
            known.pop_lru();
        }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.known().get(key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> MutexGuard<'_, LruCache<Key, (), BuildHasherDefault<DefaultHasher>>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_each_part_from_the_others() {
        let key = |chain, message: &str, signature: &str| {
            Signatures::key([chain; 16], message.as_bytes(), signature.as_bytes())
        };
        let keys = [key(1, "ab", "c"), key(2, "ab", "c"), key(1, "a", "bc"), key(1, "b", "ca")];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{at}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let signatures = Signatures::new();
        for nth in 0..2 * Signatures::MAX as u64 {
            signatures.insert(Signatures::key([0; 16], &nth.to_be_bytes(), b""));
        }
        assert_eq!(signatures.len(), Signatures::MAX);
        assert!(!signatures.contains(&Signatures::key([0; 16], &0_u64.to_be_bytes(), b"")));
    }
}
