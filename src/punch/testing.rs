//! What the tests of this module share.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Instant;

use crate::id::NodeId;

/// The first instant of every test.
#[expect(
    clippy::disallowed_methods,
    reason = "an instant can only be made from the clock; all others are counted from this one"
)]
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}
