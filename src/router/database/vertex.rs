//! A node of the graph and its edges.

use crate::id::NodeAddr;
use crate::router::record::Record;

#[derive(Debug)]
pub(crate) struct Vertex {
    pub(crate) record: Record,
    /// Whether paths may lead through it: the record says so, and it is permitted.
    pub(crate) transit: bool,
    /// Whether this node permits transit through it.
    pub(super) permitted: bool,
    /// Whether the record lists any stub.
    pub(crate) stubs: bool,
    pub(crate) addr: NodeAddr,
    /// Ascending by `to`.
    pub(crate) edges: Vec<Edge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) to: u32,
    /// The larger of what both ends say.
    pub(crate) cost: u32,
}
