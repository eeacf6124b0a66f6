//! What a router reports, and what it refuses.

use std::time::Instant;

use super::convergence::request::ConvergeRequest;
use super::proof::claims::ClaimFault;
use super::proof::signature::{Distrust, Proof};
use super::record::compact::DecodeError;
use super::record::process::Duplicate;
use super::record::wire::Message;
use crate::id::{NodeId, Version};

/// A message for a neighbour, to be sent in order with the others for that neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The neighbour.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The table was replaced: [`Router::table`](super::Router::table) gives the new one. A change
    /// of the paths replaces it once, and once more when the alternates to them are found, each
    /// time only if a route differs.
    TableChanged,
    /// The node is in the table now, and was not before.
    NodeReachable(NodeId),
    /// The node is no longer in the table.
    NodeUnreachable(NodeId),
    /// The node said that it leaves, in order. A dormant entry for an ephemeral one can be dropped.
    NodeLeft(NodeId),
    /// The node's record is of another process than before.
    NodeRestarted(NodeId),
    /// The session with this neighbour has synced; the link is advertised from now on, unless
    /// [`Event::LinkHeld`] follows.
    Synced(NodeId),
    /// The link to this neighbour was lost several times within
    /// [`Timers::flap_memory`](super::Timers::flap_memory), is up again, and is not advertised
    /// until then: flap damping. Another path leads to the neighbour, or it is a stub.
    LinkHeld {
        /// The neighbour.
        neighbour: NodeId,
        /// When the hold ends, at the latest.
        until: Instant,
    },
    /// The hold of the link to this neighbour has ended, because its time is over or because no
    /// other path leads to a router any more. The link is advertised from now on.
    LinkReleased(NodeId),
    /// The session with this neighbour has not synced, and nothing came from it for the stall time.
    /// The neighbour's fault; close the session.
    SyncStalled(NodeId),
    /// What this neighbour sent before turned out to break the protocol, once it could be verified.
    /// The neighbour's fault: close its session, as for an error of
    /// [`Router::handle_message`](super::Router::handle_message).
    Violation {
        /// The neighbour.
        neighbour: NodeId,
        /// What it did.
        error: PeerError,
    },
    /// A record is not accepted because its origin's credential is not trusted here, be it expired
    /// or revoked; or one that was accepted is dropped because its credential has expired. The
    /// cause is the credential or this node's configuration; nodes that trust the credential route
    /// by the record.
    Untrusted {
        /// Whose record.
        origin: NodeId,
        /// The version of the record. A newer one that is accepted later makes up for it.
        version: Version,
        /// Why.
        reason: Distrust,
    },
    /// The stub has not proven its [`Attachment`](super::Attachment) in time, or its last proof has
    /// expired. The stub's fault; close its session.
    StubUnproven(NodeId),
    /// A node lists a stub that is not attached to it: it has no proof, or a forged one. The node's
    /// fault, or that of a node on the way; its claim is ignored. Reported once as long as the node
    /// lists the stub.
    FalseClaim {
        /// The stub.
        stub: NodeId,
        /// The node that lists it.
        by: NodeId,
        /// What is wrong with the claim.
        fault: ClaimFault,
    },
    /// A stub that was listed by another node, and to which there was no route, is not listed any
    /// more.
    StubUnlisted(NodeId),
    /// The notary could not sign this node's record. It is asked again a second later; until then
    /// this node does not speak.
    SigningFailed,
    /// Two ids have the same address. The one known first stays; the other is refused.
    AddressCollision {
        /// The id that is known.
        known: NodeId,
        /// The id that was refused.
        refused: NodeId,
    },
    /// A newer record of this node's own id was seen, from before its start; its version was
    /// overtaken.
    Resynced {
        /// The version that was seen.
        seen: Version,
    },
    /// Every node that this one could reach, both when the wave of its record began and when it
    /// ended, had installed the route of that record or a newer one at some time since the request.
    Converged {
        /// Which request this answers.
        request: ConvergeRequest,
        /// How many nodes have answered, this one among them. Stubs are not counted.
        count: u64,
    },
    /// The deadline of a request came before every node had answered.
    Partial {
        /// Which request this answers.
        request: ConvergeRequest,
        /// The most nodes that answered one wave, this one among them, as far as it knows: what a
        /// node has gathered below it comes all at once.
        count: u64,
        /// How many nodes this one can reach, itself among them.
        expected: u64,
    },
    /// Another live process has this node's own id, which is proven. Reported once for each.
    ///
    /// If this one yields, it originates nothing more: give the neighbours a moment to take what
    /// [`Router::poll_transmit`](super::Router::poll_transmit) gave, then close all sessions. Do
    /// not leave: a withdrawal would erase the other one.
    DuplicateId(Duplicate),
    /// A bound was hit. Reported once until the router was below it again.
    LimitHit(Limit),
}

/// Which bound was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::origins`](super::Limits::origins): an unreachable record was dropped early, or a
    /// new one refused.
    Origins,
    /// [`Limits::record`](super::Limits::record): this node's own record was cut.
    Record,
    /// [`Limits::capabilities`](super::Limits::capabilities): this node's own capabilities were
    /// left out.
    Capabilities,
    /// [`Limits::epoch_ahead`](super::Limits::epoch_ahead): a record was ignored.
    EpochAhead,
    /// [`Limits::accept_burst`](super::Limits::accept_burst): updates of an origin are delayed.
    AcceptRate,
}

/// Why a session was not taken. The state is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The neighbour has this node's own id. The configuration's fault; close the session.
    #[error("a node cannot link to itself")]
    SelfLink,
    /// The neighbour's address is that of another known node. Neither is at fault; close the
    /// session, and rename one.
    #[error("the address of {refused} is that of {known}")]
    AddressCollision {
        /// The id that is known.
        known: NodeId,
        /// The id that was refused.
        refused: NodeId,
    },
    /// [`Limits::active_links`](super::Limits::active_links) or
    /// [`Limits::stub_links`](super::Limits::stub_links) is reached. Close the session; try again
    /// when there are fewer.
    #[error("at most {max} links of this kind")]
    TooManyLinks {
        /// The bound.
        max: usize,
    },
    /// A router's id has a suffix, which only those of stubs may have. The neighbour's fault; close
    /// the session.
    #[error("only a stub may have a suffix in its id, and {0} is none")]
    SuffixedId(NodeId),
    /// This node is leaving. Close the session.
    #[error("this node is leaving")]
    Leaving,
    /// This node has yielded its id to another live process. Close the session.
    #[error("this node has yielded its id to another live process")]
    Yielded,
}

/// Why a message was not taken. The sender's fault unless said otherwise: close its session with a
/// named code. What the session brought before stays; the router serves the others on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The caller's fault: there is no session with this neighbour. Nothing was changed; drop the
    /// message.
    #[error("there is no session with {0}")]
    NoSession(NodeId),
    /// A stub has no part in routing.
    #[error("a stub sent a routing message")]
    StubSpoke,
    /// The first message was not a digest.
    #[error("a session begins with a digest")]
    DigestMissing,
    /// The sync ended twice.
    #[error("the sync ended twice")]
    SyncEndedTwice,
    /// An update held no valid record. Nothing was changed.
    #[error("bad record: {0}")]
    BadRecord(#[from] DecodeError),
    /// A record is not of its origin: no node that verifies records could have sent it. Nothing was
    /// changed.
    #[error("the record of {0} is forged")]
    Forged(NodeId),
    /// A record came without a proof, where all are signed. Nothing was changed.
    #[error("the record of {0} is not signed")]
    Unsigned(NodeId),
    /// The proof of an update was too long. Nothing was changed.
    #[error("a proof of {len} bytes, where {max} are allowed", max = Proof::MAX)]
    ProofTooLong {
        /// What it had, in bytes.
        len: usize,
    },
    /// A credential was too long, or another one than its name says. Nothing was changed.
    #[error("a credential of {0} that is none")]
    BadCredential(NodeId),
}

/// When [`Router::handle_timeout`](super::Router::handle_timeout) is to be called, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: DeadlineReason,
}

/// Why a router wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeadlineReason {
    /// Messages or events wait to be polled.
    Output,
    /// This node's own record is due.
    Originate,
    /// The paths are to be computed.
    ShortestPaths,
    /// A neighbour's paths are to be searched, for [alternates](super::Route::alternates).
    Alternates,
    /// Ids of new records are to be announced, in a batch.
    Announce,
    /// A record that a neighbour announced is to be asked for.
    Pull,
    /// An update that came too fast is to be accepted.
    Accept,
    /// Nothing changed for a while: compare digests.
    QuietDigest,
    /// A link that was held back after flapping is to be advertised.
    LinkHold,
    /// A session makes no progress in its sync.
    SyncStall,
    /// A wave is due for a request of convergence, or the deadline of one.
    Converge,
    /// A credential that a neighbour was asked for has not come.
    Credential,
    /// A neighbour that was asked for an attachment has not answered.
    Attachment,
    /// Something is to be forgotten.
    Expire,
    /// Records are to be compared under a fresh key, as every hour. A node at rest has this
    /// deadline alone.
    Audit,
}
