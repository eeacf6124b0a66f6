//! What a call carries, as its handler reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::mesh::{RecvHalf, StreamError};
use crate::transport::code::StreamCode;
use crate::work::running::over::Over;

/// What a call carries, as a stream: nothing of it is read before it is asked for.
///
/// It implements [`AsyncRead`]. Its end is the caller's word that all of it was there; a payload
/// that was cut off is an error, never an end. Dropping it before the end asks the caller to send
/// no more; the call goes on.
#[derive(Debug)]
pub struct Payload {
    recv: RecvHalf,
    over: Over,
    ended: bool,
}

/// How much [`Payload::collect`] asks for at once.
const COLLECT_SIZE: usize = 64 * 1024;

impl Payload {
    pub(super) fn new(recv: RecvHalf, over: Over) -> Self {
        Self { recv, over, ended: false }
    }

    /// The next piece, of at most `max` bytes, without copying; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The caller gave up, or the connection was lost: the data so far is not all there was to be.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let chunk = self.recv.read_chunk(max).await?;
        self.ended |= chunk.is_none();
        Ok(chunk)
    }

    /// All of it, where it has at most `limit` bytes. Not cancel safe: what was read is lost.
    ///
    /// # Errors
    /// It has more than `limit` bytes, or was cut off.
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, CollectError> {
        let Some(first) = self.next_within(limit).await? else { return Ok(Bytes::new()) };
        let Some(second) = self.next_within(limit - first.len()).await? else { return Ok(first) };
        let mut all = BytesMut::with_capacity((2 * (first.len() + second.len())).min(limit));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.next_within(limit - all.len()).await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    async fn next_within(&mut self, room: usize) -> Result<Option<Bytes>, CollectError> {
        match self.read_chunk(COLLECT_SIZE).await? {
            Some(chunk) if chunk.len() > room => Err(CollectError::TooLong),
            chunk => Ok(chunk),
        }
    }
}

impl AsyncRead for Payload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.recv).poll_read(cx, buf);
        this.ended |= matches!(result, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        result
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if !self.ended {
            self.recv.stop(self.over.why().unwrap_or(StreamCode::Dropped));
        }
    }
}

/// Why a payload was not collected. What was read of it is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// It has more bytes than the limit: the caller's fault.
    #[error("the payload is longer than the limit")]
    TooLong,
    /// It was cut off.
    #[error("the payload was cut off: {0}")]
    CutOff(#[from] StreamError),
}
