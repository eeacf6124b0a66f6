//! One attempt to connect to a peer at a time, which outlives those who asked for it.
//!
//! ```text
//!   caller ─ join ─▶ first? ─ yes ─▶ the caller starts the task
//!                      │ no                   │
//!                      ▼                      ▼
//!                    wait ◀─ finished / a connection arrived from the peer
//! ```

use tokio::sync::watch;

use crate::mesh::services::opening::open::OpenError;

/// The attempt of one peer's slot to get a `T`.
#[derive(Debug)]
pub(super) struct Connecting<T>(watch::Sender<State<T>>);

#[derive(Debug)]
struct State<T> {
    under_way: bool,
    /// Attempts that are over.
    finished: u64,
    /// What the last of them came to.
    outcome: Option<Result<T, OpenError>>,
    /// Connections that came, from either end.
    arrived: u64,
}

/// A caller's interest in an attempt. Dropped, it leaves the attempt as it is.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    state: watch::Receiver<State<T>>,
    /// The attempts that were over when it joined.
    finished: u64,
    /// Whether the caller is to start the attempt.
    pub(super) first: bool,
}

impl<T> Default for Connecting<T> {
    fn default() -> Self {
        Self(watch::Sender::new(State { under_way: false, finished: 0, outcome: None, arrived: 0 }))
    }
}

impl<T: Clone> Connecting<T> {
    /// Joins the attempt under way, or begins one.
    pub(super) fn join(&self) -> Ticket<T> {
        // Subscribed first, so that no end is missed.
        let state = self.0.subscribe();
        let (mut first, mut finished) = (false, 0);
        self.0.send_if_modified(|state| {
            first = !std::mem::replace(&mut state.under_way, true);
            finished = state.finished;
            false
        });
        Ticket { state, finished, first }
    }

    /// Ends the attempt. All who joined it learn the same.
    pub(super) fn finish(&self, outcome: Result<T, OpenError>) {
        self.0.send_modify(|state| {
            state.under_way = false;
            state.finished += 1;
            state.outcome = Some(outcome);
        });
    }

    /// Records that there is a connection, opened by either end.
    pub(super) fn arrived(&self) {
        self.0.send_modify(|state| state.arrived += 1);
    }
}

impl<T: Clone> Ticket<T> {
    /// Waits until `usable` gives something, which is asked whenever a connection has arrived, or
    /// until the attempt is over; `None` if the slot is gone. Cancel safe.
    pub(super) async fn wait(
        &mut self,
        usable: impl Fn() -> Option<T>,
    ) -> Option<Result<T, OpenError>> {
        loop {
            let over = {
                let state = self.state.borrow_and_update();
                (state.finished != self.finished).then(|| state.outcome.clone())
            };
            if let Some(usable) = usable() {
                return Some(Ok(usable));
            }
            if let Some(outcome) = over {
                return outcome;
            }
            self.state.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failure() -> OpenError {
        OpenError::Unreachable { node: "peer".parse().unwrap(), why: "no answer".to_owned() }
    }

    #[tokio::test]
    async fn the_second_caller_joins_and_shares_the_failure() {
        let connecting = Connecting::<u8>::default();
        let (mut first, mut second) = (connecting.join(), connecting.join());
        assert_eq!((first.first, second.first), (true, false));
        connecting.finish(Err(failure()));
        assert_eq!(first.wait(|| None).await, Some(Err(failure())));
        assert_eq!(second.wait(|| None).await, Some(Err(failure())));
        // A later caller begins another one, and gets nothing of the failure before.
        let mut third = connecting.join();
        assert!(third.first);
        connecting.finish(Ok(3));
        assert_eq!(third.wait(|| None).await, Some(Ok(3)));
    }

    #[tokio::test]
    async fn an_attempt_outlives_its_first_caller() {
        let connecting = Connecting::<u8>::default();
        drop(connecting.join());
        let mut second = connecting.join();
        assert!(!second.first);
        connecting.finish(Ok(1));
        assert_eq!(second.wait(|| None).await, Some(Ok(1)));
    }

    #[tokio::test]
    async fn a_connection_from_the_peer_ends_the_wait() {
        let connecting = Connecting::<u8>::default();
        let mut ticket = connecting.join();
        let there = Cell::new(None);
        let waiting = ticket.wait(|| there.get());
        let arrive = async {
            // One that is of no use is not the end.
            connecting.arrived();
            tokio::task::yield_now().await;
            there.set(Some(7));
            connecting.arrived();
        };
        assert_eq!(tokio::join!(waiting, arrive).0, Some(Ok(7)));
        assert!(!connecting.join().first, "the attempt goes on");
    }

    #[tokio::test]
    async fn a_slot_that_is_gone_ends_the_wait() {
        let connecting = Connecting::<u8>::default();
        let mut ticket = connecting.join();
        drop(connecting);
        assert_eq!(ticket.wait(|| None).await, None);
    }
}
