//! The node ids in a certificate.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rcgen::{DistinguishedName, DnType, OtherNameValue, SanType};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{GeneralName, OtherName};

use crate::id::{NodeAddr, NodeId};

/// The otherName of Ansible Receptor's certificates: a UTF8String with the node id.
pub(crate) const OTHER_NAME: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.2312.19.1");

/// The scheme of a URI that names a node: `receptor:<node-id>`, percent-encoded.
const URI_SCHEME: &str = "receptor";

/// The scheme of a URI that names a role: `receptor-role:<name>`.
const ROLE_SCHEME: &str = "receptor-role";

/// Maximum length of a role name in bytes.
const MAX_ROLE: usize = 64;

/// A node id in a certificate, and the kind of name that contains it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NodeName {
    /// The id.
    pub id: NodeId,
    /// The kind of name.
    pub kind: NameKind,
}

/// The kinds of subject alternative name that can contain a node id, in listing order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NameKind {
    /// otherName `1.3.6.1.4.1.2312.19.1`, a UTF8String.
    OtherName,
    /// URI `receptor:<node-id>`, percent-encoded.
    Uri,
    /// DNS name, verbatim.
    Dns,
}

/// Why a certificate names no node. The issuer of the certificate is at fault; no state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// The certificate, or its list of names, cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// None of its names is a node id.
    #[error(
        "the certificate names no node (it needs a subject alternative name: otherName {OTHER_NAME}, URI receptor:ID, or DNS)"
    )]
    NoNodeId,
}

/// The distinct node ids in a certificate (DER): those of otherNames first, then URIs, then DNS
/// names.
///
/// Names that are not valid node ids, such as DNS wildcards, are skipped. Nothing is verified: call
/// it only for certificates that a handshake has accepted.
///
/// # Errors
/// The certificate cannot be parsed, or names no node.
pub fn ids_in_certificate(der: &[u8]) -> Result<Vec<NodeId>, NamesError> {
    Ok(distinct_ids(&names_in_certificate(der)?))
}

/// The id in a certificate (DER) that has this address, if any. Ids with a suffix are not found.
#[must_use]
pub fn id_for_address(der: &[u8], addr: NodeAddr) -> Option<NodeId> {
    ids_in_certificate(der).ok()?.into_iter().find(|id| id.addr() == addr)
}

/// Like [`ids_in_certificate`], with the kind of each name; an id in two kinds of name is listed
/// twice.
pub(crate) fn names_in_certificate(der: &[u8]) -> Result<Vec<NodeName>, NamesError> {
    let unreadable = |error: x509_cert::der::Error| NamesError::Unreadable(error.to_string());
    let certificate = Certificate::from_der(der).map_err(unreadable)?;
    let Some((_, SubjectAltName(alternatives))) =
        certificate.tbs_certificate.get::<SubjectAltName>().map_err(unreadable)?
    else {
        return Err(NamesError::NoNodeId);
    };
    let names = names_of(&alternatives);
    if names.is_empty() {
        return Err(NamesError::NoNodeId);
    }
    Ok(names)
}

/// The names among subject alternative names that contain node ids.
pub(super) fn names_of(alternatives: &[GeneralName]) -> Vec<NodeName> {
    let mut names: Vec<_> = alternatives.iter().filter_map(node_name).collect();
    names.sort_by_key(|name| name.kind); // stable: within a kind, the certificate's own order
    names
}

/// The roles in a certificate (DER), from its URIs `receptor-role:<name>`. Invalid names are
/// skipped. Nothing is verified: call it only for accepted certificates.
#[must_use]
pub fn roles_in_certificate(der: &[u8]) -> BTreeSet<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return BTreeSet::new() };
    let Ok(Some((_, SubjectAltName(alternatives)))) =
        certificate.tbs_certificate.get::<SubjectAltName>()
    else {
        return BTreeSet::new();
    };
    let role = |alternative: &GeneralName| {
        let GeneralName::UniformResourceIdentifier(uri) = alternative else { return None };
        let (scheme, role) = uri.as_str().split_once(':')?;
        (scheme.eq_ignore_ascii_case(ROLE_SCHEME) && is_role(role)).then(|| role.to_owned())
    };
    alternatives.iter().filter_map(role).collect()
}

/// Whether a text is a valid role name.
pub(crate) fn is_role(name: &str) -> bool {
    let fits = (1..=MAX_ROLE).contains(&name.len());
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The URI that gives a certificate a role.
pub(crate) fn uri_of_role(role: &str) -> String {
    format!("{ROLE_SCHEME}:{role}")
}

pub(crate) fn distinct_ids(names: &[NodeName]) -> Vec<NodeId> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(&name.id)).map(|name| name.id.clone()).collect()
}

/// The subject alternative names of a certificate for a node, or of a request for one.
pub(super) fn subject_alt_names(id: &NodeId) -> Result<Vec<SanType>, rcgen::Error> {
    let arcs = OTHER_NAME.arcs().map(u64::from).collect();
    let name = OtherNameValue::Utf8String(id.as_str().to_owned());
    Ok(vec![SanType::OtherName((arcs, name)), SanType::URI(uri_of(id).try_into()?)])
}

/// A subject. X.509 limits a common name to 64 characters, and a longer id is cut: the subject is
/// for humans, the id is in the alternative names.
pub(super) fn common_name(name: &str) -> DistinguishedName {
    let end = name.char_indices().nth(64).map_or(name.len(), |(end, _)| end);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, &name[..end]);
    subject
}

/// The URI that names a node in a certificate.
pub(crate) fn uri_of(id: &NodeId) -> String {
    let mut uri = format!("{URI_SCHEME}:");
    for byte in id.as_str().bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => uri.push(byte.into()),
            other => write!(uri, "%{other:02X}").expect("writing to a string cannot fail"),
        }
    }
    uri
}

fn node_name(alternative: &GeneralName) -> Option<NodeName> {
    let (kind, text) = match alternative {
        GeneralName::OtherName(other) => (NameKind::OtherName, utf8_other_name(other)?),
        GeneralName::UniformResourceIdentifier(uri) => {
            (NameKind::Uri, id_text_of_uri(uri.as_str())?)
        }
        GeneralName::DnsName(name) => (NameKind::Dns, name.as_str().to_owned()),
        _ => return None,
    };
    // Ephemeral nodes choose their suffixes; a certificate contains the base.
    let id = NodeId::try_from(text).ok().filter(|id| id.suffix().is_none())?;
    Some(NodeName { id, kind })
}

fn utf8_other_name(other: &OtherName) -> Option<String> {
    if other.type_id != OTHER_NAME || other.value.tag() != x509_cert::der::Tag::Utf8String {
        return None;
    }
    other.value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned())
}

fn id_text_of_uri(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case(URI_SCHEME) {
        return None;
    }
    String::from_utf8(percent_decode(rest)?).ok()
}

/// Decodes percent-encoding; `None` if an escape is incomplete.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{certificate, id};

    #[test]
    fn each_kind_of_name_carries_an_id() {
        for (fixture, kind) in [
            ("othername", NameKind::OtherName),
            ("p384", NameKind::OtherName),
            ("uri", NameKind::Uri),
            ("dns", NameKind::Dns),
        ] {
            let names = names_in_certificate(&certificate(fixture)).unwrap();
            assert_eq!(names, [NodeName { id: id(fixture), kind }]);
        }
    }

    #[test]
    fn ids_come_once_other_names_first_and_what_is_no_id_is_left_out() {
        let ids = ids_in_certificate(&certificate("many")).unwrap();
        assert_eq!(ids, [id("many"), id("many@uri"), id("many-dns")]);
    }

    #[test]
    fn an_address_finds_its_id() {
        let der = certificate("many");
        assert_eq!(id_for_address(&der, id("many@uri").addr()), Some(id("many@uri")));
        assert_eq!(id_for_address(&der, id("someone-else").addr()), None);
        assert_eq!(id_for_address(b"no certificate", id("many").addr()), None);
    }

    #[test]
    fn a_certificate_without_a_node_name_says_so() {
        assert_eq!(ids_in_certificate(&certificate("nameless")), Err(NamesError::NoNodeId));
        assert!(matches!(ids_in_certificate(b"no certificate"), Err(NamesError::Unreadable(_))));
    }

    #[test]
    fn a_truncated_or_altered_certificate_never_panics() {
        let der = certificate("many");
        for len in 0..der.len() {
            assert!(ids_in_certificate(&der[..len]).is_err());
        }
        for at in 0..der.len() {
            let mut altered = der.clone();
            altered[at] ^= 0x5a;
            let _ = ids_in_certificate(&altered);
        }
    }

    #[test]
    fn uris_are_percent_encoded_and_decoded() {
        assert_eq!(uri_of(&id("edge-1.site_2:7@x")), "receptor:edge-1.site_2%3A7%40x");
        for text in ["edge-1.site_2:7@x", "a", "..:@"] {
            assert_eq!(id_text_of_uri(&uri_of(&id(text))).as_deref(), Some(text));
        }
        assert_eq!(id_text_of_uri("RECEPTOR:a:b").as_deref(), Some("a:b"));
        for not_one in
            ["receptor", "https:a", "receptor:%4", "receptor:%", "receptor:%zz", "receptor:%ff"]
        {
            assert_eq!(id_text_of_uri(not_one), None, "{not_one}");
        }
    }
}
