//! A certificate authority: creates the root of a mesh and issues identities.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::ext::pkix;

use super::files::{Access, Existing, FileError, Pem, write_atomically};
use super::identity::{Identity, IdentityError};
use super::key::{KeyError, PrivateKey, to_pem};
use super::names::{common_name, is_role, subject_alt_names, uri_of_role};
use super::request::{CertificateRequest, RequestError, SignedCertificate};
use super::trust::{Trust, TrustError};
use crate::id::{InvalidName, NodeId};
use crate::transport::clock::{self, DAY, rfc3339};

/// A certificate authority: the root of a mesh and the issuer of its identities.
///
/// The holder of its key can impersonate any node. Keep `ca.key` off the nodes; they only need
/// `ca.crt`. `Debug` never shows the key. The encoded key is overwritten in memory when the
/// authority is dropped; the form that the cryptography library uses is not.
pub struct Authority {
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    /// Whether the root has a key identifier, by which certificates can refer to it.
    identified: bool,
    issuer: Issuer<'static, PrivateKey>,
    trust: Trust,
}

impl Authority {
    /// Default validity of a root in days: ten years. Replacing a root requires an update of every
    /// node.
    pub const DEFAULT_DAYS: u32 = 3_650;

    /// Default validity of an identity in days. Nodes reload certificates without dropping a link.
    pub const DEFAULT_IDENTITY_DAYS: u32 = 30;

    /// Maximum validity in days: a hundred years.
    pub const MAX_DAYS: u32 = 36_500;

    /// Time before its creation from which a certificate is valid, for clocks that are behind.
    pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

    /// Maximum length of an authority's name in characters.
    pub const MAX_NAME: usize = 64;

    /// Creates a root: ECDSA P-256. It may issue certificates for nodes and revocation lists, but
    /// no further authorities. Nodes enforce that: they reject a certificate from a CA below this
    /// one.
    ///
    /// `name` is for humans, 1 to [`MAX_NAME`](Self::MAX_NAME) characters; `valid_days` is 1 to
    /// [`MAX_DAYS`](Self::MAX_DAYS), usually [`DEFAULT_DAYS`](Self::DEFAULT_DAYS). Nothing is
    /// written: see [`save`](Self::save).
    ///
    /// # Errors
    /// The name or the days are out of bounds, or the system has no randomness.
    pub fn new(name: &str, valid_days: u32) -> Result<Self, AuthorityError> {
        Self::new_at(name, valid_days, clock::system())
    }

    pub(crate) fn new_at(
        name: &str,
        valid_days: u32,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        if !(1..=Self::MAX_NAME).contains(&name.chars().count()) {
            return Err(AuthorityError::BadName);
        }
        let mut params = CertificateParams::default();
        let not_after =
            set_validity(&mut params, now, valid_days, SystemTime::UNIX_EPOCH + FOREVER)?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = PrivateKey::generate().ok_or(AuthorityError::NoRandomness)?;
        let certificate = params.self_signed(&key).map_err(AuthorityError::issuing)?.der().clone();
        let trust = Trust::from_pem(&to_pem("CERTIFICATE", &certificate))?;
        let issuer = Issuer::new(params, key);
        Ok(Self { certificate, not_after, identified: true, issuer, trust })
    }

    /// Creates an authority from a root certificate and private key of any origin, as PEM. Of
    /// several certificates, the first is the issuer; identities trust all of them.
    ///
    /// # Errors
    /// A part cannot be parsed, the certificate is not that of an authority, or the key does not
    /// belong to it.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        Self::from_parts(&Pem::given("CA certificate", certificate), &Pem::given("CA key", key))
    }

    /// Loads `ca.crt` and `ca.key` from a directory.
    ///
    /// # Errors
    /// Like [`from_pem`](Self::from_pem); or a file cannot be read. The error names the file.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        Self::from_parts(&Pem::read(&dir.join("ca.crt"))?, &Pem::read_key(&dir.join("ca.key"))?)
    }

    fn from_parts(certificate: &Pem, key: &Pem) -> Result<Self, AuthorityError> {
        let unusable = |problem: &str| AuthorityError::Certificate {
            origin: certificate.origin.clone(),
            problem: problem.to_owned(),
        };
        let trust = Trust::from_roots(certificate)?;
        let der = CertificateDer::from_pem_slice(certificate.text.as_bytes())
            .map_err(|_| unusable("there is no certificate (PEM) in it"))?;
        let parsed = Certificate::from_der(&der)
            .map_err(|error| unusable(&error.to_string()))?
            .tbs_certificate;
        if !may_issue(&parsed) {
            return Err(unusable(
                "the certificate is no CA's (it lacks CA:true, or may not sign certificates)",
            ));
        }
        let private = PrivateKey::from_pem(&key.text)
            .map_err(|problem| AuthorityError::Key { origin: key.origin.clone(), problem })?;
        if parsed.subject_public_key_info.to_der().ok().as_deref() != Some(private.public()) {
            return Err(AuthorityError::KeyMismatch {
                certificate: certificate.origin.clone(),
                key: key.origin.clone(),
            });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&parsed.subject).ok_or_else(|| {
            unusable("its subject is of a form that cannot be put into certificates that it issues")
        })?;
        let key_identifier = parsed.get::<pkix::SubjectKeyIdentifier>().ok().flatten();
        let identified = key_identifier.is_some();
        if let Some((_, identifier)) = key_identifier {
            params.key_identifier_method =
                KeyIdMethod::PreSpecified(identifier.0.as_bytes().to_vec());
        }
        Ok(Self {
            certificate: der,
            not_after: UNIX_EPOCH + parsed.validity.not_after.to_unix_duration(),
            identified,
            issuer: Issuer::new(params, private),
            trust,
        })
    }

    /// Writes `ca.crt`, and `ca.key` with mode 0600, into an existing directory.
    ///
    /// # Errors
    /// One of the two exists: both are left unchanged. Or a file cannot be written; `ca.key` may
    /// have been written then.
    pub fn save(&self, dir: &Path) -> Result<(), AuthorityError> {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if certificate.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: certificate }.into());
        }
        write_atomically(&key, &self.issuer.key().to_pem(), Access::Owner, Existing::Refuse)?;
        write_atomically(
            &certificate,
            &self.certificate_pem(),
            Access::Everyone,
            Existing::Refuse,
        )?;
        Ok(())
    }

    /// Issues an identity with a new ECDSA P-256 key for `valid_days` (1 to
    /// [`MAX_DAYS`](Self::MAX_DAYS), usually
    /// [`DEFAULT_IDENTITY_DAYS`](Self::DEFAULT_IDENTITY_DAYS)), limited to the validity of the
    /// root.
    ///
    /// The certificate contains the id as an otherName, which Ansible Receptor reads, and as a URI.
    /// It is valid for both sides of a link.
    ///
    /// # Errors
    /// The id is not valid, the days are out of bounds, the root has expired, or the system has no
    /// randomness.
    pub fn issue(
        &self,
        id: impl TryInto<NodeId, Error: Into<InvalidName>>,
        valid_days: u32,
    ) -> Result<Identity, AuthorityError> {
        self.issue_at(&id.try_into().map_err(Into::into)?, valid_days, clock::system())
    }

    /// Like [`issue`](Self::issue), with roles in the certificate: URIs `receptor-role:NAME`. Nodes
    /// that restrict transit ([`Trust::with_relays`]) can require the role
    /// [`RelayRule::RELAY`](super::RelayRule::RELAY), or others.
    ///
    /// # Errors
    /// Like [`issue`](Self::issue); or a name is not 1 to 64 letters, digits and `._-`.
    pub fn issue_with_roles<'a>(
        &self,
        id: impl TryInto<NodeId, Error: Into<InvalidName>>,
        roles: impl IntoIterator<Item = &'a str>,
        valid_days: u32,
    ) -> Result<Identity, AuthorityError> {
        let roles = valid_roles(roles)?;
        self.issue_for(&id.try_into().map_err(Into::into)?, &roles, valid_days, clock::system())
    }

    /// Signs a certificate for the key of a request, which never leaves its node. Like
    /// [`issue_with_roles`](Self::issue_with_roles) otherwise: of the request only the key is
    /// taken.
    ///
    /// # Errors
    /// Like [`issue_with_roles`](Self::issue_with_roles); or the request names another node.
    pub fn sign<'a>(
        &self,
        request: &CertificateRequest,
        id: &NodeId,
        roles: impl IntoIterator<Item = &'a str>,
        valid_days: u32,
    ) -> Result<SignedCertificate, AuthorityError> {
        let roles = valid_roles(roles)?;
        let id = &id.base();
        request.check_is_for(id).map_err(|error| AuthorityError::Request(Box::new(error)))?;
        let certificate = self.certify(id, &roles, valid_days, clock::system(), &request.key)?;
        let validity = Certificate::from_der(&certificate)
            .map_err(|error| AuthorityError::Issuing(error.to_string()))?
            .tbs_certificate
            .validity;
        Ok(SignedCertificate {
            pem: to_pem("CERTIFICATE", &certificate).to_string(),
            not_before: UNIX_EPOCH + validity.not_before.to_unix_duration(),
            not_after: UNIX_EPOCH + validity.not_after.to_unix_duration(),
        })
    }

    pub(crate) fn issue_at(
        &self,
        id: &NodeId,
        valid_days: u32,
        now: SystemTime,
    ) -> Result<Identity, AuthorityError> {
        self.issue_for(id, &[], valid_days, now)
    }

    fn issue_for(
        &self,
        id: &NodeId,
        roles: &[&str],
        valid_days: u32,
        now: SystemTime,
    ) -> Result<Identity, AuthorityError> {
        let key = PrivateKey::generate().ok_or(AuthorityError::NoRandomness)?;
        let certificate = self.certify(id, roles, valid_days, now, &key)?;
        Identity::new(
            vec![certificate],
            key,
            self.trust.clone(),
            "the issued certificate",
            "its key",
        )
        .map_err(|error| AuthorityError::Issued(Box::new(error)))
    }

    fn certify(
        &self,
        id: &NodeId,
        roles: &[&str],
        valid_days: u32,
        now: SystemTime,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        if now >= self.not_after {
            return Err(AuthorityError::Expired { since: rfc3339(self.not_after) });
        }
        // An ephemeral node adds its suffix itself.
        let id = &id.base();
        let mut params = CertificateParams::default();
        set_validity(&mut params, now, valid_days, self.not_after)?;
        params.distinguished_name = common_name(id.as_str());
        params.subject_alt_names = subject_alt_names(id).map_err(AuthorityError::issuing)?;
        for role in roles {
            let uri = uri_of_role(role).try_into().map_err(AuthorityError::issuing)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = self.identified;
        let certificate = params.signed_by(key, &self.issuer).map_err(AuthorityError::issuing)?;
        Ok(certificate.der().clone())
    }

    #[cfg(test)]
    pub(crate) fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The root certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        to_pem("CERTIFICATE", &self.certificate).to_string()
    }

    /// When the root expires, and with it everything that it issued.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Trust in what this authority issues.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.trust.clone()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuer", &self.issuer) // leaves its key out
            .field("not_after", &format_args!("{}", rfc3339(self.not_after)))
            .finish_non_exhaustive()
    }
}

/// Sets the validity to `days` from shortly before `now`, limited by `limit`. Returns the end.
fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    days: u32,
    limit: SystemTime,
) -> Result<SystemTime, AuthorityError> {
    if !(1..=Authority::MAX_DAYS).contains(&days) {
        return Err(AuthorityError::BadDays { days });
    }
    // Certificates have a resolution of seconds.
    let since_epoch = |time: SystemTime| {
        Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    };
    let end = since_epoch((now + Duration::from_secs(u64::from(days) * DAY)).min(limit));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now).saturating_sub(Authority::BACKDATE);
    params.not_after = epoch + end;
    Ok(UNIX_EPOCH + end)
}

/// X.509 has years of four digits: a limit short of the year 9999.
const FOREVER: Duration = Duration::from_secs(8_000 * 365 * DAY);

fn valid_roles<'a>(
    roles: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<&'a str>, AuthorityError> {
    let roles: Vec<&str> = roles.into_iter().collect();
    match roles.iter().find(|role| !is_role(role)) {
        Some(bad) => Err(AuthorityError::BadRole { role: (*bad).to_owned() }),
        None => Ok(roles),
    }
}

fn may_issue(certificate: &x509_cert::TbsCertificate) -> bool {
    let is_ca = matches!(certificate.get::<pkix::BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca);
    let may_sign = match certificate.get::<pkix::KeyUsage>() {
        Ok(Some((_, usage))) => usage.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    is_ca && may_sign
}

/// The subject as rcgen's type. `None` if rcgen would encode it differently: the issuer field of a
/// certificate must equal the issuer's subject to the byte.
fn distinguished_name(subject: &x509_cert::name::Name) -> Option<DistinguishedName> {
    let mut rebuilt = DistinguishedName::new();
    for relative in &subject.0 {
        let [attribute] = relative.0.as_slice() else { return None };
        let arcs: Vec<u64> = attribute.oid.arcs().map(u64::from).collect();
        rebuilt.push(DnType::from_oid(&arcs), dn_value(attribute)?);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rebuilt.clone();
    let probe = params.self_signed(&PrivateKey::generate()?).ok()?;
    let written = Certificate::from_der(probe.der()).ok()?.tbs_certificate.subject;
    (written.to_der().ok()? == subject.to_der().ok()?).then_some(rebuilt)
}

fn dn_value(attribute: &AttributeTypeAndValue) -> Option<DnValue> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String => {
            let text = value.decode_as::<Utf8StringRef<'_>>().ok()?;
            Some(DnValue::Utf8String(text.as_str().to_owned()))
        }
        Tag::PrintableString => {
            let text = value.decode_as::<PrintableStringRef<'_>>().ok()?;
            Some(DnValue::PrintableString(text.as_str().try_into().ok()?))
        }
        Tag::Ia5String => {
            let text = value.decode_as::<Ia5StringRef<'_>>().ok()?;
            Some(DnValue::Ia5String(text.as_str().try_into().ok()?))
        }
        _ => None,
    }
}

/// Why an authority cannot be made, loaded or written, or does not issue. The caller's fault, or
/// that of the files, except [`NoRandomness`](Self::NoRandomness).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The id that the certificate is to carry is not valid.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The name is empty or too long.
    #[error("the name of a CA has 1 to {max} characters", max = Authority::MAX_NAME)]
    BadName,
    /// The validity is out of bounds.
    #[error("a certificate is valid for 1 to {max} days; {days} is out of bounds", max = Authority::MAX_DAYS)]
    BadDays {
        /// What was asked for.
        days: u32,
    },
    /// The name of a role is not valid.
    #[error("{role:?} is not a role: 1 to 64 letters, digits, and `._-`")]
    BadRole {
        /// What was asked for.
        role: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate cannot be used.
    #[error("{origin}: {problem}")]
    Certificate {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The certificate cannot be used as a root.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The private key cannot be used.
    #[error("{origin}: {problem}")]
    Key {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: KeyError,
    },
    /// The private key is that of another certificate.
    #[error("the key in {key} does not belong to the first certificate in {certificate}")]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: String,
        /// Where the key came from.
        key: String,
    },
    /// The root has expired: nothing that it issued would be accepted.
    #[error("the CA's certificate expired on {since}; make a new CA")]
    Expired {
        /// When, as RFC 3339.
        since: String,
    },
    /// The system has no randomness to generate a key from.
    #[error("the system gives no randomness")]
    NoRandomness,
    /// The certificate could not be made.
    #[error("the certificate cannot be made: {0}")]
    Issuing(String),
    /// The request is not signed.
    #[error(transparent)]
    Request(Box<RequestError>),
    /// What was issued cannot be used.
    #[error("what was issued cannot be used: {0}")]
    Issued(Box<IdentityError>),
}

impl AuthorityError {
    fn issuing(error: rcgen::Error) -> Self {
        Self::Issuing(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::IdentityProblem;
    use crate::transport::identity::names::{NameKind, NodeName};
    use crate::transport::identity::testdata::{fixtures, id, text};
    use crate::transport::refusal::RefusalReason;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
    }

    #[test]
    fn an_issued_identity_carries_its_id_twice_and_is_valid_as_long_as_asked() {
        let authority = Authority::new_at("test", Authority::DEFAULT_DAYS, now()).unwrap();
        let name = id("edge-1:x@site");
        let identity = authority.issue_at(&name, 30, now()).unwrap();
        assert_eq!(
            identity.names(),
            [
                NodeName { id: name.clone(), kind: NameKind::OtherName },
                NodeName { id: name.clone(), kind: NameKind::Uri }
            ]
        );
        assert_eq!(identity.ids(), [name]);
        assert_eq!(identity.not_before(), now() - Authority::BACKDATE);
        assert_eq!(identity.not_after(), now() + Duration::from_secs(30 * DAY));
        assert_eq!(identity.check(now()), Ok(()));
        assert_eq!(identity.check(now() - Authority::BACKDATE), Ok(()));
    }

    #[test]
    fn an_identity_does_not_outlive_its_authority() {
        let authority = Authority::new_at("test", 10, now()).unwrap();
        let identity = authority.issue_at(&id("a"), 30, now()).unwrap();
        assert_eq!(identity.not_after(), authority.not_after());
        let later = authority.not_after();
        assert!(matches!(
            authority.issue_at(&id("a"), 1, later),
            Err(AuthorityError::Expired { .. })
        ));
    }

    #[test]
    fn the_longest_ids_and_names_fit() {
        let authority = Authority::new_at(&"ü".repeat(64), Authority::MAX_DAYS, now()).unwrap();
        let long = id(&"x".repeat(NodeId::MAX_LEN));
        let identity = authority.issue_at(&long, Authority::MAX_DAYS, now()).unwrap();
        assert_eq!(identity.ids(), [long]);
        assert_eq!(identity.check(now()), Ok(()));
    }

    #[test]
    fn bounds_are_kept() {
        assert_eq!(Authority::new("", 1).err(), Some(AuthorityError::BadName));
        assert_eq!(Authority::new(&"x".repeat(65), 1).err(), Some(AuthorityError::BadName));
        for days in [0, Authority::MAX_DAYS + 1, u32::MAX] {
            assert_eq!(Authority::new("test", days).err(), Some(AuthorityError::BadDays { days }));
        }
    }

    #[test]
    fn two_authorities_of_one_name_do_not_know_each_other() {
        let [one, two] = [(); 2].map(|()| Authority::new_at("test", 10, now()).unwrap());
        let of_one = one.issue_at(&id("a"), 1, now()).unwrap();
        let mixed =
            Identity::from_pem(&of_one.chain_pem(), &of_one.key_pem(), &two.certificate_pem())
                .unwrap();
        assert_eq!(mixed.check(now()), Err(IdentityProblem::Refused(RefusalReason::UnknownCa)));
    }

    #[test]
    fn what_was_saved_is_loaded_issues_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let original = Authority::new_at("test", 10, now()).unwrap();
        original.save(dir.path()).unwrap();
        let loaded = Authority::load(dir.path()).unwrap();
        assert_eq!(loaded.certificate_pem(), original.certificate_pem());
        assert_eq!(loaded.not_after(), original.not_after());
        assert_eq!(loaded.issue_at(&id("a"), 1, now()).unwrap().check(now()), Ok(()));

        let other = Authority::new("other", 10).unwrap();
        let (crt, key) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
        assert_eq!(other.save(dir.path()), Err(FileError::Exists { path: crt.clone() }.into()));
        std::fs::remove_file(crt).unwrap();
        assert_eq!(other.save(dir.path()), Err(FileError::Exists { path: key.clone() }.into()));
        assert_eq!(std::fs::read_to_string(&key).unwrap(), *original.issuer.key().to_pem());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_issued_identity_is_loaded_from_where_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new_at("test", 10, now()).unwrap();
        authority.save(dir.path()).unwrap();
        let issued = authority.issue_at(&id("edge"), 1, now()).unwrap();
        issued.save(dir.path(), &id("edge")).unwrap();
        let loaded = Identity::load(dir.path(), &id("edge")).unwrap();
        assert_eq!(loaded.fingerprint(), issued.fingerprint());
        assert_eq!(loaded.trust().roots_pem(), authority.certificate_pem());
    }

    #[test]
    fn an_authority_made_by_openssl_issues() {
        let authority = Authority::load(&fixtures()).unwrap();
        let identity = authority.issue_at(&id("edge"), 1, now()).unwrap();
        assert_eq!(identity.check(now()), Ok(()));
    }

    #[test]
    fn an_rsa_authority_with_a_long_subject_issues_and_an_unusual_one_is_refused() {
        let authority = Authority::from_pem(&text("rsa-ca.crt"), &text("rsa-ca.key")).unwrap();
        let identity = authority.issue_at(&id("edge"), 1, now()).unwrap();
        assert_eq!(identity.check(now()), Ok(()));
        let error = Authority::from_pem(&text("odd-ca.crt"), &text("rsa-ca.key")).unwrap_err();
        assert!(error.to_string().contains("its subject is of a form"), "{error}");
    }

    #[test]
    fn what_is_no_authority_says_why() {
        let error = |certificate: &str, key: &str| {
            Authority::from_pem(&text(certificate), &text(key)).unwrap_err().to_string()
        };
        assert!(error("uri.crt", "uri.key").contains("the certificate is no CA's"));
        assert!(
            error("ca.crt", "uri.key").starts_with("the key in the given CA key does not belong")
        );
        assert!(
            error("ca.crt", "ca.crt")
                .starts_with("the given CA key: there is no readable private key")
        );
        assert!(
            error("ca.key", "ca.key")
                .starts_with("the given CA certificate: there is no certificate")
        );
        let missing = Authority::load(Path::new("/nonexistent-directory")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read /nonexistent-directory/ca.crt"), "{missing}");
    }

    #[test]
    fn debug_shows_the_subject_and_no_key() {
        let shown = format!("{:?}", Authority::load(&fixtures()).unwrap());
        assert!(shown.contains("receptor-quic test CA"), "{shown}");
        for line in text("ca.key").lines() {
            assert!(!shown.contains(line), "{shown}");
        }
        assert!(shown.len() < 700, "nothing long is in it: {shown}");
    }
}
