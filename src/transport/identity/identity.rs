//! The credentials of a node: a certificate chain, its private key, and the roots it trusts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use super::files::{Access, Existing, FileError, Pem, write_atomically};
use super::fingerprint::Fingerprint;
use super::key::{KeyError, PrivateKey, to_pem};
use super::names::{NamesError, NodeName, distinct_ids, names_in_certificate};
use super::pem;
use super::presented::Presented;
use super::trust::{Trust, TrustError};
use super::verify::certificate_error::described;
use super::verify::chain;
use crate::id::NodeId;
use crate::transport::clock::rfc3339;

/// The credentials of a node: a certificate chain with its private key, and the roots they were
/// loaded with.
///
/// An identity is issued by an [`Authority`](super::Authority) or loaded from PEM files of any
/// origin, such as OpenSSL. It is immutable: when the files change, load them again. Cloning is
/// cheap (a reference count).
///
/// `Debug` shows names and times, never the key. The encoded key is overwritten in memory when the
/// last clone is dropped; the form that the TLS library uses, and the kernel's buffers of the file,
/// are not.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
    trust: Trust,
    /// The files of the certificate and of the roots, if it was loaded from files.
    files: Option<Arc<(String, String)>>,
}

struct Inner {
    certified: Arc<CertifiedKey>,
    key: PrivateKey,
    names: Vec<NodeName>,
    ids: Vec<NodeId>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Identity {
    /// Maximum number of certificates in a chain: the node's own and four intermediates with
    /// distinct subjects. Each has at most 4 KiB, all together at most 8 KiB. Other nodes reject
    /// any other chain before they search for a path to a root, because the search would be too
    /// expensive. The chain is sent in every handshake, and once to every node of the mesh.
    pub const MAX_CHAIN: usize = chain::MAX_CHAIN;

    /// Creates an identity from the certificate chain (the node's own certificate first), the
    /// private key (PKCS#8, SEC1 or PKCS#1; RSA of 2048 to 4096 bits, ECDSA P-256 or P-384,
    /// Ed25519) and the root certificates, each as PEM.
    ///
    /// A certificate that has expired or is not valid yet is accepted: [`check`](Self::check)
    /// reports it.
    ///
    /// # Errors
    /// A part cannot be parsed, the key does not belong to the certificate, or the certificate
    /// names no node.
    pub fn from_pem(chain: &str, key: &str, roots: &str) -> Result<Self, IdentityError> {
        Self::from_parts(
            &Pem::given("certificate chain", chain),
            &Pem::given("private key", key),
            &Pem::given("roots", roots),
        )
    }

    /// Loads `ID.crt`, `ID.key` and `ca.crt` from a directory. For an ephemeral id with a suffix,
    /// the files are those of its base.
    ///
    /// A key file that other users can read is accepted with a warning in the log.
    ///
    /// # Errors
    /// Like [`from_pem`](Self::from_pem); or a file cannot be read, or the certificate does not
    /// name `id`. The error names the file.
    pub fn load(dir: &Path, id: &NodeId) -> Result<Self, IdentityError> {
        let files = IdentityFiles::in_dir(dir, &id.base())?;
        let chain = Pem::read(&files.certificate)?;
        let identity =
            Self::from_parts(&chain, &Pem::read_key(&files.key)?, &Pem::read(&files.roots)?)?;
        if !identity.may_claim(id) {
            return Err(IdentityError::WrongName {
                origin: chain.origin,
                id: id.clone(),
                found: identity.ids().to_vec(),
            });
        }
        let files = Arc::new((chain.origin, files.roots.display().to_string()));
        Ok(Self { files: Some(files), ..identity })
    }

    /// Writes `ID.crt` and `ID.key` (mode 0600) into an existing directory, and `ca.crt` unless it
    /// exists.
    ///
    /// # Errors
    /// `ID.key` exists, and is left unchanged; or a file cannot be written. Files written before
    /// the error remain.
    pub fn save(&self, dir: &Path, id: &NodeId) -> Result<(), IdentityError> {
        self.write(dir, id, Existing::Refuse)
    }

    /// Like [`save`](Self::save), but replaces existing `ID.crt` and `ID.key`. Each file is
    /// replaced atomically, one after the other: a reader in between gets
    /// [`IdentityError::KeyMismatch`] and has to load again.
    ///
    /// # Errors
    /// A file cannot be written. Files written before the error remain.
    pub fn replace(&self, dir: &Path, id: &NodeId) -> Result<(), IdentityError> {
        self.write(dir, id, Existing::Replace)
    }

    fn write(&self, dir: &Path, id: &NodeId, existing: Existing) -> Result<(), IdentityError> {
        let files = IdentityFiles::in_dir(dir, id)?;
        write_atomically(&files.key, &self.key_pem(), Access::Owner, existing)?;
        write_atomically(
            &files.certificate,
            &self.chain_pem(),
            Access::Everyone,
            Existing::Replace,
        )?;
        match write_atomically(
            &files.roots,
            &self.trust().roots_pem(),
            Access::Everyone,
            Existing::Refuse,
        ) {
            Err(FileError::Exists { .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    pub(crate) fn from_parts(chain: &Pem, key: &Pem, roots: &Pem) -> Result<Self, IdentityError> {
        let certificates = read_chain(chain)?;
        let private = PrivateKey::from_pem(&key.text)
            .map_err(|problem| IdentityError::Key { origin: key.origin.clone(), problem })?;
        let trust = Trust::from_roots(roots)?;
        Self::new(certificates, private, trust, &chain.origin, &key.origin)
    }

    /// `certificate_origin` and `key_origin` name the sources in errors.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
        trust: Trust,
        certificate_origin: &str,
        key_origin: &str,
    ) -> Result<Self, IdentityError> {
        let unusable = |problem: String| IdentityError::Certificate {
            origin: certificate_origin.to_owned(),
            problem,
        };
        let (own, above) = chain
            .split_first()
            .ok_or_else(|| unusable("there is no certificate (PEM) in it".to_owned()))?;
        if chain::encode(&chain).len() > chain::MAX_CREDENTIAL {
            return Err(unusable(format!(
                "the chain has more than {} bytes",
                chain::MAX_CREDENTIAL
            )));
        }
        chain::check(own, above)
            .map_err(|problem| unusable(format!("other nodes refuse it: {problem}")))?;
        let public = EndEntityCert::try_from(own)
            .map_err(|error| {
                unusable(format!("the certificate cannot be used: {}", described(&error)))
            })?
            .subject_public_key_info();
        if !key.belongs_to(&public) {
            return Err(IdentityError::KeyMismatch {
                certificate: certificate_origin.to_owned(),
                key: key_origin.to_owned(),
            });
        }
        let names = names_in_certificate(own).map_err(|problem| IdentityError::Names {
            origin: certificate_origin.to_owned(),
            problem,
        })?;
        let validity = Certificate::from_der(own)
            .map_err(|error| unusable(format!("the certificate cannot be read: {error}")))?
            .tbs_certificate
            .validity;
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(key.signing())));
        Ok(Self {
            inner: Arc::new(Inner {
                certified,
                key,
                ids: distinct_ids(&names),
                names,
                not_before: UNIX_EPOCH + validity.not_before.to_unix_duration(),
                not_after: UNIX_EPOCH + validity.not_after.to_unix_duration(),
            }),
            trust,
            files: None,
        })
    }

    /// The distinct node ids in the certificate, at least one.
    #[must_use]
    pub fn ids(&self) -> &[NodeId] {
        &self.inner.ids
    }

    /// The names that contain node ids: otherNames first, then URIs, then DNS names.
    #[must_use]
    pub fn names(&self) -> &[NodeName] {
        &self.inner.names
    }

    /// Whether the certificate contains this id or, for an ephemeral, its base.
    #[must_use]
    pub fn may_claim(&self, id: &NodeId) -> bool {
        self.inner.ids.contains(&id.base())
    }

    /// When the certificate becomes valid.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.inner.not_before
    }

    /// When the certificate expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.inner.not_after
    }

    /// The roots that the identity was loaded with, or those of the authority that issued it.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The same identity, accepting others by this trust: with a deny list, revocation lists, or
    /// other roots.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// SHA-256 over the node's own certificate in DER, as
    /// `openssl x509 -noout -fingerprint -sha256` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.own_certificate())
    }

    /// SHA-256 over the public key (SubjectPublicKeyInfo in DER): what others pin this node by. It
    /// stays the same when the certificate is renewed for the same key.
    #[must_use]
    pub fn key_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.inner.key.public())
    }

    /// The certificate chain as PEM, the node's own first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.inner.certified.cert.iter().map(|der| to_pem("CERTIFICATE", der).to_string()).collect()
    }

    /// The private key as PEM, in the form in which it was loaded. Keep it secret. The returned
    /// string is overwritten when dropped.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.inner.key.to_pem()
    }

    /// What the certificate says of itself.
    pub(crate) fn presented(&self) -> Presented {
        self.inner
            .certified
            .cert
            .first()
            .map_or_else(Presented::default, |der| Presented::read(der))
    }

    /// The files of the certificate and of the roots. `None` if it was not loaded from files.
    pub(crate) fn files(&self) -> Option<&(String, String)> {
        self.files.as_deref()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.inner.certified
    }

    fn own_certificate(&self) -> &CertificateDer<'static> {
        self.inner.certified.cert.first().expect("checked when it was made")
    }

    /// A secret per `label`, stable across restarts with the same key file.
    pub(crate) fn derive_secret(&self, label: &str) -> [u8; 32] {
        self.inner.key.derive(label)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("ids", &self.inner.ids)
            .field("key", &self.inner.key)
            .field("not_before", &format_args!("{}", rfc3339(self.inner.not_before)))
            .field("not_after", &format_args!("{}", rfc3339(self.inner.not_after)))
            .field("fingerprint", &self.fingerprint())
            .field("trust", &self.trust)
            .finish()
    }
}

/// Where the parts of an identity are kept.
pub(super) struct IdentityFiles {
    pub(super) certificate: std::path::PathBuf,
    pub(super) key: std::path::PathBuf,
    pub(super) request: std::path::PathBuf,
    roots: std::path::PathBuf,
}

impl IdentityFiles {
    pub(super) fn in_dir(dir: &Path, id: &NodeId) -> Result<Self, IdentityError> {
        // `ca.crt` and `ca.key` belong to the authority. Some file systems are case-insensitive.
        if id.as_str().eq_ignore_ascii_case("ca") {
            return Err(IdentityError::ReservedName { id: id.clone() });
        }
        // An id has no path separators, and the suffix keeps `.` and `..` from meaning a directory.
        Ok(Self {
            certificate: dir.join(format!("{id}.crt")),
            key: dir.join(format!("{id}.key")),
            request: dir.join(format!("{id}.csr")),
            roots: dir.join("ca.crt"),
        })
    }
}

fn read_chain(file: &Pem) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unreadable =
        |problem: String| IdentityError::Certificate { origin: file.origin.clone(), problem };
    let chain = CertificateDer::pem_slice_iter(file.text.as_bytes())
        .take(Identity::MAX_CHAIN + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(pem::problem(&error)))?;
    if chain.len() > Identity::MAX_CHAIN {
        return Err(unreadable(format!(
            "the chain has more than {} certificates",
            Identity::MAX_CHAIN
        )));
    }
    Ok(chain)
}

/// Why an identity cannot be loaded or written. The caller's fault, or that of the files; nothing
/// else was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate chain cannot be used.
    #[error("{origin}: {problem}")]
    Certificate {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The private key cannot be used.
    #[error("{origin}: {problem}")]
    Key {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: KeyError,
    },
    /// The private key is that of another certificate.
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate} (a chain starts with the node's own)"
    )]
    KeyMismatch {
        /// Where the certificate came from.
        certificate: String,
        /// Where the key came from.
        key: String,
    },
    /// The certificate names no node.
    #[error("{origin}: {problem}")]
    Names {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        problem: NamesError,
    },
    /// The certificate names other nodes than the requested one.
    #[error("{origin}: the certificate names {found:?}, not {id:?}")]
    WrongName {
        /// Where it came from.
        origin: String,
        /// The requested id.
        id: NodeId,
        /// The ids in the certificate.
        found: Vec<NodeId>,
    },
    /// The roots cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The files of a node of this name would be those of the authority.
    #[error("a node cannot be called {id:?} here: {id}.crt and {id}.key are the files of the CA")]
    ReservedName {
        /// The id.
        id: NodeId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::identity::names::NameKind;
    use crate::transport::identity::testdata::{fixtures, id, identity, text};

    #[test]
    fn certificates_and_keys_made_by_openssl_are_loaded() {
        for name in ["othername", "uri", "dns", "p384", "many", "chained"] {
            let identity = identity(name);
            assert!(identity.may_claim(&id(name)), "{name}");
        }
        assert_eq!(identity("many").ids(), [id("many"), id("many@uri"), id("many-dns")]);
        assert_eq!(
            identity("many").names()[1],
            NodeName { id: id("many@uri"), kind: NameKind::Uri }
        );
    }

    #[test]
    fn fingerprints_are_those_that_openssl_prints() {
        let known = text("fingerprints");
        let uri = identity("uri");
        assert!(known.contains(&format!("uri certificate {}", uri.fingerprint())), "{known}");
        assert!(known.contains(&format!("uri key {}", uri.key_fingerprint())), "{known}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let error = |name: &str| Identity::load(&fixtures(), &id(name)).unwrap_err();
        let message = |name: &str| error(name).to_string();
        let path = |file: &str| fixtures().join(file).display().to_string();
        assert!(matches!(error("nobody"), IdentityError::File(FileError::Read { .. })));
        assert!(message("nobody").contains(&path("nobody.crt")), "{}", message("nobody"));
        assert_eq!(
            error("encrypted"),
            IdentityError::Key { origin: path("encrypted.key"), problem: KeyError::Encrypted }
        );
        assert_eq!(
            error("nameless"),
            IdentityError::Names { origin: path("nameless.crt"), problem: NamesError::NoNodeId }
        );
        assert_eq!(error("CA"), IdentityError::ReservedName { id: id("CA") });
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let error =
            Identity::from_pem(&text("uri.crt"), &text("dns.key"), &text("ca.crt")).unwrap_err();
        assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error:?}");
        // A chain that starts with the CA's certificate fails in the same way.
        let chain = text("ca.crt") + &text("uri.crt");
        let error = Identity::from_pem(&chain, &text("uri.key"), &text("ca.crt")).unwrap_err();
        assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error:?}");
    }

    #[test]
    fn a_certificate_of_another_node_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        for (from, to) in [("uri.crt", "edge.crt"), ("uri.key", "edge.key"), ("ca.crt", "ca.crt")] {
            std::fs::copy(fixtures().join(from), dir.path().join(to)).unwrap();
        }
        let error = Identity::load(dir.path(), &id("edge")).unwrap_err();
        assert!(
            error.to_string().ends_with(r#"edge.crt: the certificate names ["uri"], not "edge""#),
            "{error}"
        );
    }

    #[test]
    fn missing_and_damaged_parts_are_refused() {
        let error = |chain: &str, key: &str, roots: &str| {
            Identity::from_pem(chain, key, roots).unwrap_err().to_string()
        };
        let (crt, key, ca) = (&text("uri.crt"), &text("uri.key"), &text("ca.crt"));
        assert_eq!(
            error("", key, ca),
            "the given certificate chain: there is no certificate (PEM) in it"
        );
        assert!(
            error(crt, "", ca)
                .starts_with("the given private key: there is no readable private key")
        );
        assert_eq!(error(crt, key, ""), "the given roots: there is no certificate (PEM) in it");
        assert!(error(&crt.repeat(6), key, ca).contains("more than 5 certificates"));
        let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(error(damaged, key, ca).contains("the certificate cannot be used"));
    }

    #[test]
    fn what_was_saved_is_loaded_and_a_key_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let name = id("p384");
        let original = identity("p384");
        original.save(dir.path(), &name).unwrap();
        let loaded = Identity::load(dir.path(), &name).unwrap();
        assert_eq!(loaded.chain_pem(), text("p384.crt"));
        assert_eq!(loaded.fingerprint(), original.fingerprint());
        assert_eq!(loaded.derive_secret("x"), original.derive_secret("x"));

        let key = dir.path().join("p384.key");
        assert_eq!(
            original.save(dir.path(), &name),
            Err(FileError::Exists { path: key.clone() }.into())
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        original.replace(dir.path(), &name).unwrap();
        Identity::load(dir.path(), &name).unwrap();
    }

    #[test]
    fn debug_shows_the_names_and_no_key() {
        for name in ["othername", "uri", "dns", "p384"] {
            let shown = format!("{:?}", identity(name));
            assert!(shown.contains(name), "{shown}");
            for line in text(&format!("{name}.key")).lines() {
                assert!(!shown.contains(line), "{shown}");
            }
            assert!(shown.len() < 700, "nothing long is in it: {shown}");
        }
    }
}
