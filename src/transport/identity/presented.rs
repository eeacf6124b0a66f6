//! What a refused certificate says of itself: the ids in it and its issuer.
//!
//! rustls reports why a certificate was refused, but not which one: after a failed handshake the
//! connection has no peer identity. The verifier of one attempt therefore leaves the certificate in
//! a slot, where the code that reports the failure finds it:
//!
//! ```text
//!   dial / accept ─ Sighting ─▶ PeerVerifier ─ refuses ─▶ slot ─▶ Refusal { ids, issuer }
//! ```

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::names::ids_in_certificate;
use super::verify::chain::MAX_CERTIFICATE;
use crate::id::NodeId;

/// Maximum number of ids that are reported.
const MAX_IDS: usize = 4;
/// Maximum length of an issuer's name that is reported, in characters.
const MAX_ISSUER: usize = 200;

/// What a certificate says of itself. Nothing of it is verified.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Presented {
    /// At most [`MAX_IDS`].
    pub(crate) ids: Vec<NodeId>,
    /// The distinguished name of the issuer, without control characters.
    pub(crate) issuer: Option<String>,
}

impl Presented {
    /// Reads a certificate (DER). What cannot be read is left out.
    pub(crate) fn read(der: &[u8]) -> Self {
        let mut ids = ids_in_certificate(der).unwrap_or_default();
        ids.truncate(MAX_IDS);
        let issuer = Certificate::from_der(der).ok().map(|certificate| {
            let name = certificate.tbs_certificate.issuer.to_string();
            let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            name.chars().take(MAX_ISSUER).map(printable).collect::<String>()
        });
        Self { ids, issuer: issuer.filter(|name| !name.is_empty()) }
    }
}

/// The certificate that one attempt at a connection refused. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sighting(Arc<OnceLock<Box<[u8]>>>);

impl Sighting {
    /// Keeps a certificate that was refused. One that is too long is refused for that, unread.
    pub(super) fn record(&self, der: &CertificateDer<'_>) {
        if der.len() <= MAX_CERTIFICATE {
            let _ = self.0.set(der.as_ref().into());
        }
    }

    /// What the certificate said; `None` if none was refused.
    pub(crate) fn presented(&self) -> Option<Presented> {
        self.0.get().map(|der| Presented::read(der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Authority;

    #[test]
    fn a_certificate_is_named_by_its_ids_and_its_issuer() {
        let ca = Authority::new("their mesh", 1).unwrap();
        let identity = ca.issue("edge-1", 1).unwrap();
        let sighting = Sighting::default();
        assert_eq!(sighting.presented(), None);
        sighting.record(&identity.certified().cert[0]);
        let presented = sighting.presented().unwrap();
        assert_eq!(presented.ids, ["edge-1".parse().unwrap()]);
        assert!(presented.issuer.is_some_and(|issuer| issuer.contains("their mesh")));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(Presented::read(b"garbage"), Presented::default());
        let sighting = Sighting::default();
        sighting.record(&CertificateDer::from(vec![0; MAX_CERTIFICATE + 1]));
        assert_eq!(sighting.presented(), None);
    }
}
