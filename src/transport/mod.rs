//! QUIC under the mesh: identities, TLS, the one UDP socket, framing.

pub(crate) mod authenticator;
pub(crate) mod backoff;
#[doc(hidden)]
pub mod bench;
pub(crate) mod bind;
pub(crate) mod clock;
pub mod code;
pub(crate) mod crypto;
pub(crate) mod endpoint;
#[cfg(target_os = "linux")]
mod error_queue;
pub(crate) mod frame;
pub(crate) mod handshake;
mod identity;
pub(crate) mod overlay;
pub(crate) mod path_mtu;
pub(crate) mod probes;
pub(crate) mod random;
pub(crate) mod refusal;
pub(crate) mod renewable;
mod reset;
mod runtime;
pub(crate) mod settings;
mod socket;
pub(crate) mod standing;
pub(crate) mod tls;
pub(crate) mod unreachable;
pub(crate) mod wanted;

pub use identity::{
    Authority, AuthorityError, FileError, Fingerprint, Identity, IdentityError, IdentityProblem,
    InvalidFingerprint, InvalidRelayRule, KeyError, MAX_PEM_FILE, NameKind, NamesError, NodeName, RelayRule,
    Trust, TrustError, id_for_address, ids_in_certificate, roles_in_certificate,
};
pub(crate) use identity::{open_regular, signature, verify::credential};
#[cfg(test)]
pub(crate) use identity::{testdata, verify};
pub use refusal::{Refusal, RefusalReason, Refuser};
pub use settings::{
    DEFAULT_PEER_TIMEOUT, DEFAULT_RECEIVE_MEMORY, DEFAULT_RECEIVE_WINDOW, Liveness, PEER_TIMEOUTS,
    RECEIVE_WINDOWS,
};
pub(crate) use socket::{PortOpener, Socket, mapped};
