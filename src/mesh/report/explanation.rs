//! Why a node is, or is not, reachable, and why its packets travel as they do.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::departures::LeftStatus;
use super::status::{Detour, PeerPath};
use crate::id::NodeId;
use crate::mesh::services::usage::Usage;
use crate::router::{Claim, ClaimState, Explanation};
use crate::transport::settings::MAX_STREAMS;

/// Why a node is, or is not, reachable, as far as this node knows, and how the packets for it
/// travel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeExplanation {
    /// The node.
    pub node: NodeId,
    /// What routing knows of it.
    #[serde(with = "super::route")]
    pub route: Explanation,
    /// The nodes that list it as an ephemeral node of theirs, and what was found about that. Claims
    /// that were rejected are ignored.
    pub claims: Vec<Claim>,
    /// How long this node holds back the link to it at most, in milliseconds, because the link
    /// flaps. `None` if it does not.
    pub held_ms: Option<u64>,
    /// When it left the mesh; `None` if it is there, or is not known to have left.
    pub left: Option<LeftStatus>,
    /// The neighbours that its packets may go to, if they go through the mesh.
    pub next_hops: Vec<NodeId>,
    /// The neighbours that its packets avoid, because they got no answer through them; `None` if
    /// they follow the route.
    pub detour: Option<Detour>,
    /// How packets reach it; `None` if they do not, or if it is this node.
    pub path: Option<PathExplanation>,
    /// The streams between the two nodes; `None` if there is no connection.
    pub streams: Option<StreamUse>,
    /// The NATs in front of the two nodes.
    pub nat: NatPair,
    /// Where the two may be reached directly.
    pub candidates: Candidates,
    /// The last attempts at a direct path, the newest first; at most 16.
    pub attempts: Vec<AttemptStatus>,
}

impl NodeExplanation {
    /// Whether more is known once claims are verified.
    pub(crate) fn awaits_proof(&self) -> bool {
        self.claims
            .iter()
            .any(|claim| matches!(claim.state, ClaimState::Unverified | ClaimState::Pending))
    }
}

/// The streams between this node and another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamUse {
    /// Streams that this node opened and has open.
    pub opened: usize,
    /// Streams that the other node opened.
    pub incoming: usize,
    /// Opens by this node that wait for a place or for the other node's permission.
    pub opening: usize,
    /// How many this node may have open: [`MAX_STREAMS`].
    pub max: usize,
    /// Whether new streams have to wait.
    pub saturated: bool,
}

impl StreamUse {
    pub(crate) fn of(usage: &Usage) -> Self {
        let (opened, opening) = (usage.opened_streams(), usage.waiting());
        Self {
            opened,
            incoming: usage.incoming_streams(),
            opening,
            max: MAX_STREAMS,
            saturated: opening > 0 || opened >= MAX_STREAMS,
        }
    }
}

/// How the packets for a node travel, and why.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PathExplanation {
    /// How.
    pub kind: PeerPath,
    /// Where they go first.
    pub address: Option<SocketAddr>,
    /// How the address is known, if the path is direct.
    pub candidate: Option<Cow<'static, str>>,
    /// The smoothed round trip to the node, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// For how long they have travelled so, in seconds.
    pub since_s: Option<f64>,
    /// Why, for programs: `direct`; `neighbour`; `not-connected`; `off`; `idle`; `trying`; or how
    /// the last attempt ended.
    pub why: Cow<'static, str>,
    /// The same as a sentence, for people.
    pub reason: String,
}

/// The NATs of two nodes, by name: `unknown`, `public`, `endpoint-independent`,
/// `endpoint-dependent`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NatPair {
    /// That of this node; `None` if direct paths are disabled.
    pub mine: Option<Cow<'static, str>>,
    /// That of the other, as it says.
    pub theirs: Option<Cow<'static, str>>,
}

/// Where two nodes may be reached directly.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Candidates {
    /// This node, as advertised to its peers.
    pub mine: Vec<CandidateStatus>,
    /// The other, with those that were learned from probes.
    pub theirs: Vec<CandidateStatus>,
}

/// An address at which a node may be reached directly.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CandidateStatus {
    /// The address.
    pub address: SocketAddr,
    /// How it is known: `host`, `server-reflexive`, `peer-reflexive`, `mapped` or `external`.
    pub kind: Cow<'static, str>,
    /// Probes sent there in the newest attempt.
    pub probes: u32,
    /// The round trip, in milliseconds, if one was answered.
    pub rtt_ms: Option<f64>,
}

/// An attempt at a direct path.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptStatus {
    /// How long ago it began, in seconds.
    pub ago_s: f64,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// Why it was made: `traffic`, `retry`, `candidates`, `path-died`, `restart` or `peer`.
    pub cause: Cow<'static, str>,
    /// What became of it: `direct`, `both-endpoint-dependent`, `port-guessing-needed`,
    /// `no-candidates`, `no-answer`, `peer-silent` or `superseded`.
    pub outcome: Cow<'static, str>,
    /// The same as a sentence, for people.
    pub reason: Cow<'static, str>,
    /// Probes that this node sent.
    pub probes: u32,
}
