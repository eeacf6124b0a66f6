//! QUIC under the mesh: identities, TLS, the one UDP socket, framing.

pub(crate) mod authenticator;
mod authority;
pub(crate) mod backoff;
#[doc(hidden)]
pub mod bench;
pub(crate) mod bind;
mod ca_limits;
mod certificate_error;
mod chain;
pub(crate) mod clock;
pub mod code;
pub(crate) mod credential;
pub(crate) mod crypto;
pub(crate) mod endpoint;
#[cfg(target_os = "linux")]
mod error_queue;
mod files;
mod fingerprint;
pub(crate) mod frame;
pub(crate) mod handshake;
mod identity;
mod key;
mod names;
pub(crate) mod overlay;
pub(crate) mod path_mtu;
mod pem;
pub(crate) mod probes;
pub(crate) mod random;
pub(crate) mod refusal;
mod relay_rules;
pub(crate) mod renewable;
mod reset;
mod runtime;
pub(crate) mod settings;
pub(crate) mod signature;
mod socket;
pub(crate) mod standing;
#[cfg(test)]
pub(crate) mod testdata;
pub(crate) mod tls;
mod trust;
pub(crate) mod unreachable;
mod validity;
pub(crate) mod verify;
pub(crate) mod wanted;

pub use authority::{Authority, AuthorityError};
pub(crate) use files::open_regular;
pub use files::{FileError, MAX_PEM_FILE};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{Identity, IdentityError};
pub use key::KeyError;
pub use names::{NameKind, NamesError, NodeName, id_for_address, ids_in_certificate, roles_in_certificate};
pub use refusal::{Refusal, RefusalReason, Refuser};
pub use relay_rules::{InvalidRelayRule, RelayRule};
pub use settings::{
    DEFAULT_PEER_TIMEOUT, DEFAULT_RECEIVE_MEMORY, DEFAULT_RECEIVE_WINDOW, Liveness, PEER_TIMEOUTS,
    RECEIVE_WINDOWS,
};
pub(crate) use socket::{PortOpener, Socket, mapped};
pub use trust::{Trust, TrustError};
pub use validity::IdentityProblem;
