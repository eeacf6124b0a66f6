//! One unit that this node has submitted.

use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::watch;

use super::super::outcome::Outcome;
use super::super::service::{OutUnit, SharedRef, UnitError};
use super::id::UnitId;
use super::results::UnitResults;
use super::results_options::ResultsOptions;
use super::status::UnitStatus;
use crate::unfold::unfold;
use crate::work::unit::machine::submitter::SubmitterInput;

/// One unit that this node has submitted. Cheap to clone; dropping it has no effect on the unit.
#[derive(Clone, Debug)]
pub struct UnitHandle {
    shared: SharedRef,
    unit: Arc<OutUnit>,
}

impl UnitHandle {
    pub(crate) fn new(shared: SharedRef, unit: Arc<OutUnit>) -> Self {
        Self { shared, unit }
    }

    /// The unit.
    #[must_use]
    pub fn id(&self) -> UnitId {
        self.unit.status().id
    }

    /// Where the unit stands, as far as this node knows.
    #[must_use]
    pub fn status(&self) -> UnitStatus {
        self.unit.status()
    }

    /// The status now, and each one after it. Changes that follow each other faster than they are
    /// read are merged.
    #[must_use]
    pub fn watch(&self) -> UnitWatch {
        let mut status = self.unit.watch();
        status.mark_changed();
        UnitWatch { status, shared: self.shared.clone(), over: false }
    }

    /// What the command writes to stdout or stderr, from any offset.
    #[must_use]
    pub fn results(&self, options: ResultsOptions) -> UnitResults {
        UnitResults::new(self.shared.clone(), self.unit.clone(), options)
    }

    /// Waits until the unit has ended, and returns how. Cancel safe.
    ///
    /// # Errors
    /// The unit was removed before it ended, or this node is shut down.
    pub async fn wait(&self) -> Result<Outcome, UnitError> {
        let mut watch = self.watch();
        while let Some(status) = watch.next().await {
            if let Some(outcome) = status.outcome {
                return Ok(outcome);
            }
        }
        Err(if self.shared.is_open() { UnitError::Removed } else { UnitError::ShutDown })
    }

    /// Cancels the unit: the command gets SIGTERM and, after the grace, SIGKILL. One that was not
    /// started never will be.
    ///
    /// Returns once the request is on disk: it is passed on to the executor as soon as that can be
    /// reached. A unit that has ended stays as it is.
    ///
    /// # Errors
    /// The request was not stored.
    pub async fn cancel(&self, grace: Duration) -> Result<(), UnitError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.shared.command(&self.unit, SubmitterInput::Cancel { grace_ms }).await
    }

    /// Removes the unit and its output at both nodes.
    ///
    /// A unit that its executor has not accepted yet is cancelled. One that it has accepted ends
    /// first: by itself, however long that takes, or with `force` at once, by SIGTERM and SIGKILL
    /// without a grace.
    ///
    /// Returns once the request is on disk: it is carried out as soon as the executor can be
    /// reached, and [`removed`](Self::removed) waits for that. Releasing a unit that is gone is not
    /// an error.
    ///
    /// # Errors
    /// The request was not stored.
    pub async fn release(&self, force: bool) -> Result<(), UnitError> {
        match self.shared.command(&self.unit, SubmitterInput::Release { force }).await {
            Err(UnitError::Removed) => Ok(()),
            released => released,
        }
    }

    /// Removes the unit here, whatever becomes of it at an executor that will not come back.
    ///
    /// # Errors
    /// The disk reported an error.
    pub async fn abandon(&self) -> Result<(), UnitError> {
        match self.shared.command(&self.unit, SubmitterInput::Abandon).await {
            Err(UnitError::Removed) => Ok(()),
            abandoned => abandoned,
        }
    }

    /// Waits until the unit is removed here: after a [release](Self::release) that the executor has
    /// confirmed, or when its time to be kept is over. Cancel safe.
    ///
    /// # Errors
    /// This node is shut down.
    pub async fn removed(&self) -> Result<(), UnitError> {
        self.shared.removed(&self.unit).await
    }
}

/// The states of a unit as they change.
#[derive(Debug)]
pub struct UnitWatch {
    status: watch::Receiver<UnitStatus>,
    shared: SharedRef,
    over: bool,
}

impl UnitWatch {
    /// A stream of what [`next`](Self::next) returns.
    pub fn into_stream(self) -> impl Stream<Item = UnitStatus> + Send + Unpin + 'static {
        unfold(self, async |mut watch: Self| (watch.next().await, watch))
    }

    /// The next status. `None` after that of the end, when the unit was removed, or when this node
    /// is shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<UnitStatus> {
        if self.over {
            return None;
        }
        let mut closed = self.shared.closed();
        tokio::select! {
            biased;
            changed = self.status.changed() => {
                changed.ok()?;
                let status = self.status.borrow_and_update().clone();
                self.over = status.is_final() || status.removed;
                (!status.removed || status.is_final()).then_some(status)
            }
            _ = closed.wait_for(|closed| *closed) => None,
        }
    }
}
