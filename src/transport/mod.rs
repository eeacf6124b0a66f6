//! QUIC under the mesh: identities, TLS, the one UDP socket, framing.

mod authority;
pub mod code;
mod files;
mod fingerprint;
mod identity;
mod key;
mod names;
mod refusal;
mod reset;
#[cfg(test)]
mod testdata;
pub(crate) mod tls;
mod trust;
mod validity;
mod verify;

pub use authority::{Authority, AuthorityError};
pub use files::{FileError, MAX_PEM_FILE};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{Identity, IdentityError};
pub use key::KeyError;
pub use names::{NameKind, NamesError, NodeName, id_for_address, ids_in_certificate};
pub use refusal::Refusal;
pub use trust::{Trust, TrustError};
pub use validity::IdentityProblem;
