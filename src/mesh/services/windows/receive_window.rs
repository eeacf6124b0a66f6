//! The receive window of a connection: bytes received and not yet read by the application.
//!
//! quinn gives each stream a window of [`STREAM_WINDOW`], which cannot be changed once the
//! connection exists, and each connection a window for all of its streams together, which can only
//! grow: credit that was announced cannot be taken back (RFC 9000 §4.1). So a connection begins
//! with room for one stream that is not read, and a quarter more for others:
//!
//! ```text
//!   streams that stay for SETTLE ─▶ more than there is room for ─▶ grow: one stream window each,
//!                                                                  from the budget of all
//! ```
//!
//! As long as it can grow, no number of slow readers delays another stream. At its limit, the
//! window is what the streams have together, and each one's part shrinks with their number: quinn's
//! senders take turns. Others' connections have windows of their own.

use std::convert::Infallible;
use std::time::Duration;

use quinn::VarInt;

use super::window_budget::{WindowBudget, WindowLimits};
use crate::id::NodeId;
use crate::mesh::report::status::WindowStatus;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::usage::Usage;
use crate::transport::settings::{FIRST_WINDOW, ReceiveLimits, STREAM_WINDOW};

/// How long streams have to stay before the window grows for them: most calls are over by then.
const SETTLE: Duration = Duration::from_millis(50);
/// Interval of attempts while the limits do not let the window grow.
const RETRY: Duration = Duration::from_secs(1);

/// The receive windows of a node's connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveBudget(WindowBudget);

impl ReceiveBudget {
    pub(crate) fn new(limits: ReceiveLimits) -> Self {
        let ReceiveLimits { per_peer, all } = limits;
        Self(WindowBudget::new(WindowLimits { first: FIRST_WINDOW, per_peer, all }))
    }

    /// Grows the window of a connection with its need, as long as this is polled; then the window
    /// is free for others.
    pub(crate) async fn follow(
        &self,
        connection: &Connection,
        peer: &NodeId,
        usage: &Usage,
    ) -> Infallible {
        let mut window = self.0.enter(peer);
        let need = connection.need();
        loop {
            need.noted().await;
            let mut pause = SETTLE;
            loop {
                tokio::time::sleep(pause).await;
                let wanted = needed(usage.streams());
                if wanted <= window.bytes() {
                    break;
                }
                pause = if window.grow(wanted) { SETTLE } else { RETRY };
                connection
                    .set_receive_window(VarInt::from_u64(window.bytes()).unwrap_or(VarInt::MAX));
                let fits = window.bytes().saturating_sub(needed(0)) / STREAM_WINDOW;
                need.fits(fits);
            }
        }
    }

    /// What status shows.
    pub(crate) fn status(&self) -> WindowStatus {
        self.0.status()
    }
}

/// The window in which this many streams that are not read leave something for others.
fn needed(streams: usize) -> u64 {
    (streams as u64).saturating_mul(STREAM_WINDOW).saturating_add(FIRST_WINDOW - STREAM_WINDOW)
}
