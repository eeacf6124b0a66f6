//! What a peer was allowed, for as long as somebody uses it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::policy::{Action, AllowedBy, Verb};

/// What a peer was allowed. Those who act on it look at it, or wait for its end.
#[derive(Debug)]
pub(crate) struct Grant {
    verb: Verb,
    name: Box<str>,
    by: AllowedBy,
    revoked: AtomicBool,
    ended: Notify,
}

impl Grant {
    pub(super) fn new(action: &Action<'_>, by: AllowedBy) -> Self {
        Self {
            verb: action.verb(),
            name: action.name().into(),
            by,
            revoked: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// What is allowed.
    pub(crate) fn action(&self) -> Action<'_> {
        Action::of(self.verb, &self.name)
    }

    /// Why it was allowed.
    pub(crate) fn by(&self) -> AllowedBy {
        self.by
    }

    /// Whether it is no longer allowed.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Waits until it is no longer allowed. Cancel safe.
    pub(crate) async fn revoked(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Listens before it looks, so that no end is missed.
            ended.as_mut().enable();
            if self.is_revoked() {
                return;
            }
            ended.await;
        }
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }
}
