//! The addresses of this node: candidates, and the class of its NAT.

pub(super) mod candidate;
pub(super) mod nat;
pub(super) mod own;
