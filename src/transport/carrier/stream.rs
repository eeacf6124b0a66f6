//! From a TCP connection to a running carrier.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::debug;

use super::counts::count;
use super::hub::{Carried, Carriers};
use super::pump::{self, Ended};
use super::{ALPN, CONNECT_WITHIN, options, outer_tls};
use crate::transport::Identity;

/// The response to anything but a carrier.
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// The longest head of a request that is read before it is answered, in bytes.
const MAX_REQUEST: usize = 8 * 1024;

/// Why a carrier could not be opened. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("TCP {addr}: {error}")]
    Tcp { addr: SocketAddr, error: io::Error },
    #[error("TCP {addr}: no answer within {CONNECT_WITHIN:?}")]
    Timeout { addr: SocketAddr },
    #[error("TLS with {addr}: {error}")]
    Tls { addr: SocketAddr, error: io::Error },
    #[error("{addr} speaks TLS, but not receptor-quic/1: another server listens there")]
    OtherServer { addr: SocketAddr },
    #[error("{0:?} is not a server name for TLS")]
    ServerName(String),
}

/// Opens a carrier to `addr`, whose server name is `host`. It runs by itself until it is dropped,
/// or its [link](Carriers::follow) ends.
pub(crate) async fn dial(
    carriers: &Arc<Carriers>,
    addr: SocketAddr,
    host: &str,
) -> Result<Carried, DialError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| DialError::ServerName(host.to_owned()))?;
    let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::Tcp { addr, error }),
        Err(_) => return Err(DialError::Timeout { addr }),
    };
    options::set(&stream);
    let connecting = TlsConnector::from(outer_tls::client()).connect(name, stream);
    let stream = match timeout(CONNECT_WITHIN, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::Tls { addr, error }),
        Err(_) => return Err(DialError::Timeout { addr }),
    };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(DialError::OtherServer { addr });
    }
    let carried = carriers.open(addr, false);
    let running = carried.share();
    tokio::spawn(async move {
        let ended = pump::run(stream, &running).await;
        debug!(%addr, %ended, "a carrier ended");
    });
    Ok(carried)
}

/// Accepts a carrier on a TCP connection, and runs it until it ends. Fails if no link comes about
/// on it while `half_open` waits, which ends when the connection's place or time is used up.
pub(crate) async fn accept(
    carriers: &Arc<Carriers>,
    tcp: TcpStream,
    from: SocketAddr,
    identity: &Identity,
    half_open: impl Future<Output = ()>,
) {
    options::set(&tcp);
    // Dropped as soon as there is a link, for others.
    let mut half_open = Box::pin(half_open);
    let accepting = TlsAcceptor::from(outer_tls::server(identity)).accept(tcp);
    let stream = tokio::select! {
        biased;
        accepted = accepting => accepted.ok(),
        () = &mut half_open => None,
    };
    let Some(mut stream) = stream else { return count(&carriers.counters.tls_failed) };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        count(&carriers.counters.not_found);
        tokio::select! {
            biased;
            () = refuse(&mut stream) => {}
            () = half_open => {}
        }
        return;
    }
    let carried = carriers.open(from, true);
    let mut running = std::pin::pin!(pump::run(stream, &carried));
    let ended = tokio::select! {
        biased;
        ended = &mut running => Some(ended),
        () = carried.until_linked() => None,
        () = &mut half_open => {
            count(&carriers.counters.without_link);
            Some(Ended::Unused)
        }
    };
    drop(half_open);
    let ended = match ended {
        Some(ended) => ended,
        None => running.await,
    };
    debug!(%from, %ended, "a carrier ended");
}

/// Reads the head of an HTTP request, and answers it with 404. Whatever fails, the connection is
/// about to be closed.
async fn refuse(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let (mut head, mut buf) = (Vec::new(), [0; 1024]);
    while head.len() < MAX_REQUEST && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buf).await {
            Ok(len) if len > 0 => head.extend_from_slice(&buf[..len]),
            Ok(_) | Err(_) => return,
        }
    }
    if stream.write_all(NOT_FOUND).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
