//! What the bench of the network needs that no caller does: quinn by itself, set as this crate sets
//! it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, TransportConfig};
use rustls::crypto::CryptoProvider;

use super::endpoint::settings::{self, Transports};
use super::socket::udp::bind;
use super::socket::udp::bind::ListenAddr;
use super::socket::udp::unreachable::Reports;
use super::{Congestion, Liveness, crypto};

/// Maximum UDP payload that a node sends or accepts, in bytes.
pub const MAX_DATAGRAM: u16 = settings::MAX_DATAGRAM;
/// The largest UDP payload on a link, in bytes.
pub const MAX_MTU: u16 = settings::MAX_MTU;
/// Streams that an authenticated neighbour or peer may have open at a time.
pub const MAX_STREAMS: u32 = settings::STREAM_CREDIT;

/// The transport of a link, which allows `streams` from the beginning.
#[must_use]
pub fn transport(max_datagram: u16, streams: u32) -> TransportConfig {
    let liveness = Liveness::default();
    let transports = Transports {
        liveness,
        congestion: Congestion::default(),
        max_datagram,
        direct: false,
        measured: false,
    };
    let mut config = transports.link(MAX_MTU, None);
    config.max_concurrent_bidi_streams(streams.into());
    config
}

/// The provider of all cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(crypto::provider())
}

/// A UDP socket as nodes bind it.
///
/// # Errors
/// The system refused it.
pub fn bind(addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = bind::bind(&[ListenAddr::At(addr)], &Reports::default())?
        .pop()
        .ok_or_else(|| io::Error::other("one address, one socket"))?;
    Ok(socket)
}
