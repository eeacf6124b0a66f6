//! How many bytes a connection may hold that its peer has not acknowledged.
//!
//! quinn keeps what was written to streams until the peer acknowledges it, up to a window for each
//! connection. When to acknowledge is the peer's decision, so a member with many connections that
//! acknowledges nothing could make a node hold the largest window for each of them. Windows are
//! therefore small at first, and grow with the congestion window, which grows only with what is
//! acknowledged (RFC 9002, section 7.3):
//!
//! ```text
//!   FIRST_SEND_WINDOW ─▶ the congestion window exceeds half of it ─▶ eight congestion windows,
//!                                                                    at most MAX_SEND_WINDOW,
//!                                                                    from the budget of all
//! ```
//!
//! Twice the congestion window never limits a transfer: one is in flight, and the other is ready
//! for when the first is acknowledged.

use std::convert::Infallible;

use super::window_budget::{WindowBudget, WindowLimits};
use crate::id::NodeId;
use crate::mesh::report::status::WindowStatus;
use crate::mesh::services::connection::Connection;
use crate::transport::settings::{
    FIRST_SEND_WINDOW, MAX_SEND_WINDOW, SEND_MEMORY, SEND_WINDOW_PER_PEER,
};

/// The send windows of a node's connections. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct SendBudget(WindowBudget);

impl SendBudget {
    pub(crate) fn new() -> Self {
        let limits = WindowLimits {
            first: FIRST_SEND_WINDOW,
            per_peer: SEND_WINDOW_PER_PEER,
            all: SEND_MEMORY,
        };
        Self(WindowBudget::new(limits))
    }

    /// Grows the window of a connection with its congestion window, as long as this is polled; then
    /// the window is free for others.
    pub(crate) async fn follow(&self, connection: &Connection, peer: &NodeId) -> Infallible {
        let mut window = self.0.enter(peer);
        let written = connection.first_cause().written();
        loop {
            written.review().await;
            let (wanted, pause) = next(window.bytes(), connection.stats().path.cwnd);
            window.grow(wanted);
            connection.set_send_window(window.bytes());
            written.review_after(if window.bytes() < wanted { MAX_SEND_WINDOW } else { pause });
        }
    }

    /// What status shows.
    pub(crate) fn status(&self) -> WindowStatus {
        self.0.status()
    }
}

/// The window that a congestion window needs where there is one of `bytes`, and how many bytes may
/// be written before the next look.
fn next(bytes: u64, congestion: u64) -> (u64, u64) {
    let wanted =
        if congestion > bytes / 2 { congestion.saturating_mul(8).min(MAX_SEND_WINDOW) } else { 0 };
    let wanted = wanted.max(bytes);
    (wanted, if wanted >= MAX_SEND_WINDOW { u64::MAX } else { wanted / 4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_follows_the_congestion_window_up_to_its_limit() {
        // One that acknowledges nothing stays where it began.
        assert_eq!(next(FIRST_SEND_WINDOW, 14_720), (FIRST_SEND_WINDOW, FIRST_SEND_WINDOW / 4));
        assert_eq!(next(FIRST_SEND_WINDOW, 200_000), (1_600_000, 400_000));
        assert_eq!(next(1_600_000, 800_000), (1_600_000, 400_000));
        assert_eq!(next(1_600_000, u64::MAX), (MAX_SEND_WINDOW, u64::MAX));
        assert_eq!(next(MAX_SEND_WINDOW, 14_720), (MAX_SEND_WINDOW, u64::MAX));
    }
}
