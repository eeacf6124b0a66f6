//! Links to neighbours: which one of a neighbour's links carries its session, and how links run and end.

pub(super) mod bundle;
pub(super) mod contest;
pub(crate) mod election;
pub(crate) mod endings;
