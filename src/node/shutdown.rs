//! The orderly end of a node.
use std::time::Duration;

use super::{Inner, Node};

impl Node {
    /// How long calls and streams may go on after [`shutdown`](Self::shutdown) was called: 5 s.
    /// Short enough for a supervisor that kills after ten seconds, as Docker does;
    /// [`shutdown_within`](Self::shutdown_within) takes another.
    pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

    /// Leaves in order, with a grace period of [`SHUTDOWN_GRACE`](Self::SHUTDOWN_GRACE): as
    /// [`shutdown_within`](Self::shutdown_within).
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let bob = mesh.node("bob");
    /// // Running calls end, neighbours learn that the node leaves.
    /// bob.shutdown().await;
    /// assert!(bob.status().await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        self.shutdown_within(Self::SHUTDOWN_GRACE).await;
    }

    /// Leaves in order, and frees the port.
    ///
    /// From the first poll on, new calls and streams are refused with
    /// [`RefuseCode::Leaving`](crate::mesh::RefuseCode). Calls and streams that are open may end
    /// for up to `grace`, those that this node has opened included; a stream has ended when both
    /// directions are finished and delivered, reset or stopped, whether or not it is still held.
    /// What is left then ends with the code `leaving`: calls get it as their last response, streams
    /// by the close of their connection. Then the node withdraws from the mesh and closes its
    /// connections. Takes at most 15 seconds more than `grace`, which is cut to a day, and a few
    /// milliseconds more than a round trip if nothing is left.
    ///
    /// [Units](crate::work::unit) are not started any more. Commands of those that run go on, and
    /// the node finds them again when it is started again; functions end as calls do.
    ///
    /// The shutdown runs on a task of its own, on the runtime that drives the node: dropping the
    /// future does not interrupt it. Calls that come while it runs share its outcome, and the
    /// earliest end of a grace period counts. Afterwards the methods of all clones return errors
    /// that say that the node is shut down.
    ///
    /// Within a handler of this node, the handler's own call is not waited for; it is cut off after
    /// all others, and its caller gets [`CallError::Leaving`](crate::CallError::Leaving). To answer
    /// the caller first, spawn the shutdown and return from the handler.
    ///
    /// # Examples
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let bob = mesh.node("bob");
    /// use std::time::Duration;
    ///
    /// bob.shutdown_within(Duration::from_secs(1)).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown_within(&self, grace: Duration) {
        let _waiver = self.0.registry.waive_own_call();
        let shutdown = self.0.mesh.shutdown();
        if shutdown.begin(grace) {
            let leaving = Leaving(self.clone());
            self.0.mesh.run(async move { leaving.run().await });
        }
        shutdown.done().await;
    }
}

/// A shutdown that runs. Dropped, with its runtime for instance, it lets its callers go.
struct Leaving(Node);

impl Leaving {
    async fn run(&self) {
        let Inner { mesh, registry, units } = &*self.0.0;
        // First, so that no unit is started whose handler could not be called.
        if let Some(units) = units {
            units.drain();
        }
        mesh.refuse_streams();
        registry.drain();
        let ended = async {
            registry.idle().await;
            mesh.streams_ended().await;
            if let Some(units) = units {
                units.handlers_recorded().await;
            }
        };
        tokio::select! {
            biased;
            () = ended => {}
            () = mesh.shutdown().grace_over() => {}
        }
        registry.shutdown(Duration::ZERO).await;
        if let Some(units) = units {
            units.close();
        }
        mesh.leave().await;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.0.mesh.shutdown().finished();
    }
}
