//! Certificate chains received outside of a handshake: their ids and whether they are trusted.

use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lru::LruCache;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

pub(crate) use super::chain::{MAX_CREDENTIAL, Name, decode, encode};
use super::{PeerRole, PeerVerifier};
use crate::id::NodeId;
use crate::sync::lock;
use crate::transport::identity::names::ids_in_certificate;
use crate::transport::identity::signature::{self, SignatureError};
use crate::transport::identity::trust::Trust;

mod signatures;
use signatures::Signatures;

/// Verifies signatures of other nodes with the chains that they sent.
///
/// The path from a chain to a root is verified once and cached by the chain's hash until its
/// validity changes, so that each message costs one signature check. A change of trust requires a
/// new verifier.
pub(crate) struct Verifier {
    trust: Trust,
    chains: PeerVerifier,
    known: Mutex<LruCache<Name, Known, BuildHasherDefault<DefaultHasher>>>,
    /// Those that [`verify_ahead`](Self::verify_ahead) has found to be right.
    signatures: Signatures,
    /// Signatures that [`verify`](Self::verify) had to check itself.
    #[cfg(test)]
    checked: std::sync::atomic::AtomicU64,
}

/// Why what was signed is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// No verifier that trusts the chain could have accepted it.
    Forged,
    /// The chain is not trusted here.
    Fault(Fault),
}

/// Why a chain is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Expired,
    NotYetValid,
    Revoked,
    Denied,
    UnknownIssuer,
    WrongUsage,
}

/// What was found about a chain, and for which seconds since 1970 that holds.
#[derive(Clone, Debug)]
struct Known {
    standing: Standing,
    holds: (u64, u64),
}

#[derive(Clone, Debug)]
enum Standing {
    /// A trusted CA issued it to these ids at some time.
    Genuine {
        ids: Vec<NodeId>,
        fault: Option<Fault>,
        /// The certificate of the node itself.
        own: CertificateDer<'static>,
    },
    /// Not issued by a trusted CA. Its names are not read.
    Stranger(Fault),
    /// It is not a certificate.
    Unreadable,
}

impl Verifier {
    /// Chains that are remembered: more than a node keeps records of others.
    const MAX_KNOWN: usize = 32_768;

    pub(crate) fn new(trust: Trust) -> Self {
        let chains = PeerVerifier::new(trust.clone(), None);
        let known = LruCache::unbounded_with_hasher(BuildHasherDefault::new());
        Self {
            trust,
            chains,
            known: Mutex::new(known),
            signatures: Signatures::new(),
            #[cfg(test)]
            checked: Default::default(),
        }
    }

    /// Whether transit is permitted through the origin of a record that was verified with this
    /// credential.
    pub(crate) fn permits_transit(&self, origin: &NodeId, credential: Option<&[u8]>) -> bool {
        let chain = credential.and_then(decode);
        self.trust.permits_transit(
            origin,
            chain.as_ref().and_then(|chain| chain.first()).map(|der| &der[..]),
        )
    }

    /// Whether `signer` signed this, by the key of the `credential`, of which `name` is a
    /// collision-free hash.
    pub(crate) fn verify(
        &self,
        signer: &NodeId,
        message: &[u8],
        signature: &[u8],
        (name, credential): (Name, &[u8]),
        now: SystemTime,
    ) -> Result<(), Objection> {
        let (ids, fault, own) =
            match self.standing_of(name, credential, now).ok_or(Objection::Forged)? {
                Standing::Genuine { ids, fault, own } => (ids, fault, own),
                Standing::Stranger(fault) => return Err(Objection::Fault(fault)),
                Standing::Unreadable => return Err(Objection::Forged),
            };
        if !ids.contains(signer) {
            return Err(Objection::Forged);
        }
        if !self.signatures.contains(&Signatures::key(name, message, signature)) {
            #[cfg(test)]
            self.checked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let own = EndEntityCert::try_from(&own).map_err(|_| Objection::Forged)?;
            signature::verify(&own, message, signature).map_err(|error| match error {
                SignatureError::UnknownScheme => Objection::Fault(Fault::WrongUsage),
                SignatureError::Wrong => Objection::Forged,
            })?;
        }
        fault.map_or(Ok(()), |fault| Err(Objection::Fault(fault)))
    }

    /// Checks the signature of a message and remembers it if it is right, so that
    /// [`verify`](Self::verify) need not. Does nothing if the chain of this name is not known to be
    /// genuine, or the signature was checked before.
    pub(crate) fn verify_ahead(
        &self,
        name: Name,
        message: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) {
        let key = Signatures::key(name, message, signature);
        if self.signatures.contains(&key) {
            return;
        }
        let Some(Standing::Genuine { own, .. }) = self.recall(name, seconds(now)) else { return };
        let Ok(own) = EndEntityCert::try_from(&own) else { return };
        if signature::verify(&own, message, signature).is_ok() {
            self.signatures.insert(key);
        }
    }

    /// Whether [`verify_ahead`](Self::verify_ahead) has found this signature to be right.
    pub(crate) fn was_verified(&self, name: Name, message: &[u8], signature: &[u8]) -> bool {
        self.signatures.contains(&Signatures::key(name, message, signature))
    }

    /// How many signatures [`verify`](Self::verify) had to check itself.
    #[cfg(test)]
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How long a chain that is accepted now remains valid, zero once it has expired; `None` if it
    /// is not accepted for another reason. `name` is a collision-free hash of the credential.
    pub(crate) fn remaining(
        &self,
        name: Name,
        credential: &[u8],
        now: SystemTime,
    ) -> Option<Duration> {
        let chain = decode(credential)?;
        match self.standing(name, &chain, now) {
            Standing::Genuine { fault: None, .. } => {
                let until = self.known().get(&name)?.holds.1.saturating_add(1);
                // Past the largest time that the system knows, it does not expire.
                let until = UNIX_EPOCH.checked_add(Duration::from_secs(until))?;
                Some(until.duration_since(now).unwrap_or_default())
            }
            Standing::Genuine { fault: Some(Fault::Expired), .. } => Some(Duration::ZERO),
            Standing::Genuine { .. } | Standing::Stranger(_) | Standing::Unreadable => None,
        }
    }

    /// Finds and remembers what [`verify`](Self::verify) needs to know of a chain, whose
    /// collision-free hash is `name`.
    pub(crate) fn prepare(&self, name: Name, credential: &[u8], now: SystemTime) {
        if let Some(chain) = decode(credential) {
            self.standing(name, &chain, now);
        }
    }

    /// Whether the chain of this name is remembered, and what was found still holds.
    pub(crate) fn knows(&self, name: Name, now: SystemTime) -> bool {
        self.recall(name, seconds(now)).is_some()
    }

    /// What is known of a chain, or is found by reading it. `None` if it is not a chain.
    fn standing_of(&self, name: Name, credential: &[u8], now: SystemTime) -> Option<Standing> {
        let known = self.recall(name, seconds(now));
        known.or_else(|| Some(self.standing(name, &decode(credential)?, now)))
    }

    fn standing(&self, name: Name, chain: &[CertificateDer<'_>], now: SystemTime) -> Standing {
        let now = seconds(now);
        if let Some(standing) = self.recall(name, now) {
            return standing;
        }
        let found = self.judge(chain, now);
        let mut known = self.known();
        known.put(name, found.clone());
        if known.len() > Self::MAX_KNOWN {
            known.pop_lru();
        }
        found.standing
    }

    fn recall(&self, name: Name, now: u64) -> Option<Standing> {
        let mut known = self.known();
        let known =
            known.get(&name).filter(|known| (known.holds.0..=known.holds.1).contains(&now))?;
        Some(known.standing.clone())
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: u64) -> Known {
        let always = |standing| Known { standing, holds: (0, u64::MAX) };
        let Some((own, above)) = chain.split_first() else { return always(Standing::Unreadable) };
        let Ok(certificate) = EndEntityCert::try_from(own) else {
            return always(Standing::Unreadable);
        };
        let at = |time| self.find_path(&certificate, above, time);
        let (fault, holds) = match at(now) {
            Ok(()) => (None, holds_while_valid(chain, now)),
            Err(Fault::Revoked) => (Some(Fault::Revoked), (0, u64::MAX)),
            Err(fault @ (Fault::Expired | Fault::NotYetValid)) => {
                // Whether it was valid before: an untrusted chain may be outside of its validity,
                // too.
                let together = validities(chain).map(|all| intersection(all.into_iter()));
                let Some((from, until)) = together.filter(|(from, until)| from <= until) else {
                    return always(Standing::Stranger(Fault::UnknownIssuer));
                };
                if !matches!(at(now.clamp(from, until)), Ok(()) | Err(Fault::Revoked)) {
                    return always(Standing::Stranger(Fault::UnknownIssuer));
                }
                let holds = match now {
                    _ if now > until => (until + 1, u64::MAX),
                    _ if now < from => (0, from - 1),
                    _ => (now, now),
                };
                (Some(fault), holds)
            }
            Err(fault) => return always(Standing::Stranger(fault)),
        };
        // Only now: names are read of nothing that a trusted CA has not signed.
        let ids = ids_in_certificate(own).unwrap_or_default();
        let admitted = self.trust.admit(&ids, &certificate.subject_public_key_info());
        let fault = fault.or_else(|| admitted.is_err().then_some(Fault::Denied));
        Known { standing: Standing::Genuine { ids, fault, own: own.clone().into_owned() }, holds }
    }

    /// Whether there is a path to a root at this time, for either side of a link.
    fn find_path(
        &self,
        certificate: &EndEntityCert<'_>,
        above: &[CertificateDer<'_>],
        time: u64,
    ) -> Result<(), Fault> {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
        let path = |role| self.chains.verify_chain(certificate, above, role, time);
        let found = match path(PeerRole::Acceptor) {
            Err(CertificateError::InvalidPurpose) => path(PeerRole::Dialler),
            other => other,
        };
        found.map_err(|error| match error {
            CertificateError::ExpiredContext { .. } | CertificateError::Expired => Fault::Expired,
            CertificateError::NotValidYetContext { .. } => Fault::NotYetValid,
            CertificateError::Revoked => Fault::Revoked,
            CertificateError::InvalidPurpose => Fault::WrongUsage,
            _ => Fault::UnknownIssuer,
        })
    }

    fn known(&self) -> MutexGuard<'_, LruCache<Name, Known, BuildHasherDefault<DefaultHasher>>> {
        lock(&self.known)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("trust", &self.trust)
            .field("known", &self.known().len())
            .field("signatures", &self.signatures.len())
            .finish_non_exhaustive()
    }
}

/// The seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long a path that is there now stays. Certificates that are out of their time are not on it.
pub(in crate::transport) fn holds_while_valid(
    chain: &[CertificateDer<'_>],
    now: u64,
) -> (u64, u64) {
    let Some(all) = validities(chain) else { return (now, now) };
    intersection(all.into_iter().filter(|(from, until)| (*from..=*until).contains(&now)))
}

/// The first and last second since 1970 at which each certificate is valid; `None` if one cannot be
/// parsed.
fn validities(chain: &[CertificateDer<'_>]) -> Option<Vec<(u64, u64)>> {
    let validity = |der: &CertificateDer<'_>| {
        let validity = Certificate::from_der(der).ok()?.tbs_certificate.validity;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        Some((seconds(validity.not_before), seconds(validity.not_after)))
    };
    chain.iter().map(validity).collect()
}

fn intersection(validities: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    validities
        .fold((0, u64::MAX), |(from, until), (after, before)| (from.max(after), until.min(before)))
}

#[cfg(test)]
mod tests;
