//! The configured peers: their addresses, when they are dialled, and how.

pub(crate) mod dialler;
pub(crate) mod dials;
pub(crate) mod names;
pub(crate) mod peer_addr;
