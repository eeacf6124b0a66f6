//! The validity of an identity at a given time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;

use super::identity::Identity;
use super::verify::{PeerRole, PeerVerifier};
use crate::transport::clock::{DAY, rfc3339};
use crate::transport::refusal::RefusalReason;

impl Identity {
    /// Time before expiry from which [`check`](Self::check) warns: 30 days, or a third of the
    /// certificate's lifetime if that is shorter.
    pub const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * DAY);

    /// Checks whether nodes with the same roots would accept the certificate at this time.
    ///
    /// # Errors
    /// The current or imminent problem. The identity can still be used; a link with it may be
    /// refused.
    pub fn check(&self, now: SystemTime) -> Result<(), IdentityProblem> {
        let (not_before, not_after) = (self.not_before(), self.not_after());
        if now < not_before {
            return Err(IdentityProblem::NotYetValid { from: rfc3339(not_before) });
        }
        let Ok(left) = not_after.duration_since(now) else {
            return Err(IdentityProblem::Expired { since: rfc3339(not_after) });
        };
        self.check_against_own_roots(now)?;
        let life = not_after.duration_since(not_before).unwrap_or_default();
        if left <= Self::EXPIRY_NOTICE.min(life / 3) {
            return Err(IdentityProblem::ExpiresSoon { days: left.as_secs() / DAY });
        }
        Ok(())
    }

    fn check_against_own_roots(&self, now: SystemTime) -> Result<(), IdentityProblem> {
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let verifier = PeerVerifier::new(self.trust().clone(), None);
        let (own, intermediates) =
            self.certified().cert.split_first().expect("checked when it was made");
        for role in [PeerRole::Acceptor, PeerRole::Dialler] {
            verifier.verify(own, intermediates, role, now).map_err(|error| {
                IdentityProblem::Refused(RefusalReason::from_certificate_error(&error))
            })?;
        }
        Ok(())
    }
}

/// A current or imminent problem of an identity. It can still be used; links with it may be
/// refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IdentityProblem {
    /// The certificate has expired: every node refuses it.
    #[error("the certificate expired on {since}; issue a new one, or correct the clock")]
    Expired {
        /// When, as RFC 3339.
        since: String,
    },
    /// The certificate is not valid yet: every node refuses it.
    #[error("the certificate is not valid before {from}; correct the clock, or issue one that is")]
    NotYetValid {
        /// From when, as RFC 3339.
        from: String,
    },
    /// The certificate expires soon and is still accepted.
    #[error("the certificate expires in {days} days; issue a new one")]
    ExpiresSoon {
        /// Remaining whole days.
        days: u64,
    },
    /// The node itself would refuse its certificate, and so would others with the same roots.
    #[error("the node's own roots and lists refuse its certificate: {0}")]
    Refused(RefusalReason),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::testdata::{identity, stranger, text};

    const YEAR: u64 = 365 * DAY;

    /// 2026-01-01, give or take.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(56 * YEAR + 14 * DAY)
    }

    #[test]
    fn certificates_made_by_openssl_are_good() {
        for name in ["othername", "uri", "dns", "p384", "many", "chained"] {
            assert_eq!(identity(name).check(now()), Ok(()), "{name}");
        }
    }

    #[test]
    fn validity_is_checked_against_the_time_given() {
        assert_eq!(
            identity("expired").check(now()),
            Err(IdentityProblem::Expired { since: "2020-02-01T00:00:00Z".to_owned() })
        );
        assert_eq!(
            identity("future").check(now()),
            Err(IdentityProblem::NotYetValid { from: "2119-01-01T00:00:00Z".to_owned() })
        );
        let uri = identity("uri");
        let before_end = |seconds: u64| uri.not_after() - Duration::from_secs(seconds);
        assert_eq!(uri.check(before_end(31 * DAY)), Ok(()));
        assert_eq!(
            uri.check(before_end(7 * DAY + 60)),
            Err(IdentityProblem::ExpiresSoon { days: 7 })
        );
        assert_eq!(uri.check(before_end(60)), Err(IdentityProblem::ExpiresSoon { days: 0 }));
        // The short-lived one lives for 31 days: it is not nagged about from its first day.
        let short = identity("expired");
        assert_eq!(short.check(short.not_before()), Ok(()));
        assert_eq!(
            short.check(short.not_after() - Duration::from_secs(10 * DAY)),
            Err(IdentityProblem::ExpiresSoon { days: 10 })
        );
    }

    #[test]
    fn an_identity_that_its_own_roots_refuse_is_told_so() {
        let mixed =
            Identity::from_pem(&text("uri.crt"), &text("uri.key"), &text("stranger/ca.crt"))
                .unwrap();
        assert_eq!(mixed.check(now()), Err(IdentityProblem::Refused(RefusalReason::UnknownCa)));
        assert_eq!(stranger().check(now()), Ok(()));
        let client_only = identity("client-only").check(now());
        assert!(
            matches!(client_only, Err(IdentityProblem::Refused(RefusalReason::WrongPurpose))),
            "{client_only:?}"
        );
    }
}
