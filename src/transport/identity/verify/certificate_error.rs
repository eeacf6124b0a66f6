//! Certificate errors that neither webpki nor rustls has a variant for, and the mapping between the
//! three.
//!
//! [`Unusable`] and [`WrongName`] travel inside [`CertificateError::Other`]. rustls writes their
//! text into the reason of the close, and the other end parses it.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::id::NodeId;

/// A reason to reject a certificate that rustls has no variant for.
///
/// Its text is sent as the reason of a close and parsed by the other node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    CaCertificate,
    UnsupportedSignature,
    Constrained,
    NotPinned,
    ChainTooLong,
    RepeatedSubject,
    Malformed,
}

impl Unusable {
    const ALL: [Self; 7] = [
        Self::CaCertificate,
        Self::UnsupportedSignature,
        Self::Constrained,
        Self::NotPinned,
        Self::ChainTooLong,
        Self::RepeatedSubject,
        Self::Malformed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CaCertificate => "it is the certificate of a CA",
            Self::UnsupportedSignature => "it is signed with an unsupported algorithm",
            Self::Constrained => "a CA above it may not issue it",
            Self::NotPinned => "its public key is not pinned",
            Self::ChainTooLong => "its chain has too many certificates or bytes",
            Self::RepeatedSubject => "two intermediates of its chain have the same subject",
            Self::Malformed => "it is malformed, or uses an unsupported feature",
        }
    }

    /// The texts of versions up to 0.1: the names of webpki's errors.
    const fn before(self) -> &'static [&'static str] {
        match self {
            Self::CaCertificate => &["CaUsedAsEndEntity"],
            Self::UnsupportedSignature => &["UnsupportedSignatureAlgorithm"],
            Self::Constrained => {
                &["PathLenConstraintViolated", "NameConstraintViolation", "EndEntityUsedAsCa"]
            }
            Self::NotPinned | Self::ChainTooLong | Self::RepeatedSubject | Self::Malformed => &[],
        }
    }

    /// Finds the text anywhere in `reason`.
    pub(crate) fn parse(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unusable| {
            reason.contains(unusable.as_str())
                || unusable.before().iter().any(|text| reason.contains(text))
        })
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As the text: rustls puts the `Debug` form of such an error into the reason of the close.
impl fmt::Debug for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Unusable {}

impl From<Unusable> for CertificateError {
    fn from(unusable: Unusable) -> Self {
        Self::Other(OtherError(Arc::new(unusable)))
    }
}

/// A certificate without the expected or claimed id.
///
/// Its text is sent as the reason of a close and parsed by the other side.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct WrongName {
    /// `None` if any id was acceptable.
    pub(crate) expected: Option<NodeId>,
    pub(crate) found: Vec<NodeId>,
}

impl WrongName {
    const START: &'static str = "wrong name: ";
    const EXPECTED: &'static str = "expected ";
    const NAMES: &'static str = "the certificate names ";
    const NONE: &'static str = "no node";
    /// Maximum number of ids in the text: the reason of a close has to fit into one packet.
    const MAX_LISTED: usize = 4;

    /// Parses the text anywhere in `reason`, skipping what is malformed.
    pub(in crate::transport) fn parse(reason: &str) -> Option<Self> {
        let (_, mut rest) = reason.split_once(Self::START)?;
        let mut expected = None;
        if let Some(after) = rest.strip_prefix(Self::EXPECTED) {
            let (id, after) = after.split_once(", ")?;
            expected = NodeId::try_from(id).ok();
            rest = after;
        }
        let list = rest.strip_prefix(Self::NAMES)?;
        if list.starts_with(Self::NONE) {
            return Some(Self { expected, found: Vec::new() });
        }
        let found = list
            .split(", ")
            .take(Self::MAX_LISTED)
            // The last one is followed by " and N more", or by the enclosing text.
            .map_while(|id| NodeId::try_from(id.split([' ', ')', ';']).next()?).ok())
            .collect();
        Some(Self { expected, found })
    }
}

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::START)?;
        if let Some(expected) = &self.expected {
            write!(f, "{}{expected}, ", Self::EXPECTED)?;
        }
        f.write_str(Self::NAMES)?;
        if self.found.is_empty() {
            return f.write_str(Self::NONE);
        }
        for (index, id) in self.found.iter().take(Self::MAX_LISTED).enumerate() {
            write!(f, "{}{id}", if index == 0 { "" } else { ", " })?;
        }
        match self.found.len().saturating_sub(Self::MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// As the text: rustls puts the `Debug` form of such an error into the reason of the close.
impl fmt::Debug for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for WrongName {}

impl From<WrongName> for CertificateError {
    fn from(names: WrongName) -> Self {
        Self::Other(OtherError(Arc::new(names)))
    }
}

/// Describes why webpki rejects a certificate or a revocation list.
pub(in crate::transport) fn described(error: &webpki::Error) -> &'static str {
    use webpki::Error as Pki;
    match error {
        Pki::UnsupportedCertVersion => "it is not an X.509 certificate of version 3",
        Pki::UnsupportedCrlVersion => "it is a revocation list of another version",
        Pki::UnsupportedCriticalExtension => "it has a critical extension that is not supported",
        Pki::UnsupportedDeltaCrl => "it is a delta list",
        Pki::UnsupportedIndirectCrl => "it is an indirect list",
        Pki::InvalidCrlNumber => "its CRL number is missing or invalid",
        _ => "it is malformed",
    }
}

/// Maps an error of webpki to the one of rustls, which determines the TLS alert.
pub(in crate::transport) fn certificate_error(error: webpki::Error) -> CertificateError {
    use webpki::Error as Pki;
    #[expect(deprecated, reason = "webpki may still report the older variants")]
    match error {
        Pki::BadDer | Pki::BadDerTime | Pki::TrailingData(_) => CertificateError::BadEncoding,
        Pki::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Pki::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Pki::InvalidCertValidity => CertificateError::Expired,
        Pki::CertRevoked => CertificateError::Revoked,
        // A wrong signature means another CA of the same name. Names prove nothing, so the issuer
        // is unknown.
        Pki::UnknownIssuer
        | Pki::InvalidSignatureForPublicKey
        | Pki::UnsupportedSignatureAlgorithmForPublicKey
        | Pki::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            CertificateError::UnknownIssuer
        }
        Pki::RequiredEkuNotFound | Pki::RequiredEkuNotFoundContext(_) => {
            CertificateError::InvalidPurpose
        }
        Pki::CaUsedAsEndEntity => Unusable::CaCertificate.into(),
        Pki::UnsupportedSignatureAlgorithm | Pki::UnsupportedSignatureAlgorithmContext(_) => {
            Unusable::UnsupportedSignature.into()
        }
        Pki::PathLenConstraintViolated
        | Pki::NameConstraintViolation
        | Pki::EndEntityUsedAsCa
        | Pki::MaximumPathDepthExceeded => Unusable::Constrained.into(),
        _ => Unusable::Malformed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::id;

    #[test]
    fn wrong_names_are_read_back_from_their_text() {
        let ids =
            |count: usize| (0..count).map(|n| id(&format!("node.{n}:x@y"))).collect::<Vec<_>>();
        for expected in [None, Some(id("a")), Some(id(&"x".repeat(NodeId::MAX_LEN)))] {
            for count in 0..=WrongName::MAX_LISTED {
                let names = WrongName { expected: expected.clone(), found: ids(count) };
                assert_eq!(WrongName::parse(&names.to_string()), Some(names.clone()), "{names}");
                let enclosed = format!("invalid peer certificate: Other(OtherError({names:?}))");
                assert_eq!(WrongName::parse(&enclosed), Some(names), "{enclosed}");
            }
        }
        let many = WrongName { expected: None, found: ids(9) };
        assert_eq!(WrongName::parse(&many.to_string()).unwrap().found, ids(WrongName::MAX_LISTED));
        assert!(many.to_string().ends_with("node.3:x@y and 5 more"), "{many}");
    }

    #[test]
    fn texts_that_are_no_wrong_name_are_not_taken_for_one() {
        for text in [
            "",
            "wrong name",
            "wrong name: ",
            "wrong name: expected a",
            "wrong name: expected a, b",
        ] {
            assert_eq!(WrongName::parse(text), None, "{text}");
        }
    }
}
