//! What a record says.

use bytes::Bytes;

use crate::id::{Cost, NodeAddr, NodeId, Version};
use crate::router::record::process::Override;

/// What the bytes of a record say.
pub(crate) struct Said {
    pub(super) draft: Draft,
    pub(super) addr: NodeAddr,
    /// Addresses of the stubs, in the order of their links: hashed once, used at every table.
    pub(super) stub_addrs: Box<[NodeAddr]>,
}

/// The content of a [`Record`](super::Record) before it is encoded, for simulators and tests that
/// build records themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The node that speaks.
    pub origin: NodeId,
    /// Which of its records this is.
    pub version: Version,
    /// Whether others may route through the node.
    pub transit: bool,
    /// The node's last record: it is leaving, in order.
    pub leaving: bool,
    /// Whether the node asks all others for an answer; see
    /// [`Router::converge`](crate::router::Router::converge).
    pub echo: bool,
    /// Its links, ascending by peer, each peer once, never the origin itself.
    pub links: Vec<Link>,
    /// What it says about itself otherwise, opaque to the router; at most 4 KiB.
    pub capabilities: Bytes,
    /// The process of the same id whose record this one overrides; `None` unless that happened
    /// within the last minute.
    pub over: Option<Override>,
}

/// One link of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The other end.
    pub peer: NodeId,
    /// What the link may be used for.
    pub class: LinkClass,
    /// What it costs to send over it, as this end sees it.
    pub cost: Cost,
}

/// What a link may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LinkClass {
    /// A live, synced session. It carries traffic if the other end lists it too, at the larger of
    /// the two costs.
    Active,
    /// An attached ephemeral or leaf node without a record of its own. It is reached through this
    /// node and carries no transit.
    Stub,
    /// Known from the connection manifest and not connected now: inventory, never used for traffic.
    Dormant,
}

impl Said {
    pub(super) fn new(draft: Draft) -> Self {
        let stubs = draft.links.iter().filter(|link| link.class == LinkClass::Stub);
        let stub_addrs = stubs.map(|link| link.peer.addr()).collect();
        Self { addr: draft.origin.addr(), draft, stub_addrs }
    }
}
