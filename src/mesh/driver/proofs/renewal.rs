//! Serves the renewed certificates that peers prove.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use crate::mesh::links::trust::vetting::Vetting;
use crate::mesh::services::{Incoming, Listener};
use crate::transport::authenticator::Authenticator;
use crate::transport::frame::{Frame, MAX_AUTHENTICATOR};

/// How long a peer may take to send a proof.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a stream: the connection's tag, and a frame with its length.
const MAX_LEN: usize = 8 + 4 + MAX_AUTHENTICATOR;

/// Takes the proofs of peers until the node is shut down.
pub(crate) async fn serve(mut listener: Listener, vetting: Vetting) {
    while let Some(incoming) = listener.accept().await {
        let vetting = vetting.clone();
        // Bounded by the streams that the connections permit. What is verified is bounded for each
        // connection.
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
