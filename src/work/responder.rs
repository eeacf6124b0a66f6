//! How a handler answers.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::frame::MAX_RESPONSE;
use crate::sync::lock;
use crate::work::running::backlog::{Backlog, Closed, Reserved};
use crate::work::running::over::Over;

/// How a handler answers: each [`send`](Self::send) is a response with the next serial, from 1.
///
/// The last response is not sent by the handler but follows from what it returns. Clones answer the
/// same call; what they send after the handler returned is refused.
#[derive(Clone, Debug)]
pub struct Responder {
    backlog: Backlog,
    last: LastBody,
    over: Over,
}

/// What the last response is to carry.
pub(super) type LastBody = Arc<Mutex<Bytes>>;

impl Responder {
    pub(super) fn new(backlog: Backlog, last: LastBody, over: Over) -> Self {
        Self { backlog, last, over }
    }

    /// Sends a response of at most [`MAX_RESPONSE`] bytes. Waits while the caller reads slowly.
    ///
    /// Cancel safe: dropped before it is ready, nothing is sent. Ready means queued, not received.
    ///
    /// # Errors
    /// The body is too long, or the call is over. Nothing was sent.
    pub async fn send(&self, body: Bytes) -> Result<(), SendError> {
        check_len(&body)?;
        self.backlog.reserve(body.len()).await.map_err(|Closed| SendError::Over)?.send(body);
        Ok(())
    }

    /// How many bytes a response should have now: less while the caller does not read what it got.
    pub(super) fn piece(&self) -> usize {
        self.backlog.piece()
    }

    /// Sets what the last response carries when the handler succeeds: nothing by default, at most
    /// [`MAX_RESPONSE`] bytes.
    ///
    /// An answer of one piece goes out as one response this way.
    ///
    /// # Errors
    /// The body is too long, or the call is over. What was set before stays.
    pub fn set_last(&self, body: Bytes) -> Result<(), SendError> {
        check_len(&body)?;
        if self.is_cancelled() {
            return Err(SendError::Over);
        }
        *lock(&self.last) = body;
        Ok(())
    }

    /// Answers with `body`, of any length, as the last thing that the handler sends: in responses
    /// of at most [`MAX_RESPONSE`] bytes, of which the last one marks the success. Waits while the
    /// caller reads slowly.
    ///
    /// Not cancel safe: if the future is dropped, a part may have been sent.
    ///
    /// # Errors
    /// The call is over.
    pub async fn reply(&self, body: impl Into<Bytes>) -> Result<(), SendError> {
        let mut rest: Bytes = body.into();
        while rest.len() > MAX_RESPONSE {
            self.send(rest.split_to(MAX_RESPONSE)).await?;
        }
        self.set_last(rest)
    }

    /// Writes a stream of bytes as responses: each write is one, of at most [`MAX_RESPONSE`] bytes.
    ///
    /// Nothing is held back. Wrap it into a [`tokio::io::BufWriter`] where writes are small.
    #[must_use]
    pub fn writer(&self) -> ResponseWriter {
        ResponseWriter { backlog: self.backlog.clone(), state: State::Idle }
    }

    /// Waits until the call is over: the caller went away or cancelled, the deadline passed, the
    /// node stopped waiting, or the handler returned.
    ///
    /// The handler itself is dropped then, at its next await. This is for tasks and threads that it
    /// started.
    pub async fn cancelled(&self) {
        self.over.wait().await;
    }

    /// Whether the call is over. For threads, which cannot wait for [`cancelled`](Self::cancelled).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.over.is_over()
    }
}

fn check_len(body: &Bytes) -> Result<(), SendError> {
    if body.len() > MAX_RESPONSE { Err(SendError::TooLong { len: body.len() }) } else { Ok(()) }
}

/// Why a response was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The body is too long: the handler's fault. Split it, or use [`Responder::writer`].
    #[error("a response has at most {max} bytes; this one has {len}", max = MAX_RESPONSE)]
    TooLong {
        /// What it had, in bytes.
        len: usize,
    },
    /// The call is over: responses are no longer accepted.
    #[error("the call is over")]
    Over,
}

/// Writes a stream of bytes as responses. Made by [`Responder::writer`].
///
/// `shutdown` ends this writer, not the call.
pub struct ResponseWriter {
    backlog: Backlog,
    state: State,
}

type Reserve = Pin<Box<dyn Future<Output = Result<Reserved, Closed>> + Send + Sync>>;

enum State {
    Idle,
    Waiting(Reserve),
    ShutDown,
}

impl AsyncWrite for ResponseWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = buf.len().min(MAX_RESPONSE);
        let over = |Closed| io::Error::new(io::ErrorKind::BrokenPipe, SendError::Over);
        loop {
            let place = match &mut self.state {
                State::ShutDown => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                State::Idle => match self.backlog.try_reserve(wanted).map_err(over)? {
                    Some(place) => place,
                    None => {
                        let backlog = self.backlog.clone();
                        self.state =
                            State::Waiting(Box::pin(async move { backlog.reserve(wanted).await }));
                        continue;
                    }
                },
                State::Waiting(reserve) => {
                    let place = ready!(reserve.as_mut().poll(cx));
                    self.state = State::Idle;
                    place.map_err(over)?
                }
            };
            // The caller may have come back with another buffer than the one that had to wait.
            let body = &buf[..buf.len().min(place.bytes())];
            place.send(Bytes::copy_from_slice(body));
            return Poll::Ready(Ok(body.len()));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state = State::ShutDown;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ResponseWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseWriter").finish_non_exhaustive()
    }
}
