//! The network around a node: its interfaces, changes of them, nodes on the LAN, and port mappings.

pub(crate) mod interfaces;
#[cfg(feature = "mdns")]
pub(crate) mod lan;
pub(crate) mod outside;
#[cfg(feature = "portmap")]
pub(crate) mod portmap;
pub(crate) mod roaming;
