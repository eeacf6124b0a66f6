//! The notary of real nodes: records are signed with the key of the node's certificate.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::id::{NodeId, Version};
use crate::router::{
    Advertisement, Attachment, AttachmentVerdict, CredentialName, Distrust, Notary, Proof, Verdict,
};
use crate::transport::Identity;
use crate::transport::credential::{self, Fault, MAX_CREDENTIAL, Objection, Verifier};
use crate::transport::signature::Signer;

/// What every signed message begins with: a signature over a record is one over nothing else.
const CONTEXT: &[u8] = b"receptor-quic record 1\0";
/// The same for a signature over an attachment.
const ATTACHMENT_CONTEXT: &[u8] = b"receptor-quic attachment 1\0";
/// How long an attachment holds after it was verified, if it does not say less. Nodes sign for half
/// of that.
pub(crate) const MAX_ATTACHMENT_LIFE: Duration = Duration::from_secs(4 * 3_600);

const _: () = assert!(MAX_CREDENTIAL <= Proof::MAX_CREDENTIAL);

/// Signs records with the key of an [`Identity`], and verifies those of others by its
/// [`Trust`](crate::Trust), as links do: chain, revocation lists, names, deny list, allow list and
/// pins. A [`Node`](crate::Node) has one; for simulators and benchmarks it can be made apart.
///
/// The credential is the certificate chain. Whether it is trusted is remembered, for 32,768 chains,
/// so that a record costs one signature. It does not change: a reload takes a new one. `Debug`
/// never shows the key.
pub struct CertificateNotary {
    credential: Bytes,
    name: CredentialName,
    signer: Signer,
    verifier: Verifier,
    clock: fn() -> SystemTime,
}

impl CertificateNotary {
    /// `clock` returns the time at which certificates must be valid.
    #[must_use]
    pub fn new(identity: &Identity, clock: fn() -> SystemTime) -> Self {
        let credential = credential::encode(&identity.certified().cert);
        Self {
            name: CredentialName::of(&credential),
            credential,
            signer: Signer::new(&identity.certified().key),
            verifier: Verifier::new(identity.trust().clone()),
            clock,
        }
    }

    /// Proves that `stub`, whose certificate this is, is attached to `neighbour`; valid for `life`
    /// from now on. `None` if the key cannot sign now.
    pub(crate) fn attach(
        &self,
        stub: &NodeId,
        neighbour: &NodeId,
        version: Version,
        life: Duration,
    ) -> Option<Attachment> {
        let expires = unix_secs((self.clock)()).saturating_add(life.as_secs());
        let body = Attachment::body(stub, neighbour, version, expires);
        let signature = self.signer.sign(&attachment_message(self.name, &body))?;
        Attachment::decode(body, signature, self.credential.clone()).ok()
    }

    /// Looks for the path from a credential to a root and remembers what it finds, so that
    /// [`Notary::verify`] is left with one signature.
    pub(crate) fn prepare(&self, credential: &[u8]) {
        self.verifier.prepare(CredentialName::of(credential).0, credential, (self.clock)());
    }

    /// Checks the signature of a record whose credential is [known](Self::knows), so that
    /// [`Notary::verify`] need not.
    pub(crate) fn verify_ahead(&self, record: &Advertisement) {
        if let Some(Proof { credential, signature }) = Proof::decode(record.proof()) {
            let message = message(credential, record.bytes());
            self.verifier.verify_ahead(credential.0, &message, &signature, (self.clock)());
        }
    }

    /// Whether [`verify_ahead`](Self::verify_ahead) has found the signature of this record to be
    /// right.
    pub(crate) fn was_verified(&self, record: &Advertisement) -> bool {
        Proof::decode(record.proof()).is_some_and(|Proof { credential, signature }| {
            self.verifier.was_verified(
                credential.0,
                &message(credential, record.bytes()),
                &signature,
            )
        })
    }

    /// As [`verify_ahead`](Self::verify_ahead), for a stub's attachment.
    pub(crate) fn verify_attachment_ahead(&self, attachment: &Attachment) {
        let name = attachment.credential_name();
        let message = attachment_message(name, attachment.bytes());
        self.verifier.verify_ahead(name.0, &message, attachment.signature(), (self.clock)());
    }

    /// How many signatures were checked where the verdict was needed, not ahead.
    #[cfg(test)]
    pub(crate) fn checked(&self) -> u64 {
        self.verifier.checked()
    }

    /// Whether the verdict on a credential of this name is known at this time.
    pub(crate) fn knows(&self, name: CredentialName) -> bool {
        self.verifier.knows(name.0, (self.clock)())
    }
}

/// Whether a stub has signed an attachment, and for how long it holds.
pub(crate) fn verify_attachment(
    verifier: &Verifier,
    attachment: &Attachment,
    now: SystemTime,
) -> AttachmentVerdict {
    let (name, credential) = (attachment.credential_name(), &attachment.credential()[..]);
    let message = attachment_message(name, attachment.bytes());
    // No certificate carries the suffix of an ephemeral's id.
    let signer = attachment.stub().base();
    match verifier.verify(&signer, &message, attachment.signature(), (name.0, credential), now) {
        Ok(()) => match attachment.expires().checked_sub(unix_secs(now)) {
            None | Some(0) => AttachmentVerdict::Expired,
            Some(left) => AttachmentVerdict::Valid {
                remaining: Duration::from_secs(left).min(MAX_ATTACHMENT_LIFE),
            },
        },
        Err(Objection::Forged) => AttachmentVerdict::Forged,
        Err(Objection::Fault(fault)) => AttachmentVerdict::Untrusted(distrust(fault)),
    }
}

fn unix_secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Notary for CertificateNotary {
    fn credential(&self) -> Bytes {
        self.credential.clone()
    }

    fn sign(&self, record: &[u8]) -> Option<Bytes> {
        self.signer.sign(&message(self.name, record))
    }

    fn verify(
        &self,
        origin: &NodeId,
        record: &[u8],
        proof: &Proof,
        credential: Option<&[u8]>,
    ) -> Verdict {
        let Some(credential) = credential else { return Verdict::NeedsCredential };
        let name = proof.credential;
        if CredentialName::of(credential) != name {
            return Verdict::Forged;
        }
        let message = message(name, record);
        let now = (self.clock)();
        match self.verifier.verify(origin, &message, &proof.signature, (name.0, credential), now) {
            Ok(()) => Verdict::Valid,
            Err(Objection::Forged) => Verdict::Forged,
            Err(Objection::Fault(fault)) => Verdict::Untrusted(distrust(fault)),
        }
    }

    fn remaining(&self, credential: &[u8]) -> Option<Duration> {
        self.verifier.remaining(CredentialName::of(credential).0, credential, (self.clock)())
    }

    fn permits_transit(&self, origin: &NodeId, credential: Option<&[u8]>) -> bool {
        self.verifier.permits_transit(origin, credential)
    }

    fn verify_attachment(&self, attachment: &Attachment) -> AttachmentVerdict {
        verify_attachment(&self.verifier, attachment, (self.clock)())
    }
}

impl fmt::Debug for CertificateNotary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateNotary")
            .field("credential", &self.name)
            .field("signer", &self.signer)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

/// What is signed. The credential is part of it, so that no relay can substitute another one of the
/// same key in its place.
fn message(credential: CredentialName, record: &[u8]) -> Vec<u8> {
    [CONTEXT, &credential.0, record].concat()
}

fn attachment_message(credential: CredentialName, body: &[u8]) -> Vec<u8> {
    [ATTACHMENT_CONTEXT, &credential.0, body].concat()
}

fn distrust(fault: Fault) -> Distrust {
    match fault {
        Fault::Expired => Distrust::Expired,
        Fault::NotYetValid => Distrust::NotYetValid,
        Fault::Revoked => Distrust::Revoked,
        Fault::Denied => Distrust::Denied,
        Fault::UnknownIssuer => Distrust::UnknownIssuer,
        Fault::WrongUsage => Distrust::WrongUsage,
    }
}

#[cfg(test)]
mod tests;
