//! Whose certificates a node accepts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList, VerifiedPath};

use super::files::{FileError, Pem};
use super::fingerprint::Fingerprint;
use super::key::to_pem;
use super::names::roles_in_certificate;
use super::pem;
use super::relay_rules::RelayRule;
use super::verify::ca_limits::CaLimits;
use super::verify::certificate_error::described;
use crate::id::NodeId;
use crate::policy::{Policy, Subject};

/// Whose certificates a node accepts: those that chain to one of the given root certificates, minus
/// what is revoked or denied.
///
/// Only the given roots count, never the operating system's or the public web's. What their
/// certificates limit is enforced: the path length, and name constraints. Below a CA that
/// constrains DNS names, URIs or otherNames, a certificate may carry ids only in the kinds of name
/// that it constrains. The validity of a root is not checked: it is trusted for as long as it is
/// configured. On top of the roots come, each optional:
///
/// - revocation lists ([`with_crls`](Self::with_crls)),
/// - a deny list ([`with_denied`](Self::with_denied)): refused if the certificate carries any of
///   these ids,
/// - an allow list ([`with_allowed`](Self::with_allowed)): refused unless the certificate carries
///   one of these ids,
/// - pins ([`with_pins`](Self::with_pins)): refused unless the certificate's public key is one of
///   these,
/// - rules for relays ([`with_relays`](Self::with_relays)): who may carry the packets of others.
///
/// Cloning is cheap (a reference count). A `Trust` does not change once it is in use: a reload
/// makes a new one.
#[derive(Clone)]
pub struct Trust {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    /// Of each anchor.
    limits: Vec<CaLimits>,
    /// Revocation lists in rounds with at most one list per issuer.
    crl_rounds: Vec<Vec<Arc<CertRevocationList<'static>>>>,
    denied: BTreeSet<NodeId>,
    allowed: Option<BTreeSet<NodeId>>,
    pins: Option<BTreeSet<Fingerprint>>,
    relays: Option<BTreeSet<RelayRule>>,
    /// Who else says which nodes may carry packets of others: the policy of this node.
    policy: Option<(Arc<Policy>, NodeId)>,
}

type Root = CertificateDer<'static>;

impl Trust {
    /// Trusts one or more root certificates, given as PEM. Other sections of the text are skipped.
    ///
    /// # Errors
    /// The text contains no certificate, or one that cannot be parsed.
    pub fn from_pem(roots: &str) -> Result<Self, TrustError> {
        Self::from_roots(&Pem::given("roots", roots))
    }

    pub(crate) fn from_roots(file: &Pem) -> Result<Self, TrustError> {
        let unreadable = |number: usize, problem: String| TrustError::BadRoot {
            origin: file.origin.clone(),
            number,
            problem,
        };
        let mut roots: Vec<Root> = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(file.text.as_bytes()) {
            roots.push(
                certificate.map_err(|error| unreadable(roots.len() + 1, pem::problem(&error)))?,
            );
        }
        if roots.is_empty() {
            return Err(TrustError::NoRoots { origin: file.origin.clone() });
        }
        let anchors = roots
            .iter()
            .zip(1..)
            .map(|(root, number)| {
                webpki::anchor_from_trusted_cert(root)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|error| unreadable(number, described(&error).to_owned()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                limits: roots.iter().map(|root| CaLimits::of(root)).collect(),
                roots,
                anchors,
                crl_rounds: Vec::new(),
                denied: BTreeSet::new(),
                allowed: None,
                pins: None,
                relays: None,
                policy: None,
            }),
        })
    }

    /// Adds certificate revocation lists, given as PEM. A certificate is refused if any list
    /// revokes it or an intermediate CA above it; one that no list covers is accepted.
    ///
    /// The age of a list is not checked: a list past its next update still revokes its entries, so
    /// that a missed renewal does not stop the mesh. Replacing the lists is up to the operator.
    /// Each further list by the same issuer makes every handshake verify the chain once more; lists
    /// by different issuers share one pass.
    ///
    /// # Errors
    /// The text contains no list, or one that cannot be parsed. Signatures of lists are checked
    /// when they are used.
    pub fn with_crls(self, pem: &str) -> Result<Self, TrustError> {
        self.with_crls_from(&Pem::given("revocation lists", pem))
    }

    /// As [`with_crls`](Self::with_crls), from a file.
    ///
    /// # Errors
    /// As [`with_crls`](Self::with_crls); or the file cannot be read.
    pub fn with_crl_file(self, path: &std::path::Path) -> Result<Self, TrustError> {
        self.with_crls_from(&Pem::read(path)?)
    }

    fn with_crls_from(self, file: &Pem) -> Result<Self, TrustError> {
        let unreadable =
            |problem: String| TrustError::BadCrl { origin: file.origin.clone(), problem };
        let mut added = Vec::new();
        for list in CertificateRevocationListDer::pem_slice_iter(file.text.as_bytes()) {
            let list = list.map_err(|error| unreadable(pem::problem(&error)))?;
            let list = OwnedCertRevocationList::from_der(&list).map_err(|error| {
                unreadable(format!(
                    "{}; it must be of version 2, with a CRL number (RFC 5280, section 5)",
                    described(&error)
                ))
            })?;
            added.push(Arc::new(CertRevocationList::from(list)));
        }
        if added.is_empty() {
            return Err(unreadable("there is no revocation list (PEM) in it".to_owned()));
        }
        if self.crl_count() + added.len() > Self::MAX_CRLS {
            return Err(unreadable(format!(
                "there are more than {} revocation lists",
                Self::MAX_CRLS
            )));
        }
        Ok(self.change(|inner| added.into_iter().for_each(|list| inner.add_crl(list))))
    }

    /// Refuses certificates that contain any of these ids. Adds to those denied before. An id with
    /// a suffix stands for its base, because certificates contain bases.
    #[must_use]
    pub fn with_denied(self, ids: impl IntoIterator<Item = NodeId>) -> Self {
        self.change(|inner| inner.denied.extend(ids.into_iter().map(|id| id.base())))
    }

    /// Refuses certificates that contain none of these ids. Adds to those allowed before; an empty
    /// first list refuses all.
    #[must_use]
    pub fn with_allowed(self, ids: impl IntoIterator<Item = NodeId>) -> Self {
        self.change(|inner| {
            inner.allowed.get_or_insert_default().extend(ids.into_iter().map(|id| id.base()))
        })
    }

    /// Refuses certificates whose public key is not one of these: SHA-256 over the
    /// SubjectPublicKeyInfo in DER, see
    /// [`Identity::key_fingerprint`](super::Identity::key_fingerprint). Adds to those pinned
    /// before; an empty first list refuses everyone.
    #[must_use]
    pub fn with_pins(self, pins: impl IntoIterator<Item = Fingerprint>) -> Self {
        self.change(|inner| inner.pins.get_or_insert_default().extend(pins))
    }

    /// Permits transit only through the nodes that match one of these rules: this node ignores the
    /// transit claims of all others, computes no paths through them, and accepts no packets of
    /// third nodes from them. They stay reachable. Adds to those permitted before; an empty first
    /// list permits none. By default every member may provide transit.
    ///
    /// All nodes of a mesh should have the same rules: packets through a relay that another node on
    /// the path does not permit are dropped there.
    #[must_use]
    pub fn with_relays(self, rules: impl IntoIterator<Item = RelayRule>) -> Self {
        self.change(|inner| inner.relays.get_or_insert_default().extend(rules))
    }

    /// The rules for relays; `None` if every member may provide transit.
    pub fn relays(&self) -> Option<impl Iterator<Item = &RelayRule>> {
        self.inner.relays.as_ref().map(|rules| rules.iter())
    }

    /// Whether transit is permitted through a node with this id and this certificate (DER), which
    /// was accepted; `None` if it is not known yet.
    pub(crate) fn permits_transit(&self, id: &NodeId, certificate: Option<&[u8]>) -> bool {
        let rules = self.inner.relays.as_ref();
        let by_rules =
            rules.is_none_or(|rules| rules.iter().any(|rule| rule.permits(id, certificate)));
        by_rules
            && self.inner.policy.as_ref().is_none_or(|(policy, node)| {
                let roles = certificate.map(roles_in_certificate).unwrap_or_default();
                policy.permits_transit(&Subject::new(id).with_roles(roles), node)
            })
    }

    /// Permits transit only through nodes that the policy of this `node` permits, too.
    pub(crate) fn with_policy(self, policy: Option<Arc<Policy>>, node: &NodeId) -> Self {
        self.change(|inner| inner.policy = policy.map(|policy| (policy, node.clone())))
    }

    /// The root certificates as PEM.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.inner.roots.iter().map(|root| to_pem("CERTIFICATE", root).to_string()).collect()
    }

    /// Maximum number of revocation lists: each is consulted in every handshake.
    pub const MAX_CRLS: usize = 64;

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.inner.anchors
    }

    /// Whether the CAs on this path permit the certificate at its end, as far as webpki does not
    /// ask.
    pub(crate) fn permit(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let is_anchor = |anchor: &&TrustAnchor<'_>| std::ptr::eq(*anchor, path.anchor());
        let at = self.inner.anchors.iter().position(|anchor| is_anchor(&anchor));
        // The path ends at one of the anchors that webpki was given.
        let limits =
            at.and_then(|at| self.inner.limits.get(at)).ok_or(webpki::Error::UnknownIssuer)?;
        limits.permit(path)
    }

    /// Revocation lists in rounds with at most one list per issuer. No round is empty.
    pub(crate) fn crl_rounds(&self) -> &[Vec<Arc<CertRevocationList<'static>>>] {
        &self.inner.crl_rounds
    }

    fn crl_count(&self) -> usize {
        self.inner.crl_rounds.iter().map(Vec::len).sum()
    }

    /// Whether a certificate with these ids and this public key (SubjectPublicKeyInfo in DER) is
    /// let in.
    pub(crate) fn admit(&self, ids: &[NodeId], public_key: &[u8]) -> Result<(), Denial> {
        if let Some(id) = ids.iter().find(|id| self.inner.denied.contains(*id)) {
            return Err(Denial::OnDenyList(id.clone()));
        }
        if let Some(allowed) = &self.inner.allowed
            && !ids.iter().any(|id| allowed.contains(id))
        {
            return Err(Denial::NotOnAllowList);
        }
        match &self.inner.pins {
            Some(pins) if !pins.contains(&Fingerprint::of(public_key)) => Err(Denial::NotPinned),
            _ => Ok(()),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl Inner {
    /// Adds a list to the first round that has none by its issuer.
    fn add_crl(&mut self, list: Arc<CertRevocationList<'static>>) {
        let free = |round: &&mut Vec<Arc<CertRevocationList<'static>>>| {
            round.iter().all(|other| other.issuer() != list.issuer())
        };
        match self.crl_rounds.iter_mut().find(free) {
            Some(round) => round.push(list),
            None => self.crl_rounds.push(vec![list]),
        }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("roots", &self.inner.roots.len())
            .field("crls", &self.crl_count())
            .field("denied", &self.inner.denied)
            .field("allowed", &self.inner.allowed)
            .field("pins", &self.inner.pins)
            .field("relays", &self.inner.relays)
            .finish()
    }
}

/// Why a certificate that is genuine is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("{0} is on the deny list")]
    OnDenyList(NodeId),
    #[error("none of its ids is on the allow list")]
    NotOnAllowList,
    #[error("its public key is not pinned")]
    NotPinned,
}

/// Why roots or revocation lists are not accepted. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no root certificate.
    #[error("{origin}: there is no certificate (PEM) in it")]
    NoRoots {
        /// The source that was searched.
        origin: String,
    },
    /// A root certificate cannot be read.
    #[error("{origin}: certificate {number} cannot be read: {problem}")]
    BadRoot {
        /// Where it came from.
        origin: String,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        problem: String,
    },
    /// A revocation list cannot be read.
    #[error("{origin}: not a usable revocation list: {problem}")]
    BadCrl {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{fixtures, id, text};

    #[test]
    fn roots_must_be_there_and_readable() {
        let error = Trust::from_pem("nothing").unwrap_err();
        assert_eq!(error.to_string(), "the given roots: there is no certificate (PEM) in it");
        let two = text("ca.crt") + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Trust::from_pem(&two), Err(TrustError::BadRoot { number: 2, .. })));
    }

    #[test]
    fn roots_are_given_back_as_pem() {
        let trust = Trust::from_pem(&(text("ca.crt") + &text("stranger/ca.crt"))).unwrap();
        assert_eq!(trust.roots_pem(), text("ca.crt") + &text("stranger/ca.crt"));
    }

    #[test]
    fn revocation_lists_add_up_and_the_original_stays_as_it_was() {
        let one = Trust::from_pem(&text("ca.crt")).unwrap().with_crls(&text("crl.pem")).unwrap();
        let two = one.clone().with_crl_file(&fixtures().join("crl.pem")).unwrap();
        assert_eq!((one.crl_count(), two.crl_count()), (1, 2));
        assert_eq!(two.crl_rounds().len(), 2, "both are by one issuer");
        let error = one.clone().with_crls(&text("ca.crt")).unwrap_err();
        assert!(error.to_string().contains("no revocation list"), "{error}");
        let many = text("crl.pem").repeat(Trust::MAX_CRLS);
        assert!(matches!(one.with_crls(&many), Err(TrustError::BadCrl { .. })));
    }

    #[test]
    fn who_is_let_in_depends_on_every_list() {
        let open = Trust::from_pem(&text("ca.crt")).unwrap();
        let ids = [id("a"), id("b")];
        assert_eq!(open.admit(&ids, b"key"), Ok(()));
        let denying = open.clone().with_denied([id("b"), id("c")]);
        assert_eq!(denying.admit(&ids, b"key"), Err(Denial::OnDenyList(id("b"))));
        assert_eq!(denying.admit(&ids[..1], b"key"), Ok(()));
        let allowing = open.clone().with_allowed([id("b")]);
        assert_eq!(allowing.admit(&ids, b"key"), Ok(()));
        assert_eq!(allowing.admit(&ids[..1], b"key"), Err(Denial::NotOnAllowList));
        let pinning = open.with_pins([Fingerprint::of(b"key")]);
        assert_eq!(pinning.admit(&ids, b"key"), Ok(()));
        assert_eq!(pinning.admit(&ids, b"another"), Err(Denial::NotPinned));
    }
}
