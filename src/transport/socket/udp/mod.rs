//! The UDP sockets below the switch: binding, errors, path MTU, and closing while in use.

pub(crate) mod bind;
pub(super) mod bound;
#[cfg(target_os = "linux")]
mod error_queue;
pub(super) mod fresh;
pub(super) mod heard;
pub(crate) mod path_mtu;
pub(super) mod release;
pub(crate) mod renewable;
pub(crate) mod unreachable;
