//! The driver's part in attachments.

use std::time::Instant;

use tracing::{debug, warn};

use super::attach;
use crate::id::NodeId;
use crate::mesh::driver::{Driver, Role};
use crate::mesh::links::id::LinkId;
use crate::mesh::report::log::LogKind;
use crate::router::{Attachment, AttachmentVerdict};
use crate::transport::code::CloseCode;

impl Driver {
    /// A stub has sent a proof that it is attached to this node.
    pub(crate) fn attached(
        &mut self,
        id: LinkId,
        attachment: Attachment,
        verdict: AttachmentVerdict,
        now: Instant,
    ) {
        let (Some(link), Role::Full(router)) = (self.neighbours.if_active(id), &mut self.role)
        else {
            return;
        };
        let of_link = *attachment.stub() == link.peer
            && *attachment.neighbour() == self.id
            && attachment.version().instance == link.instance;
        match verdict {
            _ if !of_link => link.close(CloseCode::Unproven, "the attachment is not of this link"),
            AttachmentVerdict::Valid { remaining } => {
                if !router.set_attachment(attachment, remaining, now) {
                    debug!(peer = %link.peer, "ignored an attachment that is not newer");
                }
            }
            AttachmentVerdict::Expired => {
                let why =
                    "the attachment has expired: the clocks of the two nodes are too far apart";
                link.close(CloseCode::Unproven, why);
            }
            AttachmentVerdict::Forged => {
                link.close(CloseCode::Unproven, "the attachment is not signed by its stub")
            }
            // After a renewal the trust in the new certificate may be on its way here. The proof
            // before still holds.
            AttachmentVerdict::Untrusted(why) => {
                debug!(peer = %link.peer, %why, "ignored an attachment whose certificate is not trusted");
            }
        }
    }

    /// A stub has not proven in time that it is attached.
    pub(crate) fn stub_unproven(&self, peer: &NodeId) {
        if let Some(link) = self.neighbours.active_link(peer).filter(|link| link.stub) {
            if self.logs.admit(LogKind::Closed, peer) {
                warn!(%peer, "closing the link of an ephemeral node that has not proven its attachment");
            }
            link.close(CloseCode::Unproven, "the attachment was not proven in time");
        }
    }

    /// A stub proves to a neighbour that it is attached to it.
    pub(crate) fn prove_attachment(&mut self, neighbour: &NodeId, now: Instant) {
        let Role::Stub(stub) = &mut self.role else { return };
        let Some(link) = self.neighbours.active_link(neighbour) else { return };
        if let Some(proof) = stub.attaching.prove(neighbour, now) {
            link.send(&attach(&proof));
        }
    }

    /// The same for all neighbours.
    pub(crate) fn prove_attachments(&mut self, now: Instant) {
        let neighbours: Vec<NodeId> = self.neighbours.active().keys().cloned().collect();
        neighbours.iter().for_each(|neighbour| self.prove_attachment(neighbour, now));
    }

    /// A stub renews its proofs before they expire.
    pub(crate) fn renew_attachments(&mut self, now: Instant) {
        if let Role::Stub(stub) = &mut self.role
            && stub.attaching.is_due(now)
        {
            self.prove_attachments(now);
        }
    }
}
