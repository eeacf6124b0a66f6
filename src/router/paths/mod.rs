//! Shortest paths, loop-free alternates, and the routing table built from them.

pub(in crate::router) mod alternates;
pub(in crate::router) mod detours;
pub(in crate::router) mod explain;
pub(in crate::router) mod radix_heap;
pub(in crate::router) mod rtt_cost;
pub(in crate::router) mod spf;
pub(in crate::router) mod table;
