//! Log lines that other nodes can cause: how many of them are written.

mod limit;
mod reachability;

pub(crate) use limit::{LogKind, LogLimits};
pub(crate) use reachability::ReachabilityLog;
