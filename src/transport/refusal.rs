//! Why a connection was refused for reasons of identity, as either end sees it.
//!
//! The end that refuses closes the connection with the number of a TLS alert and a text; both ends get both. In TLS 1.3
//! the dialler's handshake is complete before the acceptor has seen the dialler's certificate: for the dialler, a refusal
//! may come as the close of a connection that was up for a moment.

use std::fmt;

use quinn::ConnectionError;
use rustls::{AlertDescription, CertificateError};

use super::code::CloseCode;
use crate::id::NodeId;

/// Why a connection was refused for reasons of identity. It is the same at both ends.
///
/// Which end refused is told by [`by_peer`](Self::by_peer). The reason is what the refusing side says: it helps to find
/// the cause, it proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// The certificate does not chain to a root that the refusing side trusts.
    UnknownCa,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is revoked.
    Revoked,
    /// The certificate does not carry the id that was expected or claimed.
    WrongName {
        /// The id that was expected or claimed; `None` if any would have done, or if the other side did not say.
        expected: Option<NodeId>,
        /// The ids that the certificate carries, as far as the other side said.
        found: Vec<NodeId>,
    },
    /// The dialler sent no certificate.
    NoClientCertificate,
    /// The two sides speak no protocol in common.
    WrongAlpn,
    /// The deny list, the allow list or the pins do not let the certificate in.
    Denied,
    /// Another process that is alive uses the same id.
    DuplicateId,
    /// The certificate, or the proof of its key, cannot be used.
    BadCertificate {
        /// What the refusing side said.
        reason: String,
    },
    /// Another failure of the handshake.
    Other {
        /// What the refusing side said.
        reason: String,
    },
}

impl Refusal {
    /// The longest reason that is kept of what the other side said, in characters. A wrong name with the longest ids fits.
    pub const MAX_REASON: usize = 1_000;

    /// The refusal behind the end of a connection, if it was one: not a loss, a timeout or an orderly close.
    #[must_use]
    pub fn from_connection_error(error: &ConnectionError) -> Option<Self> {
        match error {
            ConnectionError::TransportError(error) => {
                Self::from_handshake(error.code.into(), error.reason.as_bytes())
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::from_handshake(close.error_code.into(), &close.reason)
            }
            ConnectionError::ApplicationClosed(close) => {
                Self::from_close_code(close.error_code.into(), &close.reason)
            }
            ConnectionError::VersionMismatch
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => None,
        }
    }

    /// Whether the other side refused (its view of our certificate), and not this one (our view of theirs).
    #[must_use]
    pub fn by_peer(error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_))
    }

    /// The refusal that a handshake would have ended with.
    pub(crate) fn from_certificate_error(error: &CertificateError) -> Self {
        let alert = u8::from(AlertDescription::from(error.clone()));
        Self::from_alert(alert, &error.to_string())
    }

    fn from_handshake(code: u64, reason: &[u8]) -> Option<Self> {
        /// TLS alert `n` is QUIC transport error 0x100 + `n` (RFC 9001, section 4.8).
        const CRYPTO_ERROR: u64 = 0x100;
        let alert = u8::try_from(code.checked_sub(CRYPTO_ERROR)?).ok()?;
        Some(Self::from_alert(alert, &readable(reason)))
    }

    fn from_alert(alert: u8, reason: &str) -> Self {
        match AlertDescription::from(alert) {
            AlertDescription::UnknownCA => Self::UnknownCa,
            // One alert for both ends of the validity; the text tells them apart.
            AlertDescription::CertificateExpired if says_not_yet_valid(reason) => Self::NotYetValid,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::CertificateRequired => Self::NoClientCertificate,
            AlertDescription::NoApplicationProtocol => Self::WrongAlpn,
            AlertDescription::AccessDenied => Self::Denied,
            AlertDescription::CertificateUnknown => match WrongName::parse(reason) {
                Some(names) => names.into(),
                None => Self::BadCertificate { reason: reason.to_owned() },
            },
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError => Self::BadCertificate { reason: reason.to_owned() },
            _ => Self::Other { reason: reason.to_owned() },
        }
    }

    fn from_close_code(code: CloseCode, reason: &[u8]) -> Option<Self> {
        match code {
            CloseCode::WrongName => Some(WrongName::parse(&readable(reason)).unwrap_or_default().into()),
            CloseCode::Denied => Some(Self::Denied),
            CloseCode::Revoked => Some(Self::Revoked),
            CloseCode::DuplicateId => Some(Self::DuplicateId),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCa => f.write_str(
                "unknown CA: the certificate is signed by none of the roots in the other side's ca.crt; \
                 issue it from the mesh's CA, or add its CA there",
            ),
            Self::Expired => f.write_str("the certificate has expired; issue a new one, or correct the clock"),
            Self::NotYetValid => {
                f.write_str("the certificate is not valid yet; correct the clock, or issue one that is")
            }
            Self::Revoked => f.write_str("the certificate is revoked; issue a new one if the node may come back"),
            Self::WrongName { expected, found } => {
                let names = WrongName { expected: expected.clone(), found: found.clone() };
                write!(f, "{names}; dial the right node, or issue a certificate for this id")
            }
            Self::NoClientCertificate => {
                f.write_str("the dialler sent no certificate; every node needs one from the mesh's CA")
            }
            Self::WrongAlpn => f.write_str(
                "no application protocol in common; the other side is no node of this mesh, or of another version",
            ),
            Self::Denied => f.write_str(
                "denied: the deny list, the allow list or the pins of one side do not let this node in; change them there",
            ),
            Self::DuplicateId => {
                f.write_str("another live node has this id; stop one of the two, or give it another id")
            }
            Self::BadCertificate { reason } => {
                write!(f, "the certificate cannot be used: {reason}; issue one for node use, with a key that fits")
            }
            Self::Other { reason } => write!(f, "the handshake failed: {reason}"),
        }
    }
}

/// A certificate without the id that was expected or claimed.
///
/// Its text goes over the wire as the reason of a close, and is read back by the other side.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct WrongName {
    /// `None` if any id would have done.
    pub(crate) expected: Option<NodeId>,
    pub(crate) found: Vec<NodeId>,
}

impl WrongName {
    const START: &'static str = "wrong name: ";
    const EXPECTED: &'static str = "expected ";
    const NAMES: &'static str = "the certificate names ";
    const NONE: &'static str = "no node";
    /// The most ids that the text names: the reason of a close has to fit into one packet.
    const MAX_LISTED: usize = 4;

    /// Reads the text, wherever in `reason` it starts. What cannot be read is left out.
    fn parse(reason: &str) -> Option<Self> {
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
            // The last one is followed by " and N more", or by what encloses the text.
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

impl From<WrongName> for Refusal {
    fn from(names: WrongName) -> Self {
        Self::WrongName { expected: names.expected, found: names.found }
    }
}

/// rustls says "not valid yet" with the times and `NotValidYet` without.
fn says_not_yet_valid(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["not valid yet", "notvalidyet", "not yet valid"].iter().any(|text| reason.contains(text))
}

/// What the other side said, fit for a log: of bounded length, without control characters.
fn readable(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason)
        .chars()
        .take(Refusal::MAX_REASON)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::testdata::id;

    #[test]
    fn wrong_names_are_read_back_from_their_text() {
        let ids = |count: usize| (0..count).map(|n| id(&format!("node.{n}:x@y"))).collect::<Vec<_>>();
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
        for text in ["", "wrong name", "wrong name: ", "wrong name: expected a", "wrong name: expected a, b"]
        {
            assert_eq!(WrongName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn alerts_are_told_apart() {
        let of = |alert: u8, reason: &str| {
            Refusal::from_handshake(0x100 + u64::from(alert), reason.as_bytes()).unwrap()
        };
        assert_eq!(of(48, ""), Refusal::UnknownCa);
        assert_eq!(of(45, "certificate expired: verification time 5 (UNIX)"), Refusal::Expired);
        assert_eq!(of(45, ""), Refusal::Expired);
        assert_eq!(of(45, "certificate not valid yet: verification time 5 (UNIX)"), Refusal::NotYetValid);
        assert_eq!(of(45, "NotValidYet"), Refusal::NotYetValid);
        assert_eq!(of(44, ""), Refusal::Revoked);
        assert_eq!(of(116, ""), Refusal::NoClientCertificate);
        assert_eq!(of(120, ""), Refusal::WrongAlpn);
        assert_eq!(of(49, ""), Refusal::Denied);
        for alert in [42, 43, 46, 51] {
            assert_eq!(of(alert, "why"), Refusal::BadCertificate { reason: "why".to_owned() });
        }
        assert_eq!(of(40, "why"), Refusal::Other { reason: "why".to_owned() });
    }

    #[test]
    fn other_codes_are_no_refusal() {
        for code in [0, 1, 0xa, 0xff, 0x200, u64::MAX] {
            assert_eq!(Refusal::from_handshake(code, b"certificate expired"), None);
        }
        assert_eq!(Refusal::from_close_code(CloseCode::Leaving, b""), None);
        assert_eq!(Refusal::from_connection_error(&ConnectionError::TimedOut), None);
    }

    #[test]
    fn close_codes_of_the_mesh_are_refusals_too() {
        let names = WrongName { expected: Some(id("a")), found: vec![id("b")] };
        let text = names.to_string();
        assert_eq!(Refusal::from_close_code(CloseCode::WrongName, text.as_bytes()), Some(names.into()));
        let unknown = Refusal::WrongName { expected: None, found: Vec::new() };
        assert_eq!(Refusal::from_close_code(CloseCode::WrongName, b"\xff"), Some(unknown));
        assert_eq!(Refusal::from_close_code(CloseCode::Denied, b""), Some(Refusal::Denied));
        assert_eq!(Refusal::from_close_code(CloseCode::Revoked, b""), Some(Refusal::Revoked));
    }

    #[test]
    fn what_the_other_side_says_is_bounded_and_printable() {
        let reason = format!("\u{1b}[31m\n{}", "x".repeat(5_000));
        let Some(Refusal::Other { reason }) = Refusal::from_handshake(0x100 + 40, reason.as_bytes()) else {
            panic!("handshake_failure is another failure");
        };
        assert_eq!(reason.chars().count(), Refusal::MAX_REASON);
        assert!(!reason.chars().any(char::is_control));
    }

    #[test]
    fn refusals_are_serialized_in_kebab_case() {
        let json = |refusal| serde_json::to_string(&refusal).unwrap();
        assert_eq!(json(Refusal::UnknownCa), r#""unknown-ca""#);
        assert_eq!(json(Refusal::NoClientCertificate), r#""no-client-certificate""#);
        assert_eq!(
            json(Refusal::WrongName { expected: Some(id("a")), found: vec![id("b")] }),
            r#"{"wrong-name":{"expected":"a","found":["b"]}}"#
        );
    }
}
