//! Accepts TCP connections that carry links.
//!
//! Until a link has come about, a connection is a half-open one, with a place by its source like
//! handshakes over UDP: see [`half_open`]. Its place, and its time for TLS, the
//! first frame and the handshake of QUIC, end together.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::half_open::{self, HalfOpen, Verdict};
use crate::transport::carrier::{self, ListenTcp};
use crate::transport::endpoint::Endpoint;

/// How long it may take until there is a link: TLS, then the handshake of QUIC and HELLO.
const LINK_WITHIN: Duration = Duration::from_secs(15);
/// How long nothing is accepted after the system has refused to: it may be out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts carriers at one address.
pub(crate) struct TcpAcceptor {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) listening: ListenTcp,
    pub(crate) half_open: HalfOpen,
}

impl TcpAcceptor {
    /// Runs until it is dropped; carriers with links go on.
    pub(crate) async fn run(self) {
        loop {
            let (tcp, from) = match self.listening.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(listen = %self.listening.addr, %error, "cannot accept a TCP connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // The handshake of TCP has proven the address.
            let source = half_open::link_source(from.ip());
            let Verdict::Admit(place) = self.half_open.judge(source, true) else { continue };
            let (endpoint, half_open) = (self.endpoint.clone(), self.half_open.clone());
            let waiting = async move {
                match place.hold(tokio::time::sleep(LINK_WITHIN)).await {
                    Some(()) => half_open.fell_silent(),
                    None => debug!(%from, "a TCP connection lost its place to another source"),
                }
            };
            tokio::spawn(async move {
                let identity = endpoint.identity();
                carrier::accept(endpoint.socket().carriers(), tcp, from, &identity, waiting).await;
            });
        }
    }
}
