//! What goes over the control socket: lines of JSON, and chunks.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};

use crate::cli::process::exit::Failure;
use crate::cli::work::request::UnitRequest;
use crate::id::NodeId;
use crate::work::Directive;

/// The longest request, in bytes.
pub(super) const MAX_REQUEST: u64 = 64 * 1024;

/// The longest answer that a client takes, in bytes: the status of a mesh of 100,000 nodes fits.
pub(super) const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The longest chunk, in bytes.
pub(super) const MAX_CHUNK: usize = 64 * 1024;

/// What a client wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    Status {
        /// Maximum number of stubs in each list; `None` if all are listed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_stubs: Option<usize>,
    },
    Converge {
        timeout_ms: u64,
    },
    Ping {
        node: NodeId,
        timeout_ms: u64,
    },
    Trace {
        node: NodeId,
    },
    Reload {},
    Policy {},
    Explain {
        node: NodeId,
    },
    Send(SendRequest),
    Unit(UnitRequest),
}

/// A call that a client wants to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SendRequest {
    pub(super) node: NodeId,
    pub(super) directive: Directive,
    /// The time limit, waiting for room included; `None` without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeout_ms: Option<u64>,
    /// How long the call waits for an unreachable node; `None` if as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer_timeout_ms: Option<u64>,
}

impl SendRequest {
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }

    pub(super) fn peer_timeout(&self) -> Option<Duration> {
        self.peer_timeout_ms.map(Duration::from_millis)
    }
}

/// What the node says to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer<T = Value> {
    Ok(T),
    Failed(Failure),
    /// The call waits until others have ended. Another answer follows.
    Queued {},
}

impl<T> From<Result<T, Failure>> for Answer<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// A message as a line.
pub(super) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("plain data is JSON, and a Vec takes it");
    line.push(b'\n');
    line
}

pub(super) async fn write_line<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    to.write_all(&line(message)).await?;
    to.flush().await
}

/// Reads a line of at most `max` bytes. Not cancel safe.
///
/// # Errors
/// The stream ended or failed before the end of the line, the line is too long, or it is not the
/// message.
pub(super) async fn read_line<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
    max: u64,
) -> io::Result<T> {
    let mut line = Vec::new();
    from.take(max).read_until(b'\n', &mut line).await?;
    match line.pop() {
        // Of a line that ends too early, serde_json would make the end of the stream.
        Some(b'\n') => serde_json::from_slice(&line)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Some(_) if line.len() as u64 + 1 == max => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line of more than {max} bytes"),
        )),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes data as chunks. Empty data writes no chunk.
pub(super) async fn write_chunks(
    to: &mut (impl AsyncWrite + Unpin),
    data: &[u8],
) -> io::Result<()> {
    for chunk in data.chunks(MAX_CHUNK) {
        to.write_u32(chunk.len() as u32).await?;
        to.write_all(chunk).await?;
    }
    to.flush().await
}

/// Says that the last chunk was the last.
pub(super) async fn write_end(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    to.write_u32(0).await?;
    to.flush().await
}

/// Reads a chunk; `None` after the last one. Not cancel safe.
pub(super) async fn read_chunk(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let len = from.read_u32().await? as usize;
    if len > MAX_CHUNK {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a chunk of {len} bytes")));
    }
    if len == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; len];
    from.read_exact(&mut chunk).await?;
    Ok(Some(chunk.into()))
}

/// Reads any bytes as a request, as an answer and as chunks. What was read is written, and read
/// again as the same.
#[cfg(feature = "testing")]
pub(in crate::cli) fn fuzz(bytes: &[u8]) {
    /// Reading from a slice never waits.
    fn now<T>(read: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(read).poll(&mut cx) {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    let mut from = bytes;
    if let Ok(request) = now(read_line::<Request>(&mut from, MAX_REQUEST)) {
        let again = now(read_line::<Request>(&mut &line(&request)[..], MAX_REQUEST));
        assert_eq!(again.ok(), Some(request));
    }
    // The calls of `send` are followed by chunks.
    while let Ok(Some(chunk)) = now(read_chunk(&mut from)) {
        assert!((1..=MAX_CHUNK).contains(&chunk.len()));
    }
    let _ = now(read_line::<Answer<Value>>(&mut &bytes[..], MAX_ANSWER));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::process::exit::Exit;

    fn text(message: &impl Serialize) -> String {
        serde_json::to_string(message).unwrap()
    }

    #[test]
    fn requests_and_answers_are_as_documented() {
        let node: NodeId = "edge-1".parse().unwrap();
        assert_eq!(text(&Request::Status { max_stubs: None }), r#"{"do":"status"}"#);
        let few = Request::Status { max_stubs: Some(16) };
        assert_eq!(text(&few), r#"{"do":"status","max_stubs":16}"#);
        for status in [few, Request::Status { max_stubs: None }] {
            assert_eq!(serde_json::from_str::<Request>(&text(&status)).unwrap(), status);
        }
        assert_eq!(
            text(&Request::Converge { timeout_ms: 5000 }),
            r#"{"do":"converge","timeout_ms":5000}"#
        );
        assert_eq!(
            text(&Request::Ping { node: node.clone(), timeout_ms: 5000 }),
            r#"{"do":"ping","node":"edge-1","timeout_ms":5000}"#
        );
        let directive: Directive = "text:upper".parse().unwrap();
        let send = |timeout_ms, peer_timeout_ms| {
            let (node, directive) = (node.clone(), directive.clone());
            Request::Send(SendRequest { node, directive, timeout_ms, peer_timeout_ms })
        };
        assert_eq!(
            text(&send(None, None)),
            r#"{"do":"send","node":"edge-1","directive":"text:upper"}"#
        );
        assert_eq!(
            text(&send(Some(1500), Some(60_000))),
            r#"{"do":"send","node":"edge-1","directive":"text:upper","timeout_ms":1500,"peer_timeout_ms":60000}"#
        );
        for send in [send(None, None), send(Some(1500), Some(60_000))] {
            assert_eq!(serde_json::from_str::<Request>(&text(&send)).unwrap(), send);
        }
        assert_eq!(text(&Answer::<()>::Queued {}), r#"{"queued":{}}"#);
        assert_eq!(text(&Answer::Ok(Value::Null)), r#"{"ok":null}"#);
        let failed =
            Answer::<Value>::Failed(Failure { exit: Exit::Unreachable, text: "why".to_owned() });
        assert_eq!(text(&failed), r#"{"failed":{"exit":"unreachable","text":"why"}}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text(&failed)).unwrap(), failed);
    }

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        let read = async |mut bytes: &[u8]| {
            read_line::<u32>(&mut bytes, 8).await.map_err(|error| error.kind())
        };
        assert_eq!(read(b"123\n").await, Ok(123));
        assert_eq!(read(b"123").await, Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(b"").await, Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(b"123456789\n").await, Err(io::ErrorKind::InvalidData));
        assert_eq!(read(b"x\n").await, Err(io::ErrorKind::InvalidData));
        assert_eq!(read(b"\n").await, Err(io::ErrorKind::InvalidData));
    }

    #[tokio::test]
    async fn chunks_come_back_as_they_were() {
        let data = vec![7; MAX_CHUNK + 1];
        let mut wire = Vec::new();
        write_chunks(&mut wire, &data).await.unwrap();
        write_chunks(&mut wire, b"").await.unwrap();
        write_end(&mut wire).await.unwrap();
        let mut wire = &wire[..];
        assert_eq!(read_chunk(&mut wire).await.unwrap().unwrap().len(), MAX_CHUNK);
        assert_eq!(read_chunk(&mut wire).await.unwrap().unwrap(), &data[..1]);
        assert_eq!(read_chunk(&mut wire).await.unwrap(), None);
        assert!(read_chunk(&mut wire).await.is_err());
        assert!(read_chunk(&mut &[0, 1, 0, 1, 0][..]).await.is_err());
    }
}
