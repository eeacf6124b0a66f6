//! What is sent: messages through the mesh and probes between addresses.

pub(super) mod mac;
pub(super) mod message;
pub(super) mod probe;
pub(super) mod secret;
