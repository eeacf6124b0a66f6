//! QUIC under the mesh: identities, TLS, the one UDP socket, framing.

pub(crate) mod authenticator;
pub(crate) mod backoff;
#[doc(hidden)]
pub mod bench;
pub(crate) mod carrier;
pub(crate) mod clock;
pub mod code;
pub(crate) mod congestion;
pub(crate) mod crypto;
pub(crate) mod endpoint;
pub(crate) mod frame;
pub(crate) mod handshake;
mod identity;
pub(crate) mod overlay;
pub(crate) mod random;
pub(crate) mod refusal;
mod socket;
pub(crate) mod standing;

pub use carrier::CarrierStatus;
pub use congestion::Congestion;
pub use endpoint::settings::{
    DEFAULT_PEER_TIMEOUT, DEFAULT_RECEIVE_MEMORY, DEFAULT_RECEIVE_WINDOW, Liveness, PEER_TIMEOUTS,
    RECEIVE_WINDOWS,
};
pub(crate) use endpoint::{settings, tls};
#[cfg(test)]
pub(crate) use identity::testdata;
#[cfg(all(test, feature = "testing"))]
pub(crate) use identity::verify;
pub use identity::{
    Authority, AuthorityError, CertificateRequest, FileError, Fingerprint, Identity, IdentityError,
    IdentityProblem, InvalidFingerprint, InvalidRelayRule, KeyError, MAX_PEM_FILE, NameKind,
    NamesError, NodeName, RelayRule, RequestError, SignedCertificate, Trust, TrustError,
    id_for_address, ids_in_certificate, roles_in_certificate,
};
pub(crate) use identity::{open_regular, presented::Sighting, signature, verify::credential};
pub use refusal::{Refusal, RefusalDetails, RefusalReason, Refuser};
pub use socket::udp::bind::{InvalidListenAddr, ListenAddr};
pub(crate) use socket::udp::{bind, path_mtu, renewable, unreachable};
pub(crate) use socket::{PortOpener, Socket, mapped, probes};
