//! Counting what is under way, so that a shutdown can wait for it.
//!
//! A handler that shuts its own node down would wait for itself: its call is marked, and can be
//! waived.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

tokio::task_local! {
    /// The call that this task handles.
    static CURRENT: Marker;
}

/// Counts what is under way. The clones are one counter.
#[derive(Clone, Debug)]
pub(in crate::work) struct Inflight(watch::Sender<Counts>);

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    under_way: usize,
    /// Of these, calls whose handlers wait for the others to end.
    waived: usize,
}

/// Something under way, until it is dropped.
#[derive(Debug)]
pub(in crate::work) struct Token(Inflight);

impl Inflight {
    pub(in crate::work) fn new() -> Self {
        Self(watch::Sender::new(Counts::default()))
    }

    pub(in crate::work) fn enter(&self) -> Token {
        self.0.send_modify(|counts| counts.under_way += 1);
        Token(self.clone())
    }

    /// Waits until nothing is under way but what was waived.
    pub(in crate::work) async fn none(&self) {
        let none = |counts: &Counts| counts.under_way <= counts.waived;
        self.0.subscribe().wait_for(none).await.expect("self holds the sender");
    }

    /// Waits until nothing is under way, what was waived included.
    pub(in crate::work) async fn all_ended(&self) {
        let ended = |counts: &Counts| counts.under_way == 0;
        self.0.subscribe().wait_for(ended).await.expect("self holds the sender");
    }

    /// A marker for one call.
    pub(in crate::work) fn marker(&self) -> Marker {
        Marker(Arc::new(Mark { inflight: self.clone(), waivers: AtomicUsize::new(0) }))
    }

    /// Waives the call that the current task handles, if it is one of these.
    pub(in crate::work) fn waive_current(&self) -> Option<Waiver> {
        let current = CURRENT.try_with(Marker::clone).ok()?;
        current.0.inflight.0.same_channel(&self.0).then(|| Waiver::new(current))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.send_modify(|counts| counts.under_way -= 1);
    }
}

/// Marks the handler of one call.
#[derive(Clone, Debug)]
pub(in crate::work) struct Marker(Arc<Mark>);

#[derive(Debug)]
struct Mark {
    inflight: Inflight,
    /// How often it is waived now: once counts.
    waivers: AtomicUsize,
}

impl Marker {
    /// Marks what `handling` does on its own task.
    pub(in crate::work) fn mark<F: Future>(self, handling: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, handling)
    }
}

/// Has a call not count until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiver(Marker);

impl Waiver {
    fn new(marker: Marker) -> Self {
        if marker.0.waivers.fetch_add(1, Ordering::AcqRel) == 0 {
            marker.0.inflight.0.send_modify(|counts| counts.waived += 1);
        }
        Self(marker)
    }
}

impl Drop for Waiver {
    fn drop(&mut self) {
        let mark = &self.0.0;
        if mark.waivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            mark.inflight.0.send_modify(|counts| counts.waived -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_none(inflight: &Inflight) -> bool {
        timeout(Duration::from_secs(1), inflight.none()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_is_waived_once_and_only_in_its_own_registry() {
        let (inflight, other) = (Inflight::new(), Inflight::new());
        assert!(inflight.waive_current().is_none(), "this is no handler");
        let own = inflight.enter();
        let handler = async {
            assert!(other.waive_current().is_none());
            assert!(!is_none(&inflight).await);
            let waivers = [inflight.waive_current().unwrap(), inflight.waive_current().unwrap()];
            assert!(is_none(&inflight).await);
            let another = inflight.enter();
            assert!(!is_none(&inflight).await, "two waivers of one call do not stand for another");
            drop((waivers, another));
            assert!(!is_none(&inflight).await, "it counts again");
        };
        inflight.marker().mark(handler).await;
        drop(own);
        assert!(is_none(&inflight).await);
    }
}
