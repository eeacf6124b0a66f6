//! Keeping units that have ended in little memory.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;

/// How long a unit that has ended stays as it is: its submitter reads its output now.
const LINGER: Duration = Duration::from_secs(1);

/// The longest wait before units with other references are checked again.
const MAX_LINGER: Duration = Duration::from_secs(60);

impl Shared {
    /// Replaces ended units that are not in use by compact records.
    pub(super) async fn sweep_ended(self: &Arc<Self>) {
        let mut linger = LINGER;
        loop {
            tokio::select! {
                () = self.outgoing.retired.notified() => {}
                () = self.incoming.retired.notified() => {}
            }
            loop {
                tokio::time::sleep(linger).await;
                let (out_replaced, out_left) = self.outgoing.sweep().await;
                let (in_replaced, in_left) = self.incoming.sweep().await;
                if out_left + in_left == 0 {
                    linger = LINGER;
                    break;
                }
                // References may be held for a long time.
                let moved = out_replaced + in_replaced > 0;
                linger = if moved { LINGER } else { (linger * 2).min(MAX_LINGER) };
            }
        }
    }
}
