//! Packets of other nodes.

pub(super) mod egress;
pub(super) mod forward;
pub(super) mod held;
pub(in crate::transport) mod wanted;
