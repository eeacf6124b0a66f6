//! Links to neighbours: which one of a neighbour's links carries its session.

pub(super) mod contest;
pub(crate) mod election;
