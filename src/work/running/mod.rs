//! What calls that run hold, and how they learn of their end.

pub(crate) mod backlog;
pub(super) mod inflight;
pub(super) mod over;
