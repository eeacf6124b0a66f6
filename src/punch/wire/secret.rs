//! The secrets of a round and of a direct path.

use std::fmt;

/// The key that authenticates the probes of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProbeKey(pub [u8; 32]);

// A secret: it must not appear in logs.
impl fmt::Debug for ProbeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeKey(..)")
    }
}

/// Admits packets on a direct path. Drawn by the receiving node, once per peer connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathCookie(pub [u8; 8]);

// A secret: it must not appear in logs.
impl fmt::Debug for PathCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathCookie(..)")
    }
}
