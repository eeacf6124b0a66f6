//! The events of a node as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::events::Event;

type Received = (Result<Event, RecvError>, Receiver<Event>);

/// The events of a node since [`Node::events`](crate::Node::events) was called. Dropping it ends the
/// subscription.
///
/// As a [`Stream`], it ends when the node is shut down. Up to 1,024 events wait for each
/// subscriber; one that falls further behind misses the oldest and gets [`MissedEvents`], after
/// which it goes on. [`Node::status`](crate::Node::status) then has the state.
pub struct Events {
    /// `None` while `waiting` has it.
    receiver: Option<Receiver<Event>>,
    waiting: Option<Pin<Box<dyn Future<Output = Received> + Send + Sync>>>,
}

/// Events were dropped because the subscriber was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were missed")]
pub struct MissedEvents(pub u64);

impl Events {
    pub(crate) fn new(receiver: Receiver<Event>) -> Self {
        Self { receiver: Some(receiver), waiting: None }
    }

    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// `Lagged` if events were missed, and how many; `Closed` once the node is shut down.
    pub async fn recv(&mut self) -> Result<Event, RecvError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next event if it has happened.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and `Empty` if nothing has happened.
    pub fn try_recv(&mut self) -> Result<Event, TryRecvError> {
        match &mut self.receiver {
            Some(receiver) => receiver.try_recv(),
            None => match self.poll_recv(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(received) => received.map_err(|error| match error {
                    RecvError::Closed => TryRecvError::Closed,
                    RecvError::Lagged(missed) => TryRecvError::Lagged(missed),
                }),
                Poll::Pending => Err(TryRecvError::Empty),
            },
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, RecvError>> {
        if let Some(mut receiver) = self.receiver.take() {
            // No allocation if an event is there.
            match receiver.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.waiting = Some(Box::pin(async { (receiver.recv().await, receiver) }));
                }
                received => {
                    self.receiver = Some(receiver);
                    return Poll::Ready(received.map_err(|error| match error {
                        TryRecvError::Lagged(missed) => RecvError::Lagged(missed),
                        TryRecvError::Closed | TryRecvError::Empty => RecvError::Closed,
                    }));
                }
            }
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Err(RecvError::Closed)) };
        let (received, receiver) = ready!(waiting.as_mut().poll(cx));
        (self.receiver, self.waiting) = (Some(receiver), None);
        Poll::Ready(received)
    }
}

impl Stream for Events {
    type Item = Result<Event, MissedEvents>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.poll_recv(cx)) {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(MissedEvents(missed))),
            Err(RecvError::Closed) => None,
        })
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
