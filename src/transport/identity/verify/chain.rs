//! Bounds on a certificate chain, checked before any path is built.
//!
//! A chain arrives before its sender is authenticated, and webpki tries every intermediate whose
//! subject matches: with twenty intermediates of one name that is up to 200,000 steps. Within these
//! bounds each certificate has at most one issuer in the chain, so a path has at most
//! [`MAX_INTERMEDIATES`] steps and a signature check fails at its first step unless a trusted CA
//! made the signature.

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::certificate_error::Unusable;

/// Maximum number of CA certificates that follow the node's own in a chain. A root is not needed in
/// it.
pub(crate) const MAX_INTERMEDIATES: usize = 4;

/// Maximum number of certificates in a chain, the node's own included.
pub(crate) const MAX_CHAIN: usize = 1 + MAX_INTERMEDIATES;

/// Maximum length of one certificate in bytes of DER. One of RSA-4096 has about 1,500.
pub(crate) const MAX_CERTIFICATE: usize = 4 * 1024;

/// Maximum length of all certificates of a chain together, in bytes of DER.
pub(crate) const MAX_CHAIN_BYTES: usize = 8 * 1024;

/// Maximum length of an encoded chain in bytes.
pub(crate) const MAX_CREDENTIAL: usize = MAX_CHAIN_BYTES;

/// The hash by which a chain is cached.
pub(crate) type Name = [u8; 16];

/// Checks number, lengths and subjects; costs one parse of each intermediate.
pub(in crate::transport) fn check(
    own: &[u8],
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Unusable> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(Unusable::ChainTooLong);
    }
    let lengths = || intermediates.iter().map(|der| der.len()).chain([own.len()]);
    if lengths().any(|len| len > MAX_CERTIFICATE) || lengths().sum::<usize>() > MAX_CHAIN_BYTES {
        return Err(Unusable::ChainTooLong);
    }
    // webpki's own parser skips what it cannot parse when it searches for issuers.
    let parsed: Vec<_> =
        intermediates.iter().filter_map(|der| EndEntityCert::try_from(der).ok()).collect();
    let repeated = |(index, ca): (usize, &EndEntityCert<'_>)| {
        parsed.iter().take(index).any(|earlier| earlier.subject() == ca.subject())
    };
    match parsed.iter().enumerate().any(repeated) {
        true => Err(Unusable::RepeatedSubject),
        false => Ok(()),
    }
}

/// Encodes a chain as a MessagePack array of the certificates in DER, the node's own first.
pub(crate) fn encode(chain: &[CertificateDer<'_>]) -> Bytes {
    let chain: Vec<&serde_bytes::Bytes> =
        chain.iter().map(|der| serde_bytes::Bytes::new(der)).collect();
    rmp_serde::to_vec(&chain).expect("byte strings can be written").into()
}

/// Decodes a chain without parsing its certificates; `None` if it is malformed or has more than
/// [`MAX_CHAIN`] of them.
pub(crate) fn decode(credential: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let chain: Vec<&serde_bytes::Bytes> = rmp_serde::from_slice(credential).ok()?;
    let fits = (1..=MAX_CHAIN).contains(&chain.len());
    fits.then(|| chain.into_iter().map(|der| CertificateDer::from_slice(der)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    };
    use rustls::CertificateError;

    use super::*;
    use crate::transport::identity::key::to_pem;
    use crate::transport::identity::testdata::{certificate, chain, text};
    use crate::transport::identity::verify::{CountedChecks, PeerRole, PeerVerifier};
    use crate::transport::{Identity, RefusalReason, Trust, clock};

    fn params(subject: &str, is_ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params
    }

    /// A certificate that names this issuer, signed with a key of nobody's.
    fn signed(subject: CertificateParams, issuer: &str) -> CertificateDer<'static> {
        let issuer = Issuer::new(params(issuer, CA), KeyPair::generate().unwrap());
        subject.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
    }

    fn leaf(issuer: &str) -> CertificateDer<'static> {
        signed(params("leaf", IsCa::NoCa), issuer)
    }

    fn ca(subject: &str, issuer: &str) -> CertificateDer<'static> {
        signed(params(subject, CA), issuer)
    }

    const CA: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);

    /// What the verifier made of a chain, and how many paths were begun and signatures checked for
    /// it.
    fn cost(
        chain: &[CertificateDer<'_>],
        trust: Trust,
    ) -> (Result<(), RefusalReason>, usize, usize) {
        let checks = CountedChecks::default();
        let verifier = PeerVerifier::counting(trust, &checks);
        let (own, above) = chain.split_first().unwrap();
        let found = verifier.verify(own, above, PeerRole::Dialler, clock::unix(clock::system()));
        let found = found.map(drop).map_err(|error| RefusalReason::from_certificate_error(&error));
        (found, checks.paths(), checks.signatures())
    }

    fn ours() -> Trust {
        Trust::from_pem(&text("ca.crt")).unwrap()
    }

    #[test]
    fn many_intermediates_of_one_name_are_refused_before_any_path() {
        for count in [2, 4, 5, 14, 20, 60] {
            let mut attack = vec![leaf("same")];
            attack.extend((0..count).map(|_| ca("same", "same")));
            let reason = match count > MAX_INTERMEDIATES {
                true => RefusalReason::ChainTooLong,
                false => RefusalReason::RepeatedSubject,
            };
            assert_eq!(cost(&attack, ours()), (Err(reason), 0, 0), "{count}");
        }
    }

    #[test]
    fn the_longest_junk_chain_costs_one_path_and_one_signature_for_each_root() {
        // Two certificates name the root as their issuer: the most that distinct subjects permit,
        // and a loop besides.
        let root = "junk root";
        let loops = [leaf(root), ca(root, "a"), ca("a", "b"), ca("b", "c"), ca("c", root)];
        let roots =
            (0..2).map(|_| to_pem("CERTIFICATE", &ca(root, root)).to_string()).collect::<String>();
        let (found, paths, signatures) = cost(&loops, Trust::from_pem(&roots).unwrap());
        assert_eq!((found, paths), (Err(RefusalReason::UnknownCa), 1));
        assert!(signatures <= 2 * 2, "{signatures}");
        // A name that no root has costs no signature at all.
        let stranger = [leaf("a"), ca("a", "b"), ca("b", "c"), ca("c", "d"), ca("d", "e")];
        assert_eq!(cost(&stranger, ours()), (Err(RefusalReason::UnknownCa), 1, 0));
    }

    #[test]
    fn a_replayed_genuine_chain_costs_one_signature_a_certificate() {
        assert_eq!(cost(&chain("chained"), ours()), (Ok(()), 1, 2));
        // Revocation lists by one issuer are asked one after the other, those of several issuers
        // together.
        let listed = ours().with_crls(&text("crl.pem")).unwrap();
        let (found, paths, _) = cost(&chain("chained"), listed.clone());
        assert_eq!((found, paths), (Ok(()), 1));
        let (found, paths, _) =
            cost(&chain("chained"), listed.with_crls(&text("crl.pem")).unwrap());
        assert_eq!((found, paths), (Ok(()), 2));
    }

    #[test]
    fn lengths_are_bounded_for_one_certificate_and_for_all() {
        let of = |len: usize| CertificateDer::from(vec![0x30; len]);
        let most = [of(MAX_CERTIFICATE)];
        assert_eq!(check(&[0; MAX_CHAIN_BYTES - MAX_CERTIFICATE], &most), Ok(()));
        assert_eq!(
            check(&[0; MAX_CHAIN_BYTES - MAX_CERTIFICATE + 1], &most),
            Err(Unusable::ChainTooLong)
        );
        assert_eq!(check(&[0; MAX_CERTIFICATE + 1], &[]), Err(Unusable::ChainTooLong));
        assert_eq!(check(&[], &[of(MAX_CERTIFICATE + 1)]), Err(Unusable::ChainTooLong));
        assert_eq!(check(&[], &[(); 5].map(|()| of(1))), Err(Unusable::ChainTooLong));
        assert_eq!(
            check(&[], &[(); 4].map(|()| of(1))),
            Ok(()),
            "what cannot be parsed is on no path"
        );
    }

    #[test]
    fn a_root_or_unrelated_certificates_in_the_chain_do_no_harm() {
        let mut padded = chain("chained");
        padded.push(CertificateDer::from(certificate("ca")));
        padded.extend(chain("expired"));
        assert_eq!(cost(&padded, ours()).0, Ok(()));
    }

    #[test]
    fn a_chain_that_others_refuse_makes_no_identity() {
        let (own, ca) = (text("uri.crt"), text("ca.crt"));
        for (chain, says) in [
            (own.clone() + &ca + &ca, "two intermediates of its chain have the same subject"),
            (own + &ca.repeat(5), "more than 5 certificates"),
        ] {
            let error = Identity::from_pem(&chain, &text("uri.key"), &ca).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn both_ends_read_the_refusal_from_its_text() {
        for (unusable, reason) in [
            (Unusable::ChainTooLong, RefusalReason::ChainTooLong),
            (Unusable::RepeatedSubject, RefusalReason::RepeatedSubject),
        ] {
            let error = CertificateError::Other(rustls::OtherError(Arc::new(unusable)));
            assert_eq!(RefusalReason::from_certificate_error(&error), reason);
        }
    }
}
