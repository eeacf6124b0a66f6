//! The pure state machines of both ends, and what their journals hold.

pub(super) mod entry;
pub(super) mod executor;
pub(super) mod queue;
pub(super) mod submitter;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod time;
pub(super) mod tombstones;
#[cfg(test)]
pub(super) mod world;
