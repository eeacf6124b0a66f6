//! What a unit's command writes.

use std::sync::Arc;

use bytes::Bytes;

use super::super::service::{OutUnit, Reading, SharedRef, UnitError};

/// Which output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnitOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is read of a unit's output: all of stdout as it is written, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultsOptions {
    /// Which output.
    pub output: UnitOutput,
    /// The first byte.
    pub from: u64,
    /// Whether to wait for more until the unit has ended.
    pub follow: bool,
}

impl Default for ResultsOptions {
    fn default() -> Self {
        Self { output: UnitOutput::Stdout, from: 0, follow: true }
    }
}

impl ResultsOptions {
    /// Reads stderr instead of stdout.
    #[must_use]
    pub fn stderr(mut self) -> Self {
        self.output = UnitOutput::Stderr;
        self
    }

    /// Begins at this byte.
    #[must_use]
    pub fn from(mut self, offset: u64) -> Self {
        self.from = offset;
        self
    }

    /// Whether to wait for more until the unit has ended.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }
}

/// Why the output of a unit cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The unit, or its output, was removed.
    #[error("the output is gone: the unit was removed at its executor")]
    Gone,
    /// The unit ran again, which only happens to those that are idempotent. The next read gives the
    /// output of that attempt from its beginning.
    #[error("the unit was started again; its output begins anew")]
    Restarted,
    /// The executor cannot be reached, and the results are not
    /// [followed](ResultsOptions::follow()).
    #[error("{0}")]
    Unreachable(String),
    /// The executor sent something else than it has announced: its fault.
    #[error("the executor sent output that does not match its digest")]
    Corrupt,
    /// This node is shut down, or the unit was removed here.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// What a unit's command writes, piece by piece.
///
/// It is read from the executor's disk as fast as it is taken here. If the executor cannot be
/// reached, [following](ResultsOptions::follow()) waits, and goes on at the same byte.
#[derive(Debug)]
pub struct UnitResults(Reading);

impl UnitResults {
    pub(crate) fn new(shared: SharedRef, unit: Arc<OutUnit>, options: ResultsOptions) -> Self {
        Self(Reading::new(shared, unit, options))
    }

    /// The next piece, of at most 64 KiB. `None` at the end: when the unit has ended and all was
    /// read or, if it is not followed, when all that was there was read. Cancel safe.
    ///
    /// # Errors
    /// [`ResultsError`] says why there is no more. What was returned before stands.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ResultsError> {
        self.0.next().await
    }

    /// Where the next piece begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.0.offset()
    }
}
