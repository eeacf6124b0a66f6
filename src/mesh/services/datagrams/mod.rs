//! Unreliable messages to services.

pub(crate) mod datagram;
pub(crate) mod datagram_queue;
