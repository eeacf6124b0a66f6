//! Nodes with one attachment and a default route: being one, and serving them.

pub(crate) mod attaching;
pub(crate) mod stub;
pub(crate) mod stub_waiting;
pub(crate) mod verifying;
