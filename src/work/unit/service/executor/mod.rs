//! The units that this node executes.

pub(super) mod attempt;
pub(super) mod feeding_in;
pub(super) mod guests;
pub(super) mod handler_attempt;
pub(super) mod holdings;
pub(super) mod in_unit;
pub(super) mod incoming;
pub(super) mod known;
pub(super) mod offering;
pub(super) mod strays;
