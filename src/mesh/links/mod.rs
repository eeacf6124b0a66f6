//! Links to neighbours: which one of a neighbour's links carries its session, and how links run and
//! end.

pub(crate) mod admission;
pub(super) mod bundle;
pub(super) mod by_kind;
pub(super) mod contest;
pub(crate) mod dialling;
pub(crate) mod election;
pub(crate) mod endings;
pub(crate) mod id;
pub(crate) mod link;
pub(crate) mod link_cost;
pub(crate) mod neighbours;
pub(crate) mod trust;
pub(crate) mod twin;
