//! The tasks of the service, which end with the node.

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Spawns tasks that are dropped when the node is gone.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    closed: watch::Receiver<bool>,
}

impl Tasks {
    /// Tasks on this runtime, which end once `closed` is true.
    pub(super) fn new(runtime: Handle, closed: watch::Receiver<bool>) -> Self {
        Self { runtime, closed }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether the node is gone.
    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Becomes true when the node is gone.
    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }

    /// Runs a task until it ends or the node is gone.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closed = self.closed.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                () = task => {}
            }
        });
    }
}
