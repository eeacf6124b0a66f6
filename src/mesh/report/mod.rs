//! What a node reports: its status, its events, its explanations and its log.

mod as_text;
pub(crate) mod convergence;
pub(crate) mod departures;
pub(crate) mod event_stream;
pub(crate) mod events;
pub(crate) mod explanation;
pub(crate) mod log;
pub(crate) mod refusal_log;
mod route;
pub(crate) mod status;
