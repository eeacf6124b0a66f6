//! Networks made of namespaces.

mod available;
mod gateway;
mod namespace;
mod nat;
mod run;
mod segment;

pub(crate) use available::skipped;
pub(crate) use gateway::Gateway;
pub(crate) use namespace::Namespace;
pub(crate) use nat::Nat;
pub(crate) use segment::{Family, Host, Internet, Segment};
