//! Requests to open a stream, which the application accepts or refuses.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::refuse::RefusedOpen;
use crate::id::{NodeId, ServiceName};
use crate::mesh::services::stream::StreamError;
use crate::mesh::services::{Incoming, Listener, acceptance};
use crate::transport::code::StreamCode;

/// Receives the requests to open streams to one service. Made by
/// [`Node::serve_requests`](crate::Node::serve_requests). Dropping it withdraws the service; streams
/// that wait are reset.
///
/// Up to [`MAX_WAITING`](crate::mesh::MAX_WAITING) requests wait, with the bounds per caller that a
/// [`Listener`] has.
#[derive(Debug)]
pub struct OpenRequests(Listener);

impl OpenRequests {
    pub(crate) fn new(listener: Listener) -> Self {
        Self(listener)
    }

    /// The next request; `None` once the node is shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<OpenRequest> {
        let incoming = self.0.accept().await?;
        Some(self.request(incoming))
    }

    /// The service.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        self.0.name()
    }

    fn request(&self, incoming: Incoming) -> OpenRequest {
        OpenRequest { service: self.0.name().clone(), incoming }
    }
}

/// Yields what [`next`](OpenRequests::next) returns.
impl futures_core::Stream for OpenRequests {
    type Item = OpenRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<OpenRequest>> {
        let incoming = Pin::new(&mut self.0).poll_next(cx);
        incoming.map(|incoming| Some(self.request(incoming?)))
    }
}

/// A request of another node to open a stream.
///
/// The opener may have sent data already, up to the stream's flow control window; none of it can be
/// read before the request is accepted. It waits for the answer when it reads or calls
/// [`Stream::accepted`](crate::Stream::accepted). The request has no timeout of its own: answer
/// within its [`deadline`](Self::deadline). Until then it counts as one of its caller's streams.
///
/// Dropping it resets the stream: the opener gets [`StreamError::Reset`] with
/// [`StreamCode::Dropped`] instead of a refusal.
#[derive(Debug)]
pub struct OpenRequest {
    service: ServiceName,
    incoming: Incoming,
}

impl OpenRequest {
    /// The node that asks, as its certificate says.
    #[must_use]
    pub fn peer(&self) -> &NodeId {
        &self.incoming.peer
    }

    /// The service that is asked for.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// How long the opener waits, counted from its open. `None` if it has set no deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.incoming.deadline
    }

    /// Accepts the stream. Not cancel safe: if the future is dropped, the stream is reset.
    ///
    /// # Errors
    /// The stream was reset or its connection lost. There is nothing to serve.
    pub async fn accept(mut self) -> Result<Incoming, StreamError> {
        self.incoming.stream.send.answer(acceptance()).await?;
        Ok(self.incoming)
    }

    /// Refuses the stream, with a code alone or with text for people. The opener gets
    /// [`StreamError::Refused`]. Returns when the answer is on its way, and does not wait until it
    /// has arrived; if the connection is lost first, the opener learns of that instead. Not cancel
    /// safe: if the future is dropped, the stream is reset.
    pub async fn refuse(mut self, why: impl Into<RefusedOpen>) {
        let stream = &mut self.incoming.stream;
        stream.recv.stop(StreamCode::Refused);
        if stream.send.answer(why.into().encode().into()).await.is_ok() {
            stream.send.finish();
        }
    }
}
