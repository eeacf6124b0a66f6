//! How a stub proves to its neighbours that it is attached to them, and how a neighbour handles the
//! proof.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::{Driver, Role};
use crate::id::{NodeId, Version};
use crate::mesh::links::link::LinkId;
use crate::mesh::links::notary::{CertificateNotary, MAX_ATTACHMENT_LIFE};
use crate::mesh::report::log::LogKind;
use crate::router::{Attachment, AttachmentVerdict};
use crate::transport::code::CloseCode;
use crate::transport::frame::{Frame, SignedStatement};

/// How long a proof holds. It is renewed at a third of that, so that a renewal can be missed, and
/// clocks may be more than an hour apart. A proof that was not renewed, or that a former neighbour
/// kept, is worthless after this time.
const LIFE: Duration = Duration::from_secs(2 * 3_600);
const RENEW_EVERY: Duration = Duration::from_secs(40 * 60);
/// When a key that could not sign is tried again.
const SIGN_AGAIN: Duration = Duration::from_secs(1);

const _: () = assert!(LIFE.as_secs() < MAX_ATTACHMENT_LIFE.as_secs());

/// Signs the attachments of a stub.
///
/// Each proof has the version of the set of neighbours that the stub is attached to. When a
/// neighbour is lost, the version grows, and the others get new proofs: what the lost one holds is
/// then older than what they show.
#[derive(Debug)]
pub(crate) struct Attaching {
    me: NodeId,
    notary: Arc<CertificateNotary>,
    version: Version,
    renew_at: Option<Instant>,
}

impl Attaching {
    pub(crate) fn new(me: NodeId, notary: Arc<CertificateNotary>, epoch: u64, instance: u64) -> Self {
        Self { me, notary, version: Version { epoch, sequence: 0, instance }, renew_at: None }
    }

    /// The certificate was renewed: later proofs are signed with it.
    pub(crate) fn set_notary(&mut self, notary: Arc<CertificateNotary>) {
        self.notary = notary;
    }

    /// A neighbour was lost.
    pub(crate) fn detached(&mut self) {
        self.version.sequence += 1;
    }

    /// A proof for a neighbour; `None` if the key cannot sign now: it is due again a second later.
    pub(crate) fn prove(&mut self, neighbour: &NodeId, now: Instant) -> Option<Attachment> {
        let proof = self.notary.attach(&self.me, neighbour, self.version, LIFE);
        let due = now + if proof.is_some() { RENEW_EVERY } else { SIGN_AGAIN };
        self.renew_at = Some(self.renew_at.filter(|at| *at > now).map_or(due, |at| at.min(due)));
        proof
    }

    /// Whether all neighbours are to get new proofs.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.renew_at.take_if(|at| *at <= now).is_some()
    }
}

impl Driver {
    /// A stub has sent a proof that it is attached to this node.
    pub(crate) fn attached(
        &mut self,
        id: LinkId,
        attachment: Attachment,
        verdict: AttachmentVerdict,
        now: Instant,
    ) {
        let (Some(link), Role::Full(router)) = (self.neighbours.if_active(id), &mut self.role) else {
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
                let why = "the attachment has expired: the clocks of the two nodes are too far apart";
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

/// The frame by which a stub proves its attachment.
pub(crate) fn attach(proof: &Attachment) -> Frame {
    Frame::Attach(SignedStatement {
        statement: proof.bytes().clone(),
        signature: proof.signature().clone(),
        credential: proof.credential().clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;
    use crate::router::{AttachmentVerdict, Notary as _};
    use crate::transport::testdata::identity;

    #[test]
    fn a_proof_is_valid_for_its_neighbour_and_renewed_in_time() {
        let (mut attaching, now) = attaching();
        let neighbour: NodeId = "n".parse().unwrap();
        let proof = attaching.prove(&neighbour, now).unwrap();
        assert_eq!((proof.stub().as_str(), proof.neighbour()), ("uri~x1", &neighbour));
        let notary = CertificateNotary::new(&identity("dns"), crate::transport::clock::system);
        let AttachmentVerdict::Valid { remaining } = notary.verify_attachment(&proof) else {
            panic!("a valid proof");
        };
        assert!(remaining <= LIFE && remaining > LIFE - Duration::from_secs(60), "{remaining:?}");
        assert!(!attaching.is_due(now + RENEW_EVERY - Duration::from_millis(1)));
        assert!(attaching.is_due(now + RENEW_EVERY));
        assert!(!attaching.is_due(now + RENEW_EVERY), "once");
    }

    #[test]
    fn what_a_lost_neighbour_holds_is_older() {
        let (mut attaching, now) = attaching();
        let lost = attaching.prove(&"lost".parse().unwrap(), now).unwrap();
        attaching.detached();
        let kept = attaching.prove(&"kept".parse().unwrap(), now).unwrap();
        assert!(kept.version() > lost.version());
    }

    #[test]
    fn a_proof_of_one_node_is_none_of_another() {
        let (mut attaching, now) = attaching();
        let proof = attaching.prove(&"n".parse().unwrap(), now).unwrap();
        let notary = CertificateNotary::new(&identity("dns"), crate::transport::clock::system);
        let bodies = [
            Attachment::body(&"dns".parse().unwrap(), proof.neighbour(), proof.version(), proof.expires()),
            Attachment::body(proof.stub(), &"m".parse().unwrap(), proof.version(), proof.expires()),
            Attachment::body(proof.stub(), proof.neighbour(), proof.version(), proof.expires() + 1),
        ];
        for body in bodies {
            let stolen =
                Attachment::decode(body, proof.signature().clone(), proof.credential().clone()).unwrap();
            assert_eq!(notary.verify_attachment(&stolen), AttachmentVerdict::Forged, "{:?}", stolen.stub());
        }
    }

    fn attaching() -> (Attaching, Instant) {
        let notary = CertificateNotary::new(&identity("uri"), crate::transport::clock::system);
        (Attaching::new("uri~x1".parse().unwrap(), Arc::new(notary), 1, 2), clock::now())
    }
}
