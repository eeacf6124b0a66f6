//! Links to neighbours: which one of a neighbour's links carries its session, and how links run and
//! end.

pub(crate) mod acceptor;
pub(crate) mod budget;
pub(super) mod bundle;
pub(super) mod by_kind;
pub(super) mod contest;
pub(crate) mod dialler;
pub(crate) mod dials;
pub(crate) mod distrust;
pub(crate) mod election;
pub(crate) mod endings;
pub(crate) mod half_open;
pub(crate) mod id;
pub(crate) mod link;
pub(crate) mod link_cost;
pub(crate) mod names;
pub(crate) mod neighbours;
pub(crate) mod notary;
pub(crate) mod peer_addr;
pub(crate) mod twin;
pub(crate) mod vetting;
