//! Authenticators on peer connections: each travels as a stream of a service that every node
//! offers.
//!
//! A node of an earlier version refuses the stream, and continues to judge the connection by its
//! handshake.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;

use crate::id::ServiceName;
use crate::mesh::services::opening::open::{OpenHeader, OpenOptions};
use crate::mesh::services::opening::refuse::ACCEPTED;
use crate::transport::authenticator::{Authenticator, Binding, CredentialHash};
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::Frame;

/// The service's name. Applications cannot offer it.
pub(crate) const SERVICE: &str = "receptor:certificate";

/// How often a proof is offered to a peer that has no room for the stream.
const ATTEMPTS: usize = 5;

pub(crate) fn service() -> ServiceName {
    ServiceName::try_from(SERVICE).expect("it is a service name")
}

/// Sends a proof of this node's certificate, the one that it has once there is room for the stream.
/// Gives the hash of its chain, whether the peer has accepted the stream or never does; `None` if
/// the connection has ended.
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

/// What was proven, and whether the peer has accepted the stream; `None` if the connection has
/// ended, or the system has no randomness.
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
