//! Why a node did not start, is not linked, or does not answer.
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::{InvalidName, NodeId};
use crate::mesh::data_dir::pid_lock;
use crate::mesh::{InvalidPeerAddr, PeerAddr, ServeError, ShutDown};
use crate::transport::{InvalidListenAddr, PEER_TIMEOUTS, RECEIVE_WINDOWS, Refusal};
use crate::work::RegisterError;

/// The maximum number of sockets that a node listens on.
pub(crate) const MAX_LISTEN: usize = 8;
/// The maximum number of external addresses of a node.
pub(crate) const MAX_EXTERNAL: usize = 8;

/// Why a node did not start, or did not take an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The id given to [`Node::builder`](crate::Node::builder) is not valid. The caller's fault.
    #[error("invalid argument of Node::builder: {0}")]
    InvalidId(InvalidName),
    /// The neighbour given to [`NodeBuilder::cost_to`](crate::NodeBuilder::cost_to) is not valid.
    /// The caller's fault.
    #[error("invalid argument of NodeBuilder::cost_to: {0}")]
    InvalidNeighbour(InvalidName),
    /// The neighbour given to [`NodeBuilder::peer`](crate::NodeBuilder::peer) is not valid. The
    /// caller's fault.
    #[error("invalid argument of NodeBuilder::peer: {0}")]
    InvalidPeer(InvalidPeerAddr),
    /// The address given to [`NodeBuilder::listen`](crate::NodeBuilder::listen) is not valid. The
    /// caller's fault.
    #[error("invalid argument of NodeBuilder::listen: {0}")]
    InvalidListen(InvalidListenAddr),
    /// The certificate is another node's. The configuration's fault.
    #[error("the certificate does not carry the id {id}; it names {}", list(names))]
    NotInCertificate {
        /// The node's id.
        id: NodeId,
        /// What the certificate carries.
        names: Vec<NodeId>,
    },
    /// More than [`NodeBuilder::MAX_LISTEN`](crate::NodeBuilder::MAX_LISTEN) addresses.
    #[error("a node listens on at most {MAX_LISTEN} addresses")]
    TooManyListen,
    /// Two addresses with the same IP.
    #[error("two listen addresses have the IP {0}; a node listens on one port of each")]
    ListenTwice(std::net::IpAddr),
    /// The receive window is out of bounds.
    #[error(
        "the receive window is {0} bytes; it must be from {least} to {most}",
        least = RECEIVE_WINDOWS.start(),
        most = RECEIVE_WINDOWS.end()
    )]
    ReceiveWindow(u64),
    /// The peer timeout is out of bounds.
    #[error(
        "the peer timeout is {0:?}; it must be from {least:?} to {most:?}",
        least = PEER_TIMEOUTS.start(),
        most = PEER_TIMEOUTS.end()
    )]
    PeerTimeout(Duration),
    /// More than [`NodeBuilder::MAX_EXTERNAL`](crate::NodeBuilder::MAX_EXTERNAL) external
    /// addresses.
    #[error("a node has at most {MAX_EXTERNAL} external addresses")]
    TooManyExternal,
    /// It is not an address that packets can be sent to.
    #[error(
        "{0} is no address that others can send to: an external address has an IP address and a port"
    )]
    NotExternal(SocketAddr),
    /// The id has a suffix, which only those of ephemeral nodes may have. The configuration's
    /// fault.
    #[error("only an ephemeral node may have a suffix in its id, and {0} is to be none")]
    SuffixedId(NodeId),
    /// An ephemeral takes no links, so it must dial.
    #[error("an ephemeral node needs a peer to dial")]
    EphemeralWithoutPeer,
    /// Another node uses the data directory. Stop it, or give this one a directory of its own.
    #[error(
        "the data directory {} is used by {}; stop that node or use another directory",
        path.display(),
        pid_lock::holder(*pid)
    )]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process that uses it, if it is known. It may be this one.
        pid: Option<u32>,
    },
    /// The data directory does not exist and cannot be created. (One that exists and cannot be
    /// written is not an error: the node logs a warning and runs without it.)
    #[error("cannot create the data directory {}: {error}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Units are enabled, and there is no directory to keep them in. The configuration's fault.
    #[error("units need a data directory")]
    UnitsWithoutDirectory,
    /// The directory of units cannot be used: without it a unit might run twice.
    #[error("cannot use the units' directory {}: {error}", path.display())]
    Units {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refused a socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The service of calls could not be offered.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A built-in directive was registered by the application.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The node is shut down, and takes no other identity.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// Why a node answers no question about another one. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The name of the node is not valid: the caller's fault.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// This node is shut down.
    #[error(transparent)]
    ShutDown(#[from] ShutDown),
}

/// Why a node is not part of the mesh.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLinked {
    /// No configured peer and this node accept each other; each with the reason.
    #[error("{}", refusals(.0))]
    Refused(Vec<(PeerAddr, Refusal)>),
    /// Another live process has this node's id, and keeps it. Stop one of the two, or give it
    /// another id, and start this one again.
    #[error("this node has yielded its id to another live process, at {to}")]
    Yielded {
        /// Where the other process is, as far as it is known.
        to: String,
    },
    /// The node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}

fn refusals(refusals: &[(PeerAddr, Refusal)]) -> String {
    refusals.iter().map(|(peer, why)| format!("{peer}: {why}")).collect::<Vec<_>>().join("; ")
}

fn list(names: &[NodeId]) -> String {
    match names {
        [] => "no node".to_owned(),
        names => names.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", "),
    }
}
