//! The process: its descriptors, signals, users, log and exit status.

pub(super) mod descriptors;
pub(super) mod exit;
pub(super) mod log;
pub(super) mod log_fields;
pub(super) mod signals;
pub(super) mod users;
