//! The data directory: what outlives the process.

pub(crate) mod datadir;
pub(crate) mod manifest;
pub(crate) mod pid_lock;
