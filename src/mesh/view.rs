//! What the driver shows to the rest of the process: replaced as a whole, read without asking.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::services::connection::Connection;
use super::services::usage::Usage;
use crate::id::NodeId;
use crate::router::Table;
use crate::switch::ForwardingTable;

/// A snapshot of links and routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The links that new streams may use.
    pub(crate) links: BTreeMap<NodeId, Arc<LinkView>>,
    /// The routes; empty on a stub.
    pub(crate) table: Arc<Table>,
    /// The forwarding table; `None` until the first one was published.
    pub(crate) forwarding: Option<Arc<ForwardingTable>>,
    /// Whether the node is a stub: it asks its neighbour for routes.
    pub(crate) stub: bool,
    /// Whether the node is part of the mesh: synced with a neighbour, or attached to one.
    pub(crate) linked: bool,
    /// Whether the node is about to be shut down.
    pub(crate) leaving: bool,
    /// Where the process is that this node has yielded its id to.
    pub(crate) yielded_to: Option<String>,
    /// Whether the node is shut down.
    pub(crate) closed: bool,
}

impl View {
    /// Whether there is a way to the node: a link, a route or a direct path.
    pub(crate) fn reaches(&self, node: &NodeId) -> bool {
        let linked =
            || self.links.get(node).is_some_and(|link| link.connection.close_reason().is_none());
        // The address is a hash, and rarely asked for.
        let direct =
            || self.forwarding.as_ref().is_some_and(|forwarding| forwarding.is_direct(node.addr()));
        self.table.route(node).is_some() || linked() || direct()
    }

    /// The neighbour that this node's own packets for a node go to.
    pub(crate) fn first_hop(&self, node: &NodeId) -> Option<NodeId> {
        let (hop, _) = self.forwarding.as_ref()?.originate(node.addr())?;
        if hop.neighbour == node.addr() {
            return Some(node.clone());
        }
        self.links.keys().find(|id| id.addr() == hop.neighbour).cloned()
    }
}

/// A link, for those who open streams.
#[derive(Debug)]
pub(crate) struct LinkView {
    // Shared, since to clone a connection takes its lock.
    pub(crate) connection: Arc<Connection>,
    pub(crate) usage: Arc<Usage>,
}
