//! The number of a link, and what the link is used for.

use std::time::Instant;

/// Identifies a link within the process; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct LinkId(pub(crate) u64);

/// What a link is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Connected; the end with the smaller id has not chosen it yet.
    Waiting,
    /// Carries the session with its neighbour.
    Active,
    /// Replaced by another link; its streams may end in their own time.
    Draining { since: Instant },
}
