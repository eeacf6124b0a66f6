//! Where the payload of a call comes from, and where its responses go.

use std::future::{Future, pending};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::exit::Failure;

/// How much is read from a file or from standard input at once, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// Where a payload comes from, piece by piece.
pub(super) trait Source: Send {
    /// The next piece; `None` at the end. It need not be cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// Waits, after the end, until whoever wants the responses has gone away.
    fn gone(&mut self) -> impl Future<Output = Failure> + Send {
        pending()
    }
}

/// Where responses go, piece by piece.
pub(super) trait Sink: Send {
    /// Hands on a piece, at once.
    fn put(&mut self, body: Bytes) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A payload that is read.
#[derive(Debug)]
pub(super) struct ReadFrom<R> {
    pub(super) from: R,
    /// For errors: what is read.
    pub(super) name: String,
}

impl<R: AsyncRead + Unpin + Send> Source for ReadFrom<R> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut piece = BytesMut::with_capacity(READ_SIZE);
        match self.from.read_buf(&mut piece).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(piece.freeze())),
            Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", self.name))),
        }
    }
}

/// Responses that are written to standard output.
#[derive(Debug)]
pub(super) struct WriteTo<W>(pub(super) W);

impl<W: AsyncWrite + Unpin + Send> Sink for WriteTo<W> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        self.0.write_all(&body).await.map_err(|error| Failure::output(&error))?;
        self.0.flush().await.map_err(|error| Failure::output(&error))
    }
}
