//! Why an attempt to reach a peer failed.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::ConnectionError;

use crate::mesh::links::dialling::names::LookUpError;
use crate::mesh::links::dialling::peer_addr::PeerAddr;
use crate::transport::Refusal;
use crate::transport::handshake::HandshakeError;
use crate::transport::unreachable::Reason;

/// Why an attempt failed. The next one follows by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    #[error("no address to dial")]
    NoAddress,
    #[error("{0}")]
    Dial(String),
    #[error(transparent)]
    Carrier(#[from] crate::transport::carrier::DialError),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{addr}: {why}")]
    Unreachable { addr: SocketAddr, why: Reason },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl AttemptError {
    /// Whether the process at the other end is gone, or is about to go: it refuses handshakes then.
    pub(super) fn may_be_restart(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => *why == Reason::Port,
            Self::Handshake(HandshakeError::Lost(ConnectionError::ConnectionClosed(close))) => {
                close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED
            }
            _ => false,
        }
    }

    /// The error for somebody who knows which peer it is about.
    pub(super) fn describe(&self, peer: &PeerAddr) -> String {
        match self {
            Self::Unreachable { addr, why } if addr.to_string() == peer.host_and_port() => {
                why.to_string()
            }
            error => error.to_string(),
        }
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Handshake(error) => error.refusal(),
            Self::LookUp(_)
            | Self::NoAddress
            | Self::Dial(_)
            | Self::Carrier(_)
            | Self::Unreachable { .. }
            | Self::Timeout(_) => None,
        }
    }
}
