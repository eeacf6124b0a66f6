//! What a unit carries.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::io::AsyncRead;

/// What a unit carries: bytes, the content of a file, or whatever a reader gives.
///
/// It is copied to the data directory before the submission returns, and may be of any size there
/// is room for.
pub struct UnitPayload(pub(crate) Source);

pub(crate) enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

impl UnitPayload {
    /// Whatever the reader gives up to its end.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Source::Reader(Box::new(reader)))
    }

    /// The content of a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }
}

impl fmt::Debug for UnitPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Source::File(path) => f.debug_tuple("File").field(path).finish(),
            Source::Reader(_) => f.debug_tuple("Reader").finish_non_exhaustive(),
        }
    }
}

impl From<Bytes> for UnitPayload {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<Vec<u8>> for UnitPayload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for UnitPayload {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&str> for UnitPayload {
    fn from(text: &str) -> Self {
        Bytes::copy_from_slice(text.as_bytes()).into()
    }
}

impl From<&[u8]> for UnitPayload {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl<const N: usize> From<&[u8; N]> for UnitPayload {
    fn from(bytes: &[u8; N]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl From<&Path> for UnitPayload {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<PathBuf> for UnitPayload {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}
