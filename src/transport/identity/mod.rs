//! Who a node is and whom it accepts: certificates, keys, names and trust.

mod authority;
mod files;
mod fingerprint;
#[expect(clippy::module_inception, reason = "the file of the type `Identity`")]
mod identity;
pub(crate) mod key;
pub(crate) mod names;
mod pem;
pub(crate) mod presented;
mod relay_rules;
mod request;
pub(crate) mod signature;
#[cfg(test)]
pub(crate) mod testdata;
mod trust;
mod validity;
pub(crate) mod verify;

pub use authority::{Authority, AuthorityError};
pub(crate) use files::open_regular;
pub use files::{FileError, MAX_PEM_FILE};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{Identity, IdentityError};
pub use key::KeyError;
pub use names::{
    NameKind, NamesError, NodeName, id_for_address, ids_in_certificate, roles_in_certificate,
};
pub use relay_rules::{InvalidRelayRule, RelayRule};
pub use request::{CertificateRequest, RequestError, SignedCertificate};
pub use trust::{Trust, TrustError};
pub use validity::IdentityProblem;
