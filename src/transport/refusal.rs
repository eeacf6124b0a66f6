//! Why a connection was refused for reasons of identity, as either end sees it: one table of
//! reasons, texts and remedies.
//!
//! The end that refuses closes the connection with the number of a TLS alert, or a close code, and
//! a text; both ends get both. In TLS 1.3 the dialler's handshake is complete before the acceptor
//! has seen the dialler's certificate: for the dialler, a refusal may come as the close of a
//! connection that was up for a moment.

use std::fmt;
use std::ops::Deref;

use quinn::ConnectionError;
use rustls::{AlertDescription, CertificateError};

use super::code::CloseCode;
use super::identity::Identity;
use super::identity::presented::Presented;
use super::identity::verify::certificate_error::{Unusable, WrongName};
use super::identity::verify::chain::{MAX_CHAIN_BYTES, MAX_INTERMEDIATES};
use crate::id::NodeId;

/// A connection was refused for reasons of identity: by which node, and why.
///
/// The reason is the same at both ends. It is the claim of the refusing node, which helps to find
/// the cause and proves nothing. `Display` names the node whose certificate or trust is at fault,
/// the file if it is known, and the remedy.
///
/// It is as large as a pointer, so that the errors that contain it, and the results of streams that
/// contain those, are not moved at its full size. Its fields are those of [`RefusalDetails`].
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Refusal(Box<RefusalDetails>);

/// What is known of a [`Refusal`].
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct RefusalDetails {
    /// Why.
    pub reason: RefusalReason,
    /// Which node refused.
    pub by: Refuser,
    /// Up to four ids that the refused certificate names. They are not proven.
    pub ids: Vec<NodeId>,
    /// The issuer that the refused certificate names, if it could be read. Nothing proves it.
    pub issuer: Option<String>,
    /// The file of this node's certificate, if it was loaded from one.
    pub certificate: Option<String>,
    /// The file of the CA certificates that this node trusts, if they were loaded from one.
    pub roots: Option<String>,
}

/// Which node refused a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a connection has two ends")]
pub enum Refuser {
    /// This one: the other node's certificate is at fault, or this node's trust.
    ThisNode,
    /// The other one: this node's certificate is at fault, or the other node's trust.
    OtherNode,
}

/// Why a connection was refused for reasons of identity. `Display` describes the problem with the
/// certificate.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalReason {
    /// The certificate does not chain to a root that the refusing node trusts.
    UnknownCa,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// A revocation list names the certificate, or a CA above it.
    Revoked,
    /// The certificate does not carry the id that was expected or claimed.
    WrongName {
        /// The id that was expected or claimed; `None` if any was acceptable, or if the other node
        /// did not report it.
        expected: Option<NodeId>,
        /// The ids in the certificate, as far as the other node reported them.
        found: Vec<NodeId>,
    },
    /// The dialler sent no certificate.
    NoClientCertificate,
    /// The two nodes have no application protocol in common.
    WrongAlpn,
    /// The deny list or the allow list does not admit the certificate.
    Denied,
    /// The pins do not admit the certificate's public key.
    NotPinned,
    /// Another process that is alive uses the same id.
    DuplicateId,
    /// The extended key usage does not permit this side of a connection.
    WrongPurpose,
    /// It is the certificate of a CA.
    CaCertificate,
    /// A certificate of the chain is signed with an algorithm that is not supported.
    UnsupportedSignature,
    /// A CA above the certificate may not issue it: by its path length or its name constraints.
    Constrained,
    /// The chain has more than four intermediates, a certificate of more than 4 KiB, or more than
    /// 8 KiB in all.
    ChainTooLong,
    /// Two intermediates of the chain have the same subject.
    RepeatedSubject,
    /// The certificate, or the proof of its key, cannot be used.
    BadCertificate {
        /// What the refusing node said.
        reason: String,
    },
    /// Another failure of the handshake.
    Other {
        /// What the refusing node said.
        reason: String,
    },
}

impl Deref for Refusal {
    type Target = RefusalDetails;

    fn deref(&self) -> &RefusalDetails {
        &self.0
    }
}

impl Refusal {
    /// Maximum length in characters of a reason from the other node. A wrong name with the longest
    /// ids fits.
    pub const MAX_REASON: usize = 1_000;

    fn new(reason: RefusalReason, by: Refuser) -> Self {
        let details = RefusalDetails {
            reason,
            by,
            ids: Vec::new(),
            issuer: None,
            certificate: None,
            roots: None,
        };
        Self(Box::new(details))
    }

    /// This node refuses.
    pub(crate) fn here(reason: RefusalReason) -> Self {
        Self::new(reason, Refuser::ThisNode)
    }

    /// The refusal behind the end of a connection; `None` if it was none, but a loss, a timeout or
    /// an orderly close.
    #[must_use]
    pub fn from_connection_error(error: &ConnectionError) -> Option<Self> {
        let reason = match error {
            ConnectionError::TransportError(error) => {
                RefusalReason::from_handshake(error.code.into(), error.reason.as_bytes())
            }
            ConnectionError::ConnectionClosed(close) => {
                RefusalReason::from_handshake(close.error_code.into(), &close.reason)
            }
            ConnectionError::ApplicationClosed(close) => {
                RefusalReason::from_close_code(close.error_code.into(), &close.reason)
            }
            ConnectionError::VersionMismatch
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => None,
        };
        let by = if Self::by_peer(error) { Refuser::OtherNode } else { Refuser::ThisNode };
        Some(Self::new(reason?, by))
    }

    /// Whether the other node refused (its view of our certificate), and not this one (our view of
    /// theirs).
    #[must_use]
    pub fn by_peer(error: &ConnectionError) -> bool {
        matches!(
            error,
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_)
        )
    }

    /// Names the files of this node's identity, where it was loaded from files, and, if it is this
    /// node's certificate that was refused, what that says of itself.
    #[must_use]
    pub(crate) fn naming(self, identity: &Identity) -> Self {
        let files = identity.files();
        let own = (self.by == Refuser::OtherNode).then(|| identity.presented());
        let named = RefusalDetails {
            certificate: files.map(|files| files.0.clone()),
            roots: files.map(|files| files.1.clone()),
            ..*self.0
        };
        Self(Box::new(named)).presenting(own)
    }

    /// Names what the refused certificate says of itself, if it is known.
    #[must_use]
    pub(crate) fn presenting(self, presented: Option<Presented>) -> Self {
        match presented {
            Some(Presented { ids, issuer }) if self.reason.is_of_certificate() => {
                Self(Box::new(RefusalDetails { ids, issuer, ..*self.0 }))
            }
            _ => self,
        }
    }

    /// The certificate by its file, its ids and its issuer, in parentheses, as far as they are
    /// known.
    fn write_certificate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.certificate.as_ref().filter(|_| self.by == Refuser::OtherNode);
        // A wrong name is shown with the names.
        let names_follow = matches!(self.reason, RefusalReason::WrongName { .. });
        let ids = self.ids.iter().filter(|_| !names_follow).map(|id| format!("id {id}"));
        let issuer = self.issuer.as_ref().map(|issuer| format!("issued by {issuer}"));
        let parts: Vec<_> = file.cloned().into_iter().chain(ids).chain(issuer).collect();
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }

    /// The code with which a live connection is closed.
    pub(crate) fn close_code(&self) -> CloseCode {
        use RefusalReason as Reason;
        match self.reason {
            Reason::UnknownCa => CloseCode::UnknownCa,
            Reason::Expired => CloseCode::Expired,
            Reason::NotYetValid => CloseCode::NotYetValid,
            Reason::Revoked => CloseCode::Revoked,
            Reason::WrongName { .. } => CloseCode::WrongName,
            Reason::Denied => CloseCode::Denied,
            Reason::NotPinned => CloseCode::NotPinned,
            Reason::DuplicateId => CloseCode::DuplicateId,
            Reason::NoClientCertificate
            | Reason::WrongAlpn
            | Reason::WrongPurpose
            | Reason::CaCertificate
            | Reason::UnsupportedSignature
            | Reason::Constrained
            | Reason::ChainTooLong
            | Reason::RepeatedSubject
            | Reason::BadCertificate { .. }
            | Reason::Other { .. } => CloseCode::BadCertificate,
        }
    }

    /// The problem and the remedy, for each reason and refusing node.
    fn remedy(&self) -> String {
        use RefusalReason as Reason;
        let here = self.by == Refuser::ThisNode;
        let roots = self.roots.as_deref().unwrap_or("ca.crt");
        // The node whose certificate is at fault, and the node that applies the violated rule.
        let (owner, judge) =
            if here { ("the other node", "this node") } else { ("this node", "the other node") };
        match &self.reason {
            Reason::UnknownCa if here => {
                format!("issue it from a CA in {roots} of this node, or add its CA there and reload")
            }
            Reason::UnknownCa => {
                "issue it from a CA in ca.crt of the other node, or add its CA there and reload".to_owned()
            }
            Reason::Expired => format!("renew it and reload {owner}, or correct the clock of {judge}"),
            Reason::NotYetValid => {
                format!("correct the clock of either node, or issue one for {owner} that is valid now")
            }
            Reason::Revoked => format!("if {owner} may return, issue it a new certificate and reload"),
            Reason::WrongName { .. } if here => "dial the right node, or issue it a certificate for this id".to_owned(),
            Reason::WrongName { .. } => "issue this node a certificate for this id, or start it with the right id".to_owned(),
            Reason::NoClientCertificate => format!("{owner} needs a certificate from the CA of the mesh"),
            Reason::Denied => format!("change the deny list or the allow list of {judge}"),
            Reason::NotPinned => format!("add the fingerprint of its key to the pins of {judge}, or go back to the pinned key"),
            Reason::WrongPurpose => {
                "issue one with the extended key usages serverAuth and clientAuth, or without any".to_owned()
            }
            Reason::CaCertificate => format!("issue a certificate for {owner} from this CA, with CA:false"),
            Reason::UnsupportedSignature => {
                "sign it with ECDSA (P-256 with SHA-256, P-384 with SHA-384), Ed25519, or RSA with SHA-256 or better; SHA-1 is never accepted"
                    .to_owned()
            }
            Reason::Constrained => "issue it from the root, or from a CA whose path length and name constraints permit it".to_owned(),
            Reason::ChainTooLong => format!(
                "in the certificate file of {owner} leave only its own certificate and the CAs between it and the root, \
                 at most {MAX_INTERMEDIATES} and {MAX_CHAIN_BYTES} bytes"
            ),
            Reason::RepeatedSubject => {
                format!("in the certificate file of {owner} leave only one certificate of each CA")
            }
            Reason::BadCertificate { .. } => format!("issue a new certificate and key for {owner}"),
            Reason::WrongAlpn => "dial a node of this mesh, of a version that it can talk to".to_owned(),
            Reason::DuplicateId => "stop one of the two, or give it another id".to_owned(),
            Reason::Other { .. } => "see the log of the other node".to_owned(),
        }
    }
}

impl RefusalReason {
    /// The reason for which a handshake would have ended with this error.
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
            // Both ends of the validity share an alert; the text distinguishes them.
            AlertDescription::CertificateExpired if says_not_yet_valid(reason) => Self::NotYetValid,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::CertificateRequired => Self::NoClientCertificate,
            AlertDescription::NoApplicationProtocol => Self::WrongAlpn,
            AlertDescription::AccessDenied => Self::Denied,
            AlertDescription::UnsupportedCertificate => Self::WrongPurpose,
            AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError => Self::from_text(reason),
            _ => Self::Other { reason: without_debug(reason) },
        }
    }

    /// Parses what the alert does not encode from the text beside it.
    fn from_text(reason: &str) -> Self {
        if let Some(names) = WrongName::parse(reason) {
            return names.into();
        }
        match Unusable::parse(reason) {
            Some(Unusable::CaCertificate) => Self::CaCertificate,
            Some(Unusable::UnsupportedSignature) => Self::UnsupportedSignature,
            Some(Unusable::Constrained) => Self::Constrained,
            Some(Unusable::NotPinned) => Self::NotPinned,
            Some(Unusable::ChainTooLong) => Self::ChainTooLong,
            Some(Unusable::RepeatedSubject) => Self::RepeatedSubject,
            Some(Unusable::Malformed) | None => {
                Self::BadCertificate { reason: without_debug(reason) }
            }
        }
    }

    pub(crate) fn from_close_code(code: CloseCode, reason: &[u8]) -> Option<Self> {
        match code {
            CloseCode::WrongName => {
                Some(WrongName::parse(&readable(reason)).unwrap_or_default().into())
            }
            CloseCode::Denied => Some(Self::Denied),
            CloseCode::Revoked => Some(Self::Revoked),
            CloseCode::DuplicateId => Some(Self::DuplicateId),
            CloseCode::Expired => Some(Self::Expired),
            CloseCode::NotYetValid => Some(Self::NotYetValid),
            CloseCode::UnknownCa => Some(Self::UnknownCa),
            CloseCode::NotPinned => Some(Self::NotPinned),
            CloseCode::BadCertificate => Some(Self::from_text(&readable(reason))),
            _ => None,
        }
    }

    /// Whether it is the certificate that is at fault, or the trust in it.
    fn is_of_certificate(&self) -> bool {
        !matches!(
            self,
            Self::NoClientCertificate | Self::WrongAlpn | Self::DuplicateId | Self::Other { .. }
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_of_certificate() {
            f.write_str(match self.by {
                Refuser::ThisNode => "this node refused the certificate of the other node",
                Refuser::OtherNode => "the other node refused the certificate of this node",
            })?;
            self.write_certificate(f)?;
            f.write_str(": ")?;
        }
        write!(f, "{}; {}", self.reason, self.remedy())
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownCa => "it is signed by no trusted CA",
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::Revoked => "it is revoked",
            Self::WrongName { expected, found } => {
                let names = WrongName { expected: expected.clone(), found: found.clone() };
                return write!(f, "{names}");
            }
            Self::NoClientCertificate => "the dialler sent no certificate",
            Self::WrongAlpn => "the two nodes have no application protocol in common",
            Self::Denied => "it is on the deny list, or not on the allow list",
            Self::DuplicateId => "another live node has this id",
            Self::WrongPurpose => {
                "its extended key usage does not permit this side of a connection"
            }
            Self::CaCertificate => Unusable::CaCertificate.as_str(),
            Self::UnsupportedSignature => Unusable::UnsupportedSignature.as_str(),
            Self::Constrained => Unusable::Constrained.as_str(),
            Self::NotPinned => Unusable::NotPinned.as_str(),
            Self::ChainTooLong => Unusable::ChainTooLong.as_str(),
            Self::RepeatedSubject => Unusable::RepeatedSubject.as_str(),
            Self::BadCertificate { reason } if reason.is_empty() => "it cannot be used",
            Self::BadCertificate { reason } => return write!(f, "it cannot be used ({reason})"),
            Self::Other { reason } if reason.is_empty() => "the handshake failed",
            Self::Other { reason } => return write!(f, "the handshake failed ({reason})"),
        })
    }
}

/// The reason from the other node, without the `Debug` output of versions up to 0.1.
fn without_debug(reason: &str) -> String {
    let reason = reason.strip_prefix("invalid peer certificate: ").unwrap_or(reason);
    let inner = reason.strip_prefix("Other(OtherError(").and_then(|rest| rest.strip_suffix("))"));
    let reason = inner.unwrap_or(reason);
    let is_name = !reason.contains(' ') && reason.contains(|c: char| c.is_ascii_uppercase());
    let is_debug = is_name || reason.contains(['{', '[']) || reason.contains("::");
    if is_debug { String::new() } else { reason.to_owned() }
}

impl From<WrongName> for RefusalReason {
    fn from(names: WrongName) -> Self {
        Self::WrongName { expected: names.expected, found: names.found }
    }
}

/// rustls writes "not valid yet" with the times and `NotValidYet` without.
fn says_not_yet_valid(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["not valid yet", "notvalidyet", "not yet valid"].iter().any(|text| reason.contains(text))
}

/// Formats text from the peer for a log: bounded, without control characters.
pub(crate) fn readable(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason)
        .chars()
        .take(Refusal::MAX_REASON)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::id;

    #[test]
    fn alerts_are_told_apart() {
        let of = |alert: u8, reason: &str| {
            RefusalReason::from_handshake(0x100 + u64::from(alert), reason.as_bytes()).unwrap()
        };
        assert_eq!(of(48, ""), RefusalReason::UnknownCa);
        assert_eq!(
            of(45, "certificate expired: verification time 5 (UNIX)"),
            RefusalReason::Expired
        );
        assert_eq!(of(45, ""), RefusalReason::Expired);
        assert_eq!(
            of(45, "certificate not valid yet: verification time 5 (UNIX)"),
            RefusalReason::NotYetValid
        );
        assert_eq!(of(45, "NotValidYet"), RefusalReason::NotYetValid);
        assert_eq!(of(44, ""), RefusalReason::Revoked);
        assert_eq!(of(116, ""), RefusalReason::NoClientCertificate);
        assert_eq!(of(120, ""), RefusalReason::WrongAlpn);
        assert_eq!(of(49, ""), RefusalReason::Denied);
        assert_eq!(of(43, "invalid peer certificate: InvalidPurpose"), RefusalReason::WrongPurpose);
        for alert in [42, 46, 51] {
            assert_eq!(
                of(alert, "why"),
                RefusalReason::BadCertificate { reason: "why".to_owned() }
            );
        }
        assert_eq!(of(40, "why"), RefusalReason::Other { reason: "why".to_owned() });
    }

    #[test]
    fn other_codes_are_no_refusal() {
        for code in [0, 1, 0xa, 0xff, 0x200, u64::MAX] {
            assert_eq!(RefusalReason::from_handshake(code, b"certificate expired"), None);
        }
        assert_eq!(RefusalReason::from_close_code(CloseCode::Leaving, b""), None);
        assert_eq!(Refusal::from_connection_error(&ConnectionError::TimedOut), None);
    }

    #[test]
    fn close_codes_of_the_mesh_are_refusals_too() {
        let names = WrongName { expected: Some(id("a")), found: vec![id("b")] };
        let text = names.to_string();
        assert_eq!(
            RefusalReason::from_close_code(CloseCode::WrongName, text.as_bytes()),
            Some(names.into())
        );
        let unknown = RefusalReason::WrongName { expected: None, found: Vec::new() };
        assert_eq!(RefusalReason::from_close_code(CloseCode::WrongName, b"\xff"), Some(unknown));
        assert_eq!(
            RefusalReason::from_close_code(CloseCode::Denied, b""),
            Some(RefusalReason::Denied)
        );
        assert_eq!(
            RefusalReason::from_close_code(CloseCode::Revoked, b""),
            Some(RefusalReason::Revoked)
        );
    }

    #[test]
    fn what_the_other_side_says_is_bounded_and_printable() {
        let reason = format!("\u{1b}31m\n{}", "x".repeat(5_000));
        let Some(RefusalReason::Other { reason }) =
            RefusalReason::from_handshake(0x100 + 40, reason.as_bytes())
        else {
            panic!("handshake_failure is another failure");
        };
        assert_eq!(reason.chars().count(), Refusal::MAX_REASON);
        assert!(!reason.chars().any(char::is_control));
    }

    #[test]
    fn what_rustls_and_webpki_call_an_error_is_never_shown() {
        let debug = "invalid peer certificate: Other(OtherError(UnsupportedSignatureAlgorithmContext(\
             UnsupportedSignatureAlgorithmContext { signature_algorithm_id: [6, 8], supported_algorithms: [] })))";
        let of = |alert: u8, text: &str| RefusalReason::from_alert(alert, text);
        assert_eq!(of(46, debug), RefusalReason::UnsupportedSignature);
        assert_eq!(of(46, "Other(OtherError(CaUsedAsEndEntity))"), RefusalReason::CaCertificate);
        assert_eq!(
            of(46, "Other(OtherError(PathLenConstraintViolated))"),
            RefusalReason::Constrained
        );
        for text in
            ["invalid peer certificate: BadSignature", "Other(OtherError(Foo { bar: 1 }))", "a::B"]
        {
            assert_eq!(
                of(42, text),
                RefusalReason::BadCertificate { reason: String::new() },
                "{text}"
            );
            assert_eq!(of(40, text), RefusalReason::Other { reason: String::new() }, "{text}");
        }
        for unusable in ["it is the certificate of a CA", "its public key is not pinned"] {
            let text = format!("invalid peer certificate: Other(OtherError({unusable}))");
            assert_eq!(of(46, &text).to_string(), unusable);
        }
    }

    #[test]
    fn a_refusal_names_the_node_at_fault_the_file_and_the_remedy() {
        for reason in [
            RefusalReason::UnknownCa,
            RefusalReason::Expired,
            RefusalReason::NotYetValid,
            RefusalReason::Revoked,
            RefusalReason::Denied,
            RefusalReason::NotPinned,
            RefusalReason::WrongPurpose,
            RefusalReason::CaCertificate,
            RefusalReason::UnsupportedSignature,
            RefusalReason::Constrained,
            RefusalReason::ChainTooLong,
            RefusalReason::RepeatedSubject,
        ] {
            let what = reason.to_string();
            let mut ours = Refusal::here(reason.clone());
            (ours.0.by, ours.0.certificate) = (Refuser::OtherNode, Some("/etc/a.crt".to_owned()));
            let start = format!(
                "the other node refused the certificate of this node (/etc/a.crt): {what}; "
            );
            assert!(ours.to_string().starts_with(&start), "{ours}");
            let theirs = Refusal::here(reason);
            let start = format!("this node refused the certificate of the other node: {what}; ");
            assert!(theirs.to_string().starts_with(&start), "{theirs}");
            assert!(theirs.to_string().len() > start.len(), "there is a remedy: {theirs}");
            // The other end of a live connection learns the same reason.
            let told = RefusalReason::from_close_code(theirs.close_code(), what.as_bytes());
            let same = |told: RefusalReason| {
                told == theirs.reason || theirs.reason == RefusalReason::WrongPurpose
            };
            assert!(told.is_some_and(same), "{theirs}");
        }
        let presented =
            Presented { ids: vec![id("edge-1")], issuer: Some("CN=their mesh".to_owned()) };
        let here =
            Refusal::here(RefusalReason::UnknownCa).presenting(Some(presented.clone())).to_string();
        let start = "this node refused the certificate of the other node (id edge-1, issued by CN=their mesh): ";
        assert!(here.starts_with(start), "{here}");
        let no_certificate = Refusal::here(RefusalReason::WrongAlpn).presenting(Some(presented));
        assert_eq!((&no_certificate.ids, &no_certificate.issuer), (&Vec::new(), &None));
        let mut here = Refusal::here(RefusalReason::UnknownCa);
        here.0.roots = Some("/etc/ca.crt".to_owned());
        assert!(here.to_string().contains("a CA in /etc/ca.crt of this node"), "{here}");
    }

    #[test]
    fn refusals_are_serialized_in_kebab_case() {
        let json = |reason| serde_json::to_value(Refusal::here(reason)).unwrap();
        let unknown_ca = json(RefusalReason::UnknownCa);
        assert_eq!(
            (&unknown_ca["reason"], &unknown_ca["by"]),
            (&"unknown-ca".into(), &"this-node".into())
        );
        // Nothing is left out: formats without field names count the fields.
        assert_eq!(unknown_ca.as_object().unwrap().len(), 6);
        assert_eq!(
            json(RefusalReason::WrongName { expected: Some(id("a")), found: vec![id("b")] })["reason"],
            serde_json::json!({ "wrong-name": { "expected": "a", "found": ["b"] } })
        );
    }
}
