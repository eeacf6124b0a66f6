//! The text of PEM files: as editors and tools write it, and what to do about files that are
//! something else.

use std::path::Path;

use rustls::pki_types::pem::Error;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

/// A file that is not PEM but may contain the expected data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Foreign {
    Utf16,
    /// DER: a certificate, a revocation list, PKCS#12, or most likely a key.
    Certificate,
    RevocationList,
    Pkcs12,
    Key,
}

impl Foreign {
    /// What the bytes are; `None` if they may be PEM.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        // Every PEM section begins with dashes; without a byte order mark, zero bytes between them
        // reveal UTF-16.
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Some(Self::Utf16);
        }
        if bytes.starts_with(b"-\0-\0") || bytes.starts_with(b"\0-\0-") {
            return Some(Self::Utf16);
        }
        // DER begins with a SEQUENCE, and these have lengths of more than 127 bytes, or are Ed25519
        // keys of 48.
        if !matches!(bytes, [0x30, 0x81..=0x84 | 0x20..=0x7f, 0x00..=0x1f | 0x80..=0xff, ..]) {
            return None;
        }
        Some(if Certificate::from_der(bytes).is_ok() {
            Self::Certificate
        } else if CertificateList::from_der(bytes).is_ok() {
            Self::RevocationList
        } else if bytes.get(4..7) == Some(&[2, 1, 3]) {
            Self::Pkcs12
        } else {
            Self::Key
        })
    }

    /// What the file is, and how to convert it.
    pub(crate) fn explain(self, path: &Path) -> String {
        let file = path.display();
        match self {
            Self::Utf16 => {
                format!(
                    "is text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 '{file}' > '{file}.pem'"
                )
            }
            Self::Certificate => {
                format!(
                    "is a certificate in DER; convert it: openssl x509 -inform DER -in '{file}' -out '{file}.pem'"
                )
            }
            Self::RevocationList => {
                format!(
                    "is a revocation list in DER; convert it: openssl crl -inform DER -in '{file}' -out '{file}.pem'"
                )
            }
            Self::Pkcs12 => {
                format!(
                    "is in PKCS#12; convert it: openssl pkcs12 -nodes -in '{file}' -out '{file}.pem'"
                )
            }
            Self::Key => {
                format!(
                    "is in DER, not PEM; convert a key: openssl pkey -inform DER -in '{file}' -out '{file}.pem'"
                )
            }
        }
    }
}

/// The text without a byte order mark.
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Describes a malformed section.
pub(crate) fn problem(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(end_marker);
            format!("the line -----END {}----- is missing", label.escape_debug())
        }
        Error::IllegalSectionStart { .. } => "a line that begins a section is malformed".to_owned(),
        Error::Base64Decode(_) => "its base64 text is damaged".to_owned(),
        Error::NoItemsFound => "there is nothing of the kind in it".to_owned(),
        _ => "it is not PEM".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{certificate, text};

    #[test]
    fn files_that_are_not_pem_are_recognised() {
        let utf16 = |big: bool, bom: bool| -> Vec<u8> {
            let marked = if bom { "\u{feff}".to_owned() } else { String::new() } + &text("uri.crt");
            let units = marked.encode_utf16();
            units
                .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect()
        };
        for (big, bom) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(Foreign::of(&utf16(big, bom)), Some(Foreign::Utf16));
        }
        assert_eq!(Foreign::of(&certificate("uri")), Some(Foreign::Certificate));
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateRevocationListDer, PrivateKeyDer};
        for key in ["uri.key", "dns.key", "p384.key", "othername.key"] {
            let key = PrivateKeyDer::from_pem_slice(text(key).as_bytes()).unwrap();
            assert_eq!(Foreign::of(key.secret_der()), Some(Foreign::Key));
        }
        let crl = CertificateRevocationListDer::from_pem_slice(text("crl.pem").as_bytes()).unwrap();
        assert_eq!(Foreign::of(&crl), Some(Foreign::RevocationList));
        assert_eq!(Foreign::of(&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30]), Some(Foreign::Pkcs12));
        for pem in [
            text("uri.crt"),
            format!("\u{feff}{}", text("ca.crt")),
            "0000 comment".to_owned(),
            String::new(),
        ] {
            assert_eq!(Foreign::of(pem.as_bytes()), None, "{pem}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_section_is_said_in_words() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let whole = text("uri.crt");
        let cut = &whole[..whole.len() - 40];
        let error = CertificateDer::from_pem_slice(cut.as_bytes()).unwrap_err();
        assert_eq!(problem(&error), "the line -----END CERTIFICATE----- is missing");
        let damaged = whole.replacen("MII", "M=I", 1);
        let error = CertificateDer::from_pem_slice(damaged.as_bytes()).unwrap_err();
        assert_eq!(problem(&error), "its base64 text is damaged");
    }
}
