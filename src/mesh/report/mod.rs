//! What a node reports: its status, its events and its log.

pub(crate) mod departures;
pub(crate) mod events;
pub(crate) mod log;
pub(crate) mod refusal_log;
pub(crate) mod status;
