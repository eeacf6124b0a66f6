//! What the peer of a live connection has proven about itself, and its standing under the current
//! trust.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::authenticator::{
    Authenticator, AuthenticatorError, Binding, CredentialHash, chain_hash,
};
use super::clock;
use super::identity::verify::PeerVerifier;
use super::identity::verify::credential;
use super::identity::{Trust, roles_in_certificate};
use super::refusal::{Refusal, RefusalReason};
use crate::id::NodeId;

/// The newest certificate that a peer has proven, by which its connection is judged.
///
/// A renewed certificate can arrive before this node trusts its issuer: the steps of a CA rotation
/// race between nodes. The last one that was not accepted is kept and judged again whenever the
/// connection is.
#[derive(Debug)]
pub(crate) struct Standing {
    node: NodeId,
    binding: Binding,
    proven: Vec<CertificateDer<'static>>,
    hash: CredentialHash,
    pending: Option<Authenticator>,
    /// Before this, another certificate waits.
    next_offer: Option<Instant>,
}

/// What became of an authenticator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offered {
    /// It is the one that the connection is judged by already.
    Known,
    /// The connection is judged by it from now on.
    Accepted,
    /// It is not accepted at present; it is kept.
    Kept,
    /// It came too soon after the one before; it is kept until [`Standing::OFFER_EVERY`] has
    /// passed.
    Early,
}

impl Standing {
    /// Minimum interval between verifications of a certificate, which are expensive.
    pub(crate) const OFFER_EVERY: Duration = Duration::from_secs(1);

    /// `proven` is the chain of the handshake, `binding` what the peer signs.
    pub(crate) fn new(
        node: NodeId,
        binding: Binding,
        proven: Vec<CertificateDer<'static>>,
    ) -> Self {
        let hash = chain_hash(&proven);
        Self { node, binding, proven, hash, pending: None, next_offer: None }
    }

    /// Takes an authenticator from the peer.
    ///
    /// # Errors
    /// It proves nothing: the connection is to be closed.
    pub(crate) fn offer(
        &mut self,
        proof: Authenticator,
        trust: &Trust,
        wall: SystemTime,
        now: Instant,
    ) -> Result<Offered, AuthenticatorError> {
        if proof.hash() == self.hash {
            return Ok(Offered::Known);
        }
        if self.next_offer.is_some_and(|next| now < next) {
            self.pending = Some(proof);
            return Ok(Offered::Early);
        }
        self.next_offer = Some(now + Self::OFFER_EVERY);
        self.pending = Some(proof);
        self.judge_pending(trust, wall)
    }

    /// Whether another authenticator may be verified now.
    pub(crate) fn may_judge(&self, now: Instant) -> bool {
        self.pending.is_some() && self.next_offer.is_none_or(|next| now >= next)
    }

    /// Judges the certificate that waits, if one does.
    pub(crate) fn judge_pending(
        &mut self,
        trust: &Trust,
        wall: SystemTime,
    ) -> Result<Offered, AuthenticatorError> {
        let Some(proof) = self.pending.take() else { return Ok(Offered::Known) };
        let chain = match proof.verify(&self.binding) {
            Ok(chain) => chain,
            // A later version may know the scheme; this one goes on with what it has.
            Err(AuthenticatorError::UnknownScheme) => return Ok(Offered::Kept),
            Err(error) => return Err(error),
        };
        if let Err(why) = self.verify(&chain, trust, wall) {
            tracing::debug!(node = %self.node, reason = %why.reason, "renewed certificate is not accepted yet");
            self.pending = Some(proof);
            return Ok(Offered::Kept);
        }
        self.hash = proof.hash();
        self.proven = chain;
        Ok(Offered::Accepted)
    }

    /// Whether the newest certificate is accepted at this time, and until when that is so unless
    /// trust changes, in seconds since 1970.
    ///
    /// # Errors
    /// It is not accepted, and why.
    pub(crate) fn judge(&mut self, trust: &Trust, wall: SystemTime) -> Result<u64, Refusal> {
        // An authenticator that proves nothing cost its sender the connection when it came.
        let _ = self.judge_pending(trust, wall);
        self.verify(&self.proven, trust, wall)?;
        Ok(self.good_until(wall))
    }

    /// The roles in the newest certificate.
    pub(crate) fn roles(&self) -> BTreeSet<String> {
        self.proven.first().map(|own| roles_in_certificate(own)).unwrap_or_default()
    }

    /// The last second at which the newest certificate is valid, in seconds since 1970.
    pub(crate) fn good_until(&self, wall: SystemTime) -> u64 {
        let now = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        credential::holds_while_valid(&self.proven, now).1
    }

    fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        trust: &Trust,
        wall: SystemTime,
    ) -> Result<(), Refusal> {
        let Some((own, intermediates)) = chain.split_first() else {
            return Err(Refusal::here(RefusalReason::NoClientCertificate));
        };
        // The expected id is the one that the connection was made for: a certificate for another is
        // not a renewal.
        PeerVerifier::new(trust.clone(), Some(self.node.clone()))
            .verify(own, intermediates, self.binding.signer, clock::unix(wall))
            .map(drop)
            .map_err(|error| Refusal::here(RefusalReason::from_certificate_error(&error)))
    }
}
