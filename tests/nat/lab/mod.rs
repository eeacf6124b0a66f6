//! Networks made of namespaces.

mod available;
mod delay;
mod gateway;
mod namespace;
mod nat;
#[cfg(feature = "portmap")]
mod port_daemon;
mod run;
mod segment;

pub(crate) use available::skipped;
#[cfg(feature = "portmap")]
pub(crate) use available::skipped_without;
pub(crate) use gateway::Gateway;
pub(crate) use namespace::Namespace;
pub(crate) use nat::Nat;
#[cfg(feature = "portmap")]
pub(crate) use port_daemon::Speaks;
pub(crate) use segment::{Family, Host, Internet, Segment};
