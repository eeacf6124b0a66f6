//! Restrictions of CA certificates beyond what webpki checks: the path length of a root, and ids in
//! kinds of names that its name constraints do not cover.
//!
//! RFC 5280 leaves the constraints of a trust anchor to the application, and permits a CA that is
//! constrained to DNS names to issue any URI or otherName. To a node these are three spellings of
//! one id. If a CA constrains any of them, a certificate below it may therefore contain ids only in
//! the kinds that it constrains; webpki compares the names.

use std::collections::BTreeSet;

use webpki::{Error, VerifiedPath};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::{Certificate, TbsCertificate};

use crate::transport::identity::names::{NameKind, names_in_certificate};

/// The limits of one CA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CaLimits {
    /// Maximum number of CAs between this one and a node.
    path_len: Option<u8>,
    /// The kinds of name that may contain ids; `None` if all may.
    kinds: Option<BTreeSet<NameKind>>,
}

impl CaLimits {
    /// Reads a CA's certificate (DER). One that cannot be read permits nothing.
    pub(crate) fn of(der: &[u8]) -> Self {
        match Certificate::from_der(der) {
            Ok(certificate) => Self {
                path_len: path_len(&certificate.tbs_certificate),
                kinds: kinds(&certificate.tbs_certificate),
            },
            Err(_) => Self { path_len: Some(0), kinds: Some(BTreeSet::new()) },
        }
    }

    /// Whether these limits of a root permit the path to a node's certificate.
    pub(crate) fn permit(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        let between = path.intermediate_certificates().count();
        if self.path_len.is_some_and(|most| between > usize::from(most)) {
            return Err(Error::PathLenConstraintViolated);
        }
        let above = path.intermediate_certificates().map(|ca| Self::of(&ca.der()).kinds);
        let constrained: Vec<_> = above.chain([self.kinds.clone()]).flatten().collect();
        if constrained.is_empty() {
            return Ok(());
        }
        // A certificate without names is refused later, by name.
        let names = names_in_certificate(&path.end_entity().der()).unwrap_or_default();
        let permitted = |kind: NameKind| constrained.iter().all(|kinds| kinds.contains(&kind));
        match names.iter().all(|name| permitted(name.kind)) {
            true => Ok(()),
            false => Err(Error::NameConstraintViolation),
        }
    }
}

fn path_len(certificate: &TbsCertificate) -> Option<u8> {
    match certificate.get::<pkix::BasicConstraints>() {
        Ok(constraints) => constraints?.1.path_len_constraint,
        Err(_) => Some(0),
    }
}

/// The kinds of name that the certificate constrains; `None` if it constrains none that contain
/// ids.
fn kinds(certificate: &TbsCertificate) -> Option<BTreeSet<NameKind>> {
    let constraints = match certificate.get::<pkix::NameConstraints>() {
        Ok(constraints) => constraints?.1,
        Err(_) => return Some(BTreeSet::new()),
    };
    let subtrees = [constraints.permitted_subtrees, constraints.excluded_subtrees];
    let kinds: BTreeSet<_> = subtrees
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|subtree| kind(&subtree.base))
        .collect();
    (!kinds.is_empty()).then_some(kinds)
}

fn kind(name: &GeneralName) -> Option<NameKind> {
    match name {
        GeneralName::OtherName(_) => Some(NameKind::OtherName),
        GeneralName::UniformResourceIdentifier(_) => Some(NameKind::Uri),
        GeneralName::DnsName(_) => Some(NameKind::Dns),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{chain, text};
    use crate::transport::identity::verify::certificate_error::Unusable;
    use crate::transport::identity::verify::{PeerRole, PeerVerifier};
    use crate::transport::{Authority, RefusalReason, Trust, clock};

    fn verified(name: &str, roots: &str) -> Result<usize, RefusalReason> {
        let chain = chain(name);
        let (own, above) = chain.split_first().unwrap();
        let verifier = PeerVerifier::new(Trust::from_pem(roots).unwrap(), None);
        verifier
            .verify(own, above, PeerRole::Dialler, clock::unix(clock::system()))
            .map(|ids| ids.len())
            .map_err(|error| RefusalReason::from_certificate_error(&error))
    }

    #[test]
    fn the_path_length_of_a_root_is_kept() {
        assert_eq!(verified("chained", &text("ca.crt")), Ok(1));
        assert_eq!(verified("deep", &text("flat-ca.crt")), Err(RefusalReason::Constrained));
        let made_here = CaLimits::of(Authority::new("test", 1).unwrap().certificate_der());
        assert_eq!(made_here, CaLimits { path_len: Some(0), kinds: None });
    }

    #[test]
    fn a_ca_that_is_constrained_to_dns_names_issues_no_ids_in_other_names() {
        assert_eq!(verified("permitted", &text("ca.crt")), Ok(1));
        assert_eq!(verified("outside", &text("ca.crt")), Err(RefusalReason::Constrained));
    }

    /// What becomes of a node's certificate with these usages below an intermediate CA with these
    /// name constraints (DER).
    fn below(
        constraints: Option<&[u8]>,
        usages: &[rcgen::ExtendedKeyUsagePurpose],
    ) -> Result<usize, RefusalReason> {
        let ca = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params
        };
        let key = || rcgen::KeyPair::generate().unwrap();
        let root_key = key();
        let root = ca("root").self_signed(&root_key).unwrap().pem();
        let mut middle = ca("middle");
        middle.custom_extensions.extend(constraints.map(|der| {
            let mut extension =
                rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], der.to_vec());
            extension.set_criticality(true);
            extension
        }));
        let middle_key = key();
        let middle_der = middle
            .clone()
            .signed_by(&middle_key, &rcgen::Issuer::new(ca("root"), root_key))
            .unwrap();
        let mut leaf = rcgen::CertificateParams::default();
        let uri = crate::transport::identity::names::uri_of(&"edge".parse().unwrap());
        leaf.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
        leaf.extended_key_usages = usages.to_vec();
        let leaf = leaf.signed_by(&key(), &rcgen::Issuer::new(middle, middle_key)).unwrap();
        PeerVerifier::new(Trust::from_pem(&root).unwrap(), None)
            .verify(
                leaf.der(),
                &[middle_der.der().clone()],
                PeerRole::Dialler,
                clock::unix(clock::system()),
            )
            .map(|ids| ids.len())
            .map_err(|error| RefusalReason::from_certificate_error(&error))
    }

    #[test]
    fn name_constraints_of_an_intermediate_bind_ids_in_uris() {
        assert_eq!(below(None, &[]), Ok(1));
        // excludedSubtrees and permittedSubtrees with the URI constraint `edge`, and
        // permittedSubtrees with a DNS name.
        let excluded = [0x30, 10, 0xa1, 8, 0x30, 6, 0x86, 4, b'e', b'd', b'g', b'e'];
        let permitted = [0x30, 10, 0xa0, 8, 0x30, 6, 0x86, 4, b'o', b't', b'h', b'r'];
        let dns = [0x30, 10, 0xa0, 8, 0x30, 6, 0x82, 4, b'e', b'd', b'g', b'e'];
        for constraints in [excluded, permitted, dns] {
            assert_eq!(
                below(Some(&constraints), &[]),
                Err(RefusalReason::Constrained),
                "{constraints:x?}"
            );
        }
    }

    #[test]
    fn extended_key_usages_bind_the_side_of_a_connection() {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        assert_eq!(below(None, &[ClientAuth]), Ok(1));
        for usages in [&[ServerAuth][..], &[CodeSigning]] {
            assert_eq!(below(None, usages), Err(RefusalReason::WrongPurpose));
        }
    }

    #[test]
    fn algorithms_that_are_not_supported_and_cas_in_the_place_of_nodes_are_named() {
        for name in ["sha1", "sha512"] {
            assert_eq!(
                verified(name, &text("ca.crt")),
                Err(RefusalReason::UnsupportedSignature),
                "{name}"
            );
        }
        assert_eq!(verified("ca", &text("ca.crt")), Err(RefusalReason::CaCertificate));
        assert_eq!(Unusable::parse("nothing of the kind"), None);
    }

    #[test]
    fn what_cannot_be_read_permits_nothing() {
        let nothing = CaLimits { path_len: Some(0), kinds: Some(BTreeSet::new()) };
        assert_eq!(CaLimits::of(b"no certificate"), nothing);
    }
}
