//! Authenticators on peer connections: each travels as a stream of a service that every node offers.
//!
//! A node of an earlier version refuses the stream, and goes on judging the connection by its handshake.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use crate::id::ServiceName;
use crate::mesh::links::vetting::Vetting;
use crate::mesh::services::open::{OpenHeader, OpenOptions};
use crate::mesh::services::refuse::ACCEPTED;
use crate::mesh::services::{Incoming, Listener};
use crate::transport::authenticator::{Authenticator, Binding, CredentialHash};
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::{Frame, MAX_AUTHENTICATOR};

/// The service's name. Applications cannot offer it.
pub(crate) const SERVICE: &str = "receptor:certificate";

/// How often a proof is offered to a peer that has no room for the stream.
const ATTEMPTS: usize = 5;
/// How long a peer may take to send a proof.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a stream: the connection's tag, and a frame with its length.
const MAX_LEN: usize = 8 + 4 + MAX_AUTHENTICATOR;

pub(crate) fn service() -> ServiceName {
    ServiceName::try_from(SERVICE).expect("it is a service name")
}

/// Sends a proof of this node's certificate, the one that it has once there is room for the stream. Gives the hash of its
/// chain, whether the peer has accepted the stream or never does; `None` if the connection has ended.
pub(crate) async fn prove(
    connection: Connection,
    endpoint: Arc<Endpoint>,
    retry: Duration,
) -> Option<CredentialHash> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let (proven, accepted) = attempt(&connection, &endpoint).await?;
        last = Some(proven);
        if accepted {
            break;
        }
        tokio::time::sleep(retry).await;
    }
    last
}

/// What was proven, and whether the peer has accepted the stream; `None` if the connection has ended, or the system has no
/// randomness.
async fn attempt(connection: &Connection, endpoint: &Endpoint) -> Option<(CredentialHash, bool)> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    let _ = send.set_priority(i32::MAX);
    let binding = Binding::own(connection);
    let proof = Authenticator::new(&endpoint.identity(), &binding)?;
    let proven = proof.hash();
    let header = OpenHeader::encoded(&service(), OpenOptions::default(), false);
    send.write_all(&[&header[..], &binding.tag(), &Frame::Authenticator(proof).encode()].concat())
        .await
        .ok()?;
    let _ = send.finish();
    let mut answer = [0];
    recv.read_exact(&mut answer).await.ok()?;
    Some((proven, answer == [ACCEPTED]))
}

/// Takes the proofs of peers until the node is shut down.
pub(crate) async fn serve(mut listener: Listener, vetting: Vetting) {
    while let Some(incoming) = listener.accept().await {
        let vetting = vetting.clone();
        // Bounded by the streams that the connections permit. What is verified is bounded for each connection.
        tokio::spawn(async move { take(incoming, &vetting).await });
    }
}

async fn take(incoming: Incoming, vetting: &Vetting) {
    let Incoming { peer, mut stream, .. } = incoming;
    // Dropped unfinished, the stream would be reset, and the acceptance of the proof lost with it.
    stream.send.finish();
    let mut came = Vec::new();
    let mut bounded = (&mut stream.recv).take(MAX_LEN as u64 + 1);
    let reading = bounded.read_to_end(&mut came);
    if !matches!(tokio::time::timeout(READ_TIMEOUT, reading).await, Ok(Ok(len)) if len <= MAX_LEN) {
        debug!(%peer, "an authenticator did not arrive");
        return;
    }
    let Some((tag, proof)) = parse(&came) else {
        debug!(%peer, "an authenticator could not be read");
        return;
    };
    // The service learns which peer opened the stream, not on which of their connections.
    match vetting.with(&peer).into_iter().find(|vetted| vetted.tag() == tag) {
        Some(vetted) => vetted.offer(proof).await,
        None => debug!(%peer, "an authenticator is for no connection with its peer"),
    }
}

fn parse(came: &[u8]) -> Option<([u8; 8], Authenticator)> {
    let (tag, frame) = came.split_first_chunk::<8>()?;
    let (len, body) = frame.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*len) as usize != body.len() {
        return None;
    }
    match Frame::decode(&Bytes::copy_from_slice(body)) {
        Ok(Some(Frame::Authenticator(proof))) => Some((*tag, proof)),
        _ => None,
    }
}
