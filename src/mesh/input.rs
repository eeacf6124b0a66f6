//! What wakes the driver: one of these at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::oneshot;

use super::driver::snapshot::Snapshot;
use super::links::endings::Turn;
use super::links::id::LinkId;
use super::peers::path_input::PathInput;
use super::report::convergence::{ConvergeError, Convergence};
use super::report::explanation::NodeExplanation;
use super::report::status::{PortMappingStatus, StatusOptions};
use super::services::ending::Cause;
use crate::id::{NodeAddr, NodeId};
use crate::mesh::links::dialling::peer_addr::PeerAddr;
use crate::router::{Attachment, AttachmentVerdict, Message};
use crate::transport::Identity;
use crate::transport::frame::Frame;
use crate::transport::handshake::Established;
use crate::transport::unreachable::Reason;

/// The capacity of the driver's queue. When it is full the links' readers wait, and QUIC's flow
/// control with them.
pub(crate) const MAX_INPUTS: usize = 1_024;

/// What wakes the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A handshake is done.
    Established(Box<Established>),
    /// A frame came in on a control stream.
    Frame { link: LinkId, frame: Frame },
    /// A stub has sent a proof that it is attached, and this is what was found about it.
    Attached { link: LinkId, attachment: Box<Attachment>, verdict: AttachmentVerdict },
    /// A message for the router came in on a control stream.
    Route { link: LinkId, message: Message },
    /// A control stream took what it was given.
    Written { link: LinkId },
    /// The neighbour has finished a control stream: all that it says was read.
    Finished { link: LinkId },
    /// A link ended. Others wait for the turn.
    LinkClosed { link: LinkId, why: Cause, turn: Option<Turn> },
    /// A peer connection stopped or resumed to get answers.
    PeerAnswers { peer: NodeId, answers: PeerAnswers },
    /// Packets wait for the stubs with these addresses, which nodes list without proof.
    Wanted(BTreeSet<NodeAddr>),
    /// What concerns a direct path.
    Path(PathInput),
    /// The machine's network is another one now; with its addresses, best first.
    NetworkChanged { addresses: Vec<IpAddr> },
    /// The network reports that packets to these addresses do not arrive.
    Unreachable(UnreachableAddrs),
    /// How it goes with the mapping of a port of the router.
    #[cfg_attr(
        not(feature = "portmap"),
        expect(dead_code, reason = "told by the feature `portmap`")
    )]
    PortMapping(PortMappingStatus),
    /// A request from this process.
    Command(Command),
}

/// What was reported of each address; never an IPv4-mapped one.
pub(crate) type UnreachableAddrs = BTreeMap<SocketAddr, Reason>;

/// Whether the packets of a peer connection get answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerAnswers {
    /// No answers for a while; reported again while that lasts.
    Silent {
        /// The neighbour that packets of the peer come through nevertheless, if that is not the one
        /// that this node's packets go to.
        through: Option<NodeAddr>,
    },
    /// Answers again.
    Resumed {
        /// The neighbour that the answer to a handshake came through. It proves both directions,
        /// since handshakes are answered the way they came. `None` if other packets were answered.
        through: Option<NodeAddr>,
    },
}

/// What this process may ask of the driver. It is not an error if a requester has gone.
#[derive(Debug)]
pub(crate) enum Command {
    /// A snapshot that lists as many stubs; the parts that the driver does not know are empty.
    Status(StatusOptions, oneshot::Sender<Box<Snapshot>>),
    /// Why a node is or is not reachable.
    Explain(NodeId, oneshot::Sender<NodeExplanation>),
    /// A stub's question to its neighbour: cost and hops to a node.
    Query(NodeId, oneshot::Sender<Option<(u64, u32)>>),
    /// Ask for the proof of those that list this node as their stub: it is used, and has no route.
    Verify(NodeId),
    /// Whether all nodes have the route to this one, within this time. A requester that has gone
    /// ends the request.
    Converge(Duration, oneshot::Sender<Result<Convergence, ConvergeError>>),
    /// The certificates were reloaded: records are signed and verified with them, and links that
    /// would not be accepted any more are closed.
    Reload(Box<Identity>),
    /// Dial these peers from now on, and say when that is so.
    SetPeers(Vec<PeerAddr>, oneshot::Sender<()>),
    /// Close the link with this connection: its peer is no longer configured.
    Unlink(usize),
    /// Withdraw, and say when that is on its way.
    Leave(oneshot::Sender<()>),
}
