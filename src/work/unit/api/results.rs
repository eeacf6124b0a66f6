//! What a unit's command writes.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;

use super::super::service::{OutUnit, Reading, SharedRef};
use super::results_error::ResultsError;
use super::results_options::ResultsOptions;
use crate::unfold::unfold;

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

    /// A stream of what [`next`](Self::next) returns. It ends after an error.
    pub fn into_stream(
        self,
    ) -> impl Stream<Item = Result<Bytes, ResultsError>> + Send + Unpin + 'static {
        unfold(Some(self), async |results: Option<Self>| {
            let Some(mut results) = results else { return (None, None) };
            let item = results.next().await.transpose();
            let going_on = matches!(item, Some(Ok(_)));
            (item, going_on.then_some(results))
        })
    }

    /// Where the next piece begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.0.offset()
    }
}
