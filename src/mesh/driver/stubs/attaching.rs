//! How a stub proves to its neighbours that it is attached to them, and how a neighbour handles the
//! proof.

mod drive;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::id::{NodeId, Version};
use crate::mesh::links::trust::notary::{CertificateNotary, MAX_ATTACHMENT_LIFE};
use crate::router::Attachment;
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
    pub(crate) fn new(
        me: NodeId,
        notary: Arc<CertificateNotary>,
        epoch: u64,
        instance: u64,
    ) -> Self {
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
            Attachment::body(
                &"dns".parse().unwrap(),
                proof.neighbour(),
                proof.version(),
                proof.expires(),
            ),
            Attachment::body(proof.stub(), &"m".parse().unwrap(), proof.version(), proof.expires()),
            Attachment::body(proof.stub(), proof.neighbour(), proof.version(), proof.expires() + 1),
        ];
        for body in bodies {
            let stolen =
                Attachment::decode(body, proof.signature().clone(), proof.credential().clone())
                    .unwrap();
            assert_eq!(
                notary.verify_attachment(&stolen),
                AttachmentVerdict::Forged,
                "{:?}",
                stolen.stub()
            );
        }
    }

    fn attaching() -> (Attaching, Instant) {
        let notary = CertificateNotary::new(&identity("uri"), crate::transport::clock::system);
        (Attaching::new("uri~x1".parse().unwrap(), Arc::new(notary), 1, 2), clock::now())
    }
}
