//! Reading a unit's output from its executor.

use std::sync::Arc;

use bytes::Bytes;

use super::super::api::{ResultsError, ResultsOptions};
use super::out_unit::OutUnit;
use super::shared::SharedRef;

/// Reads a unit's output from its executor.
#[derive(Debug)]
pub(crate) struct Reading {
    shared: SharedRef,
    unit: Arc<OutUnit>,
    options: ResultsOptions,
    offset: u64,
}

impl Reading {
    pub(crate) fn new(shared: SharedRef, unit: Arc<OutUnit>, options: ResultsOptions) -> Self {
        Self { shared, unit, options, offset: options.from }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ResultsError> {
        std::future::pending().await
    }
}
