//! Why a stream failed.

use std::io;

use super::super::ending::{Cause, EndReason, Ending};
use crate::mesh::services::opening::refuse::RefusedOpen;
use crate::transport::code::StreamCode;

/// Why a running stream ended before its time.
///
/// [`ending`](Self::ending) says who ended it, why, and how many bytes had gone through this half.
/// Reads and writes through [`AsyncRead`](tokio::io::AsyncRead) and
/// [`AsyncWrite`](tokio::io::AsyncWrite) fail with an [`io::Error`] that contains this error:
///
/// ```
/// use std::io;
/// use receptor_quic::StreamError;
/// use receptor_quic::mesh::EndedBy;
/// use tokio::io::{AsyncRead, AsyncReadExt};
///
/// async fn read_all(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
///     let mut all = Vec::new();
///     if let Err(error) = stream.read_to_end(&mut all).await {
///         match StreamError::from_io(&error).and_then(StreamError::ending) {
///             Some(ending) if ending.by == EndedBy::Network => println!("cut off after {} bytes", ending.bytes),
///             _ => println!("{error}"),
///         }
///         return Err(error);
///     }
///     Ok(all)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The other side did not accept the stream. Nothing was handed to the service.
    #[error("{0}")]
    Refused(RefusedOpen),
    /// The other side gave up sending.
    #[error("the other side reset the stream after {bytes} bytes: {code}")]
    Reset {
        /// Why.
        code: StreamCode,
        /// Bytes read before.
        bytes: u64,
    },
    /// The other side does not want to read more.
    #[error("the other side stopped reading after {bytes} bytes were sent: {code}")]
    Stopped {
        /// Why.
        code: StreamCode,
        /// Bytes accepted for sending before.
        bytes: u64,
    },
    /// The connection under the stream has ended, or the stream's peer timeout has passed. Both
    /// halves report the same side and reason, whenever they are asked, and so do all other streams
    /// that a connection takes down with it. A stream that is less patient than others of its
    /// connection ends before them, and reports that for itself.
    #[error("{0}")]
    Lost(Ending),
    /// This half was finished, reset or stopped before: the caller's fault.
    #[error("this half was finished before, after {bytes} bytes")]
    Finished {
        /// Bytes through this half before.
        bytes: u64,
    },
}

impl StreamError {
    /// Who ended the stream, why, and how far it got; `None` for [`Finished`](Self::Finished), a
    /// mistake of the caller.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Refused(why) => {
                Some(Ending::new(Cause::other(EndReason::Refused(why.clone())), 0))
            }
            Self::Reset { code, bytes } => {
                Some(Ending::new(Cause::other(EndReason::Reset(*code)), *bytes))
            }
            Self::Stopped { code, bytes } => {
                Some(Ending::new(Cause::other(EndReason::Stopped(*code)), *bytes))
            }
            Self::Lost(ending) => Some(ending.clone()),
            Self::Finished { .. } => None,
        }
    }

    /// The error of a stream inside an error of [`AsyncRead`](tokio::io::AsyncRead) or
    /// [`AsyncWrite`](tokio::io::AsyncWrite); `None` if it is
    /// from elsewhere.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Refused(_) => io::ErrorKind::ConnectionRefused,
            StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
            StreamError::Stopped { .. } => io::ErrorKind::BrokenPipe,
            StreamError::Lost(ending) => match ending.why {
                EndReason::NotTrusted(_) | EndReason::NotAllowed => io::ErrorKind::PermissionDenied,
                EndReason::Unreachable => io::ErrorKind::TimedOut,
                EndReason::NoRoute => io::ErrorKind::HostUnreachable,
                EndReason::Restarted => io::ErrorKind::ConnectionReset,
                _ => io::ErrorKind::ConnectionAborted,
            },
            StreamError::Finished { .. } => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}
