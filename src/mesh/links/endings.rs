//! How many links may end at the same time.
//!
//! A hub can lose thousands of stubs within milliseconds. To end a link takes the driver tens of
//! microseconds, and if all of them did so at once, every other task would wait for them: the run
//! queue is FIFO. So a link takes a turn first, and returns it once the driver has dealt with its
//! end. The rest of the run queue gets its turns in between.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of links of each kind whose end is on its way to the driver, or being handled:
/// about a millisecond of its time.
pub(crate) const MAX_AT_A_TIME: usize = 32;

/// The turns of a node's links. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Endings {
    stubs: Arc<Semaphore>,
    /// Routes depend on the others: they do not wait for stubs.
    others: Arc<Semaphore>,
}

/// Held until the end of a link is handled.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Endings {
    pub(crate) fn new() -> Self {
        let turns = || Arc::new(Semaphore::new(MAX_AT_A_TIME));
        Self { stubs: turns(), others: turns() }
    }

    /// Waits for a turn, in the order of the callers. `None` never comes: the semaphores are not
    /// closed.
    pub(crate) async fn turn(&self, stub: bool) -> Option<Turn> {
        let turns = if stub { &self.stubs } else { &self.others };
        Arc::clone(turns).acquire_owned().await.ok().map(Turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_than_the_permitted_number_has_a_turn_and_stubs_delay_no_other() {
        let endings = Endings::new();
        let mut stubs = Vec::new();
        for _ in 0..MAX_AT_A_TIME {
            stubs.push(endings.turn(true).await.unwrap());
        }
        let mut waiting = poller(endings.turn(true));
        assert!(waiting().is_none());
        assert!(endings.turn(false).await.is_some());
        stubs.pop();
        assert!(waiting().is_some());
    }

    /// Polls a future once each time it is called.
    fn poller(turn: impl Future<Output = Option<Turn>>) -> impl FnMut() -> Option<Turn> {
        let mut turn = Box::pin(turn);
        move || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            match turn.as_mut().poll(&mut cx) {
                std::task::Poll::Ready(turn) => turn,
                std::task::Poll::Pending => None,
            }
        }
    }
}
