//! A notary that proves nothing, for the bytes that signatures take.

use std::time::Duration;

use bytes::Bytes;
use receptor_quic::NodeId;
use receptor_quic::router::{
    Attachment, AttachmentVerdict, CredentialName, Notary, Proof, Verdict,
};

/// Bytes of a signature: as many as one by P-256 has in a certificate's form, eight more than one
/// by Ed25519.
const SIGNATURE: usize = 72;
/// How long an attachment holds.
const LIFE: Duration = Duration::from_secs(7_200);

/// Signs by a hash, at the length of a true signature. Credentials are short: they are pulled once,
/// before anything is measured.
#[derive(Debug)]
pub(crate) struct Notional(NodeId);

impl Notional {
    pub(crate) fn of(id: &NodeId) -> Self {
        Self(id.clone())
    }
}

impl Notary for Notional {
    fn credential(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_str().as_bytes())
    }

    fn sign(&self, record: &[u8]) -> Option<Bytes> {
        Some(CredentialName::of(record).0.iter().copied().cycle().take(SIGNATURE).collect())
    }

    fn verify(
        &self,
        origin: &NodeId,
        record: &[u8],
        proof: &Proof,
        credential: Option<&[u8]>,
    ) -> Verdict {
        match credential {
            None => Verdict::NeedsCredential,
            Some(name)
                if name == origin.as_str().as_bytes()
                    && self.sign(record) == Some(proof.signature.clone()) =>
            {
                Verdict::Valid
            }
            Some(_) => Verdict::Forged,
        }
    }

    fn verify_attachment(&self, attachment: &Attachment) -> AttachmentVerdict {
        let names = attachment.credential() == attachment.stub().base().as_str();
        if names && self.sign(attachment.bytes()).as_ref() == Some(attachment.signature()) {
            return AttachmentVerdict::Valid { remaining: LIFE };
        }
        AttachmentVerdict::Forged
    }
}
