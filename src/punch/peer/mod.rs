//! The state kept per peer: rounds, connectivity checks, paths and their outcome.

pub(super) mod allowance;
pub(super) mod attempt;
pub(super) mod choice;
pub(super) mod explain;
pub(super) mod keys;
pub(super) mod path;
pub(super) mod ports;
pub(super) mod round;
pub(super) mod schedule;
pub(super) mod session;
pub(super) mod volley;
pub(super) mod window;
