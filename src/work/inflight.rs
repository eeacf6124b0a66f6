//! Counting what is under way, so that a shutdown can wait for it.

use tokio::sync::watch;

/// Counts what is under way. The clones are one counter.
#[derive(Clone, Debug)]
pub(super) struct Inflight(watch::Sender<usize>);

/// Something under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Token(Inflight);

impl Inflight {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn enter(&self) -> Token {
        self.0.send_modify(|count| *count += 1);
        Token(self.clone())
    }

    /// Waits until nothing is under way.
    pub(super) async fn none(&self) {
        self.0.subscribe().wait_for(|count| *count == 0).await.expect("self holds the sender");
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
