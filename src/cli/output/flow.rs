//! Sources of payloads and sinks of responses.

use std::future::{Future, pending, ready};
use std::io::IsTerminal as _;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::terminal::TerminalText;
use crate::cli::process::exit::Failure;

/// Maximum size of one read from a file or standard input, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// The source of a payload, read in pieces.
pub(in crate::cli) trait Source: Send {
    /// The next piece; `None` at the end. It need not be cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Failure>> + Send;

    /// Waits after the end until the receiver of the responses is gone.
    fn gone(&mut self) -> impl Future<Output = Failure> + Send {
        pending()
    }
}

/// Where responses go, piece by piece.
pub(in crate::cli) trait Sink: Send {
    /// Delivers a piece, at once.
    fn put(&mut self, body: Bytes) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Delivers what was held back for an incomplete character.
    fn end(&mut self) -> impl Future<Output = Result<(), Failure>> + Send {
        ready(Ok(()))
    }
}

/// A payload that is read.
#[derive(Debug)]
pub(in crate::cli) struct ReadFrom<R> {
    pub(in crate::cli) from: R,
    /// The source's name in errors.
    pub(in crate::cli) name: String,
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
pub(in crate::cli) struct WriteTo<W> {
    to: W,
    /// For a terminal: what they are escaped by.
    escape: Option<TerminalText>,
}

impl WriteTo<tokio::io::Stdout> {
    /// Writes responses unmodified; to a terminal only if requested, and otherwise as text without
    /// control sequences.
    pub(in crate::cli) fn stdout(raw: bool) -> Self {
        let escape = !raw && std::io::stdout().is_terminal();
        Self { to: tokio::io::stdout(), escape: escape.then(TerminalText::default) }
    }
}

impl WriteTo<tokio::io::Stderr> {
    /// The same for standard error.
    pub(in crate::cli) fn stderr(raw: bool) -> Self {
        let escape = !raw && std::io::stderr().is_terminal();
        Self { to: tokio::io::stderr(), escape: escape.then(TerminalText::default) }
    }
}

impl<W: AsyncWrite + Unpin + Send> Sink for WriteTo<W> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        let written = async {
            match &mut self.escape {
                Some(terminal) => self.to.write_all(terminal.push(&body).as_bytes()).await?,
                None => self.to.write_all(&body).await?,
            }
            self.to.flush().await
        };
        written.await.map_err(|error| Failure::output(&error))
    }

    async fn end(&mut self) -> Result<(), Failure> {
        let Some(terminal) = &mut self.escape else { return Ok(()) };
        let rest = terminal.finish();
        let written = async {
            self.to.write_all(rest.as_bytes()).await?;
            self.to.flush().await
        };
        written.await.map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn responses_are_escaped_for_a_terminal_alone() {
        for (escape, expected) in
            [(None, "a\x1b[2J\u{e9}"), (Some(TerminalText::default()), "a\\u{1b}[2J\u{e9}")]
        {
            let mut written = Vec::new();
            let mut to = WriteTo { to: &mut written, escape };
            for piece in [&b"a\x1b[2J\xc3"[..], b"\xa9"] {
                to.put(Bytes::from_static(piece)).await.unwrap();
            }
            to.end().await.unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
