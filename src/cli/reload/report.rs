//! What a reload did, and how it is asked for.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::cli::process::exit::Failure;

/// What a reload did. The certificates are always reloaded.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct Reloaded {
    /// Settings that have changed and are in effect, by their names in the file.
    pub(in crate::cli) applied: Vec<String>,
    /// Settings that have changed and take effect when the node is started again.
    pub(in crate::cli) needs_restart: Vec<String>,
}

/// A client that waits for a reload.
pub(in crate::cli) type Asker = oneshot::Sender<Result<Reloaded, Failure>>;

/// The maximum number of reloads that wait for their turn.
const MAX_WAITING: usize = 16;

/// How clients ask for reloads, and where they are received.
pub(in crate::cli) fn requests() -> (mpsc::Sender<Asker>, mpsc::Receiver<Asker>) {
    mpsc::channel(MAX_WAITING)
}
