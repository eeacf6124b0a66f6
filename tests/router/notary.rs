//! A notary that proves nothing: whoever knows a node's name can sign for it. For simulators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use receptor_quic::NodeId;
use receptor_quic::id::Version;
use receptor_quic::router::{
    Attachment, AttachmentVerdict, CredentialName, Distrust, Notary, Proof, Record, Verdict,
};

/// How long an attachment holds.
pub(crate) const LIFE: Duration = Duration::from_secs(7_200);

/// Signs by a hash. Its credential is the text `[WHY:]ID#SERIAL`; one with a why is not trusted for
/// that reason.
#[derive(Debug)]
pub(crate) struct Plain {
    credential: String,
    /// How long all credentials remain valid, in seconds; `u64::MAX` if they do not expire.
    remaining: Arc<AtomicU64>,
}

impl Plain {
    pub(crate) fn of(id: &NodeId) -> Self {
        Self::renewed(id, 1)
    }

    pub(crate) fn renewed(id: &NodeId, serial: u32) -> Self {
        Self { credential: format!("{id}#{serial}"), remaining: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Genuine, but for this.
    pub(crate) fn untrusted(id: &NodeId, why: &str) -> Self {
        assert!(distrust(why).is_some(), "{why}");
        Self { credential: format!("{why}:{id}#1"), ..Self::of(id) }
    }

    /// One by which credentials expire when `remaining` says so.
    pub(crate) fn expiring(id: &NodeId, remaining: Arc<AtomicU64>) -> Self {
        Self { remaining, ..Self::of(id) }
    }

    /// The record with a proof of this notary's.
    pub(crate) fn seal(&self, record: &Record) -> Record {
        let signature = self.sign(record.advertisement().bytes()).unwrap();
        let credential = CredentialName::of(self.credential.as_bytes());
        record.clone().with_proof(Proof { credential, signature }.encode())
    }

    /// That the stub of this notary is attached to `neighbour`.
    pub(crate) fn attach(&self, stub: &NodeId, neighbour: &NodeId, version: Version) -> Attachment {
        let body = Attachment::body(stub, neighbour, version, u64::MAX);
        let signature = signature(self.credential.as_bytes(), &body);
        Attachment::decode(body, signature, self.credential()).expect("it is short")
    }

    pub(crate) fn name(&self) -> CredentialName {
        CredentialName::of(self.credential.as_bytes())
    }
}

impl Notary for Plain {
    fn credential(&self) -> Bytes {
        self.credential.clone().into()
    }

    fn sign(&self, record: &[u8]) -> Option<Bytes> {
        Some(signature(self.credential.as_bytes(), record))
    }

    fn verify(
        &self,
        origin: &NodeId,
        record: &[u8],
        proof: &Proof,
        credential: Option<&[u8]>,
    ) -> Verdict {
        let Some(credential) = credential else { return Verdict::NeedsCredential };
        let text = std::str::from_utf8(credential).unwrap_or_default();
        let (why, named) = text.split_once(':').unwrap_or(("", text));
        if named.split_once('#').is_none_or(|(id, _)| id != origin.as_str()) {
            return Verdict::Forged;
        }
        if signature(credential, record) != proof.signature {
            return Verdict::Forged;
        }
        distrust(why).map_or(Verdict::Valid, Verdict::Untrusted)
    }

    fn remaining(&self, _: &[u8]) -> Option<Duration> {
        let seconds = self.remaining.load(Ordering::Relaxed);
        (seconds < u64::MAX).then_some(Duration::from_secs(seconds))
    }

    fn verify_attachment(&self, attachment: &Attachment) -> AttachmentVerdict {
        let credential = attachment.credential();
        let proof = Proof {
            credential: attachment.credential_name(),
            signature: attachment.signature().clone(),
        };
        match self.verify(&attachment.stub().base(), attachment.bytes(), &proof, Some(credential)) {
            Verdict::Valid => AttachmentVerdict::Valid { remaining: LIFE },
            Verdict::Untrusted(why) => AttachmentVerdict::Untrusted(why),
            _ => AttachmentVerdict::Forged,
        }
    }
}

fn distrust(why: &str) -> Option<Distrust> {
    match why {
        "expired" => Some(Distrust::Expired),
        "revoked" => Some(Distrust::Revoked),
        "stranger" => Some(Distrust::UnknownIssuer),
        _ => None,
    }
}

fn signature(credential: &[u8], record: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&CredentialName::of(&[b"signed by ", credential, record].concat()).0)
}
