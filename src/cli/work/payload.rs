//! A payload that comes over the control socket, as a reader.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// How many chunks wait for the disk.
const WAITING: usize = 4;

/// The end of a payload that is written.
#[derive(Debug)]
pub(in crate::cli) struct Feed(mpsc::Sender<Piece>);

/// The end that is read. Its reads fail if the feed is dropped before its end: a payload that was
/// cut off must not be taken for a whole one.
#[derive(Debug)]
pub(in crate::cli) struct FedPayload {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    Chunk(Bytes),
    End,
}

/// A payload, and what feeds it.
pub(in crate::cli) fn fed_payload() -> (Feed, FedPayload) {
    let (sender, pieces) = mpsc::channel(WAITING);
    (Feed(sender), FedPayload { pieces, current: Bytes::new(), ended: false })
}

impl Feed {
    /// Delivers a chunk. One that is no longer read is dropped.
    pub(in crate::cli) async fn put(&self, chunk: Bytes) {
        let _ = self.0.send(Piece::Chunk(chunk)).await;
    }

    /// The payload is whole.
    pub(in crate::cli) async fn end(self) {
        let _ = self.0.send(Piece::End).await;
    }
}

impl AsyncRead for FedPayload {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() && !self.ended {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(Piece::Chunk(chunk)) => self.current = chunk,
                Some(Piece::End) => self.ended = true,
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let len = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..len]);
        self.current.advance(len);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_payload_is_read_as_it_was_fed() {
        let (feed, mut payload) = fed_payload();
        feed.put(Bytes::from_static(b"one ")).await;
        feed.put(Bytes::from_static(b"two")).await;
        feed.end().await;
        let mut text = String::new();
        payload.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one two");
    }

    #[tokio::test]
    async fn a_payload_that_was_cut_off_is_not_whole() {
        let (feed, mut payload) = fed_payload();
        feed.put(Bytes::from_static(b"half")).await;
        drop(feed);
        let mut read = Vec::new();
        let error = payload.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
