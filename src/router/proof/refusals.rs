//! Records that this node has refused, by copy.

use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use lru::LruCache;
use uuid::Uuid;

use crate::router::proof::notary::Verdict;

/// Copies that were refused recently, so that none is verified twice.
///
/// A copy is a record with its proof. The bytes alone are predictable: an attacker could have them
/// refused before the genuine record arrives.
pub(in crate::router) struct Refusals(
    LruCache<Uuid, (Verdict, Instant), BuildHasherDefault<DefaultHasher>>,
);

impl Refusals {
    /// Maximum copies remembered.
    const MAX: usize = 4_096;

    /// How long a distrust is remembered. It may be due to a clock that is corrected later.
    const MEMORY: Duration = Duration::from_secs(60);

    pub(in crate::router) fn new() -> Self {
        Self(LruCache::unbounded_with_hasher(BuildHasherDefault::new()))
    }

    /// The verdict on this copy, if it still holds.
    pub(in crate::router) fn get(&mut self, copy: Uuid, now: Instant) -> Option<Verdict> {
        let &(verdict, at) = self.0.get(&copy)?;
        let holds = verdict == Verdict::Forged || now.saturating_duration_since(at) < Self::MEMORY;
        holds.then_some(verdict)
    }

    /// Remembers that a copy was refused.
    pub(in crate::router) fn insert(&mut self, copy: Uuid, verdict: Verdict, now: Instant) {
        // One that is refused again does not live longer for it.
        if self.get(copy, now).is_none() {
            self.0.put(copy, (verdict, now));
        }
        if self.0.len() > Self::MAX {
            self.0.pop_lru();
        }
    }

    pub(in crate::router) fn clear(&mut self) {
        self.0.clear();
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").field("len", &self.0.len()).finish()
    }
}
