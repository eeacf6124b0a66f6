//! What happens in the mesh, as it happens.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::status::ProcessStatus;
use crate::id::NodeId;
use crate::router::{ClaimFault, Distrust};
use crate::transport::Refusal;

/// Something that a node saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A neighbour is linked; the databases are being brought together.
    ///
    /// Each is followed by one [`LinkDown`](Self::LinkDown) before the next for the same neighbour.
    /// A link that takes the place of another one while that is up is neither: the neighbour was
    /// linked throughout.
    LinkUp {
        /// The neighbour.
        peer: NodeId,
        /// Its address.
        address: String,
    },
    /// The databases of this node and a neighbour agree; the link carries traffic from now on.
    Synced {
        /// The neighbour.
        peer: NodeId,
    },
    /// The link to a neighbour was lost several times within a few minutes, is back, and is not
    /// advertised for now: flap damping. Another path leads to the neighbour.
    LinkHeld {
        /// The neighbour.
        peer: NodeId,
        /// How long the hold lasts at most, in milliseconds.
        remaining_ms: u64,
    },
    /// The hold of a neighbour's link has ended; the link is advertised.
    LinkReleased {
        /// The neighbour.
        peer: NodeId,
    },
    /// A neighbour is no longer linked.
    LinkDown {
        /// The neighbour.
        peer: NodeId,
        /// Who ended the link, and why, for people.
        why: String,
    },
    /// An attempt at a link failed.
    DialFailed {
        /// What was dialled.
        address: String,
        /// What was seen.
        why: String,
    },
    /// An attempt at a link failed because one side does not accept the other.
    LinkRefused {
        /// What was dialled, or who dialled.
        address: String,
        /// Why.
        why: Refusal,
    },
    /// There is a route to a node now.
    NodeReachable {
        /// The node.
        node: NodeId,
    },
    /// There is no route to a node any more.
    NodeUnreachable {
        /// The node.
        node: NodeId,
    },
    /// A node has left the mesh in order.
    NodeLeft {
        /// The node.
        node: NodeId,
    },
    /// Packets for a peer that is not a neighbour go directly to it from now on, or to another
    /// address of it than before.
    PathUp {
        /// The peer.
        peer: NodeId,
        /// Where they go.
        #[serde(with = "super::as_text")]
        address: SocketAddr,
        /// How the address is known: `host`, `server-reflexive`, `peer-reflexive`, `mapped` or
        /// `external`.
        candidate: Cow<'static, str>,
    },
    /// The packets for a peer go through other nodes again.
    PathDown {
        /// The peer.
        peer: NodeId,
        /// Why, for people.
        why: Cow<'static, str>,
    },
    /// Packets for a peer got no answer through some neighbours, and get answers through another
    /// one: from now on they avoid the former. Routing does not see a relay that keeps its links
    /// and forwards nothing. Reported once the peer has answered for a second.
    NextHopAvoided {
        /// The peer.
        peer: NodeId,
        /// The neighbours that are avoided, in the order in which they were tried. Which of two
        /// ends caused the silence is not always known: one of them may be innocent.
        avoided: Vec<NodeId>,
        /// The neighbour that is used instead.
        via: NodeId,
    },
    /// The record of a node is not taken, because its certificate is not trusted here: there is no
    /// route to it. Reported once for each reason, until the certificates are reloaded.
    RecordNotTrusted {
        /// The node.
        node: NodeId,
        /// Why.
        why: Distrust,
    },
    /// A node lists an ephemeral node that is not attached to it: it has no proof, or a forged one.
    /// Its claim is ignored. Reported once as long as the node repeats it. Nodes notice that use
    /// the ephemeral node, that it is attached to, or that are neighbours of the liar.
    FalseClaim {
        /// The ephemeral node.
        node: NodeId,
        /// The node that lists it.
        by: NodeId,
        /// What is wrong with the claim.
        why: ClaimFault,
    },
    /// The machine has another address or default route than before, or has slept. Every link is
    /// asked whether it still works, and peers without a link are dialled at once.
    NetworkChanged {
        /// The addresses that it has now, best first.
        #[serde(with = "super::as_text::list")]
        addresses: Vec<IpAddr>,
    },
    /// This node's record could not be signed: no randomness is available. It is retried every
    /// second; reported once until the certificates are reloaded.
    SigningFailed,
    /// Two live processes have one id: this node's, which was proven by their records, or a
    /// neighbour's, of which the second was refused.
    DuplicateId {
        /// The id.
        node: NodeId,
        /// The process that keeps the id.
        keeps: ProcessStatus,
        /// The process that yields it, or was refused.
        yields: ProcessStatus,
        /// Whether this node is the one that yields: it closes all links, and stays silent until it
        /// is started again.
        yielded: bool,
    },
    /// Two ids have the same address; the later one was refused.
    AddressCollision {
        /// The id that is known.
        known: NodeId,
        /// The id that was refused.
        refused: NodeId,
    },
}

/// The neighbours that were reported as linked, so that [`Event::LinkUp`] and [`Event::LinkDown`]
/// alternate.
#[derive(Debug, Default)]
pub(crate) struct Linked(BTreeSet<NodeId>);

impl Linked {
    /// A session began; whether that is to be reported.
    pub(crate) fn up(&mut self, peer: &NodeId) -> bool {
        self.0.insert(peer.clone())
    }

    /// A session ended; whether that is to be reported.
    pub(crate) fn down(&mut self, peer: &NodeId) -> bool {
        self.0.remove(peer)
    }

    /// All that are left: the node is shut down.
    pub(crate) fn drain(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::RefusalReason;

    #[test]
    fn sessions_are_reported_in_pairs() {
        let peer: NodeId = "a".parse().unwrap();
        let mut linked = Linked::default();
        assert!(linked.up(&peer));
        assert!(!linked.up(&peer), "the link was replaced");
        assert!(linked.down(&peer));
        assert!(!linked.down(&peer));
        assert!(linked.up(&peer));
        assert_eq!(linked.drain().len(), 1);
        assert!(!linked.down(&peer));
    }

    #[test]
    fn every_kind_of_field_is_read_back_as_it_was() {
        let id = |name: &str| name.parse::<NodeId>().unwrap();
        let process = |address: Option<&str>| ProcessStatus {
            instance: "00ff".to_owned(),
            address: address.map(str::to_owned),
        };
        let wrong_name =
            RefusalReason::WrongName { expected: Some(id("a")), found: vec![id("b"), id("c")] };
        for event in [
            Event::LinkRefused { address: "x:1".to_owned(), why: Refusal::here(wrong_name) },
            Event::LinkRefused {
                address: "x:1".to_owned(),
                why: Refusal::here(RefusalReason::Expired),
            },
            Event::PathUp {
                peer: id("a"),
                address: "[2001:db8::1]:7".parse().unwrap(),
                candidate: "host".into(),
            },
            Event::NetworkChanged {
                addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            },
            Event::RecordNotTrusted { node: id("a"), why: Distrust::Revoked },
            Event::FalseClaim {
                node: id("a"),
                by: id("b"),
                why: ClaimFault::Untrusted(Distrust::Denied),
            },
            Event::SigningFailed,
            Event::DuplicateId {
                node: id("a"),
                keeps: process(None),
                yields: process(Some("x:1")),
                yielded: true,
            },
        ] {
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event, "{json}");
            for bytes in [rmp_serde::to_vec(&event), rmp_serde::to_vec_named(&event)] {
                let read: Event = rmp_serde::from_slice(&bytes.unwrap()).unwrap();
                assert_eq!(read, event, "{json}");
            }
        }
    }
}
