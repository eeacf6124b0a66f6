//! Who signs this node's records and judges those of others.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::id::NodeId;
use crate::router::proof::attachment::{Attachment, AttachmentVerdict};
use crate::router::proof::signature::{Distrust, Proof};

/// Signs this node's records, and verifies those of others. The router knows no cryptography: a
/// program hands it a notary in [`Config::notary`](crate::router::Config::notary).
///
/// A record travels with a [`Proof`]: a signature over its bytes, and the name of the
/// **credential** that the signature is verified with. A credential is what ties a key to a node
/// id, a certificate chain for one. The router fetches each from the neighbour that sent the
/// record, once per origin, and keeps it as long as the record.
///
/// Calls come from inside the router's own, one at a time, and must not block.
pub trait Notary: fmt::Debug + Send + Sync {
    /// This node's own credential: at most [`Proof::MAX_CREDENTIAL`] bytes, and the same at every
    /// call. A node whose credential changes gets another notary, see
    /// [`Router::set_notary`](crate::router::Router::set_notary).
    fn credential(&self) -> Bytes;

    /// A signature over this node's record, not empty and at most [`Proof::MAX_SIGNATURE`] bytes.
    /// None: the key cannot sign now; the router tries again a second later.
    fn sign(&self, record: &[u8]) -> Option<Bytes>;

    /// Whether `record` is of `origin`.
    ///
    /// `credential` is what [`Proof::credential`] names, if the router has it. Without it the
    /// answer is [`Verdict::NeedsCredential`] even where the notary could do without, because the
    /// neighbours will ask this node for it. (A notary without credentials, whose proofs need none,
    /// never gives that answer.)
    fn verify(
        &self,
        origin: &NodeId,
        record: &[u8],
        proof: &Proof,
        credential: Option<&[u8]>,
    ) -> Verdict;

    /// How long from now a credential that was found good remains valid, zero once it has expired;
    /// `None` if it does not expire. The router drops records with their credentials. By default
    /// none expires.
    fn remaining(&self, credential: &[u8]) -> Option<Duration> {
        let _ = credential;
        None
    }

    /// Whether paths may lead through a node whose record says that it carries transit. Asked about
    /// records that were found [valid](Verdict::Valid) with this credential; `None` if it is not
    /// known yet. Nodes that may not are ends of paths only.
    fn permits_transit(&self, _origin: &NodeId, _credential: Option<&[u8]>) -> bool {
        true
    }

    /// Whether the stub that `attachment` names has signed it, and for how long it holds. The
    /// credential is that of the stub's [base](NodeId::base). A signature over a record must never
    /// be valid for an attachment, nor vice versa.
    fn verify_attachment(&self, attachment: &Attachment) -> AttachmentVerdict;
}

/// What a [`Notary`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The record is of its origin.
    Valid,
    /// A node that verifies records cannot have forwarded it: its sender is at fault, and loses the
    /// session.
    Forged,
    /// This node does not trust the credential; others may. The record is not taken, and its sender
    /// is not guilty.
    Untrusted(Distrust),
    /// The credential is wanted first.
    NeedsCredential,
}
