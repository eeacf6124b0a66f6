//! What becomes of a datagram between two hosts.

pub(super) mod cuts;
pub(super) mod inbox;
pub(super) mod lane;
pub(super) mod sieve;
pub(super) mod wires;
