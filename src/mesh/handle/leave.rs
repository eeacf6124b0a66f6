//! The end of a mesh.
use std::time::Duration;

use super::Mesh;
use crate::mesh::driver::shutdown::Shutdown;
use crate::mesh::input::Command;

/// How long the neighbours have to take the node's last words.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// How long the driver may take to end, a little longer than it waits for connections; and the
/// system to free the port.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
const PORT_WAIT: Duration = Duration::from_millis(500);

impl Mesh {
    /// The shutdown that all callers share.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Waits until all streams have ended, and what this node had finished sending was delivered.
    /// For one caller.
    pub(crate) async fn streams_ended(&self) {
        self.0.services.open_streams.ended().await;
    }

    /// Takes no more streams.
    pub(crate) fn refuse_streams(&self) {
        self.0.services.leave();
    }

    /// Withdraws, waits for the neighbours to hear it, and closes. The port is free afterwards,
    /// whatever handles are left.
    pub(crate) async fn leave(&self) {
        self.refuse_streams();
        self.0.peers.close().await;
        let farewell = async {
            // An error means that the driver has ended, and with it the links.
            let _ = self.ask(Command::Leave).await;
            let mut view = self.0.view.clone();
            let _ = view.wait_for(|view| view.links.is_empty() || view.closed).await;
        };
        // A neighbour that does not listen is not waited for.
        let _ = tokio::time::timeout(LEAVE_WAIT, async {
            tokio::join!(farewell, self.0.outside.ended())
        })
        .await;
        self.0.life.send_replace(true);
        let mut view = self.0.view.clone();
        // The view's sender is the driver's, and goes when that has let go of the port.
        let gone = async { while view.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CLOSE_WAIT, gone).await;
        let _ = tokio::time::timeout(PORT_WAIT, self.0.endpoint.socket().released()).await;
    }
}
