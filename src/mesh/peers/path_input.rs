//! What wakes the driver for a direct path.

use tokio::sync::mpsc;

use crate::id::NodeId;
use crate::mesh::services::connection::Connection;
use crate::punch::Message;
use crate::transport::probes::ReceivedProbe;

/// What wakes the driver for a direct path.
#[derive(Debug)]
pub(crate) enum PathInput {
    /// A peer connection is up; messages for the peer go to `messages`.
    Up { peer: NodeId, connection: Connection, messages: mpsc::Sender<Message> },
    /// A peer connection, by its stable id, is down.
    Down { peer: NodeId, connection: usize },
    /// A peer sent a message over the connection with this stable id.
    Message { peer: NodeId, connection: usize, message: Message },
    /// A datagram arrived that may be a probe.
    Probe(ReceivedProbe),
}
