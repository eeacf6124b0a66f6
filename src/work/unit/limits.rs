//! Bounds of durable work.

/// How often an idempotent unit is attempted before it counts as lost.
pub(crate) const MAX_ATTEMPTS: u32 = 8;

/// How much longer than a unit could be offered its tombstone is kept: a day, in milliseconds. It
/// covers clocks that run at different rates, and offers that were under way.
pub(crate) const TOMBSTONE_MARGIN_MS: u64 = 24 * 3600 * 1000;

/// Default of the maximum number of tombstones and of units for others, each of which needs one
/// when it is removed. Submitters share them: one that has used its share has no unit accepted
/// until some of its tombstones have expired. Over a day these are three units a second.
pub(crate) const TOMBSTONES: usize = 262_144;

/// The most that can be set: 24 units a second. Their log is read as a whole at start.
pub(crate) const MAX_TOMBSTONES: usize = 8 * TOMBSTONES;
