//! Submitting a unit.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use uuid::Uuid;

use super::super::service::SharedRef;
use super::super::spec::{InvalidSpec, UnitSpec};
use super::handle::UnitHandle;
use super::id::UnitId;
use super::payload::UnitPayload;
use crate::id::{Directive, InvalidDirective, InvalidName, NodeId};

/// A unit that is about to be submitted. Await it, or call [`send`](Self::send).
///
/// The submission returns once the unit and its payload are on this node's disk. From then on the
/// unit survives the end of every process involved, and it is handed to the executor as soon as
/// that can be reached.
#[derive(Debug)]
#[must_use = "nothing is submitted until it is awaited"]
pub struct Submit {
    shared: Option<SharedRef>,
    /// What is submitted, or what is wrong with the arguments.
    submission: Result<Submission, SubmitError>,
}

/// What is submitted.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) node: NodeId,
    pub(crate) directive: Directive,
    pub(crate) payload: UnitPayload,
    pub(crate) id: Option<Uuid>,
    pub(crate) start_by: Duration,
    pub(crate) run_for: Option<Duration>,
    pub(crate) keep_for: Duration,
    pub(crate) idempotent: bool,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Why a unit was not submitted. Nothing was stored unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The name of the node is not valid: the caller's fault.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The directive is not valid: the caller's fault.
    #[error(transparent)]
    InvalidDirective(#[from] InvalidDirective),
    /// This node keeps no units. Start it with [`NodeBuilder::data_dir`] and
    /// [`NodeBuilder::units`](crate::NodeBuilder::units).
    ///
    /// [`NodeBuilder::data_dir`]: crate::NodeBuilder::data_dir
    #[error("this node keeps no units; start it with units and a data directory")]
    NoUnits,
    /// A time or a label is out of bounds.
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    /// The key belongs to a unit with another node, directive, payload, time or label. That unit is
    /// left as it is: use another key.
    #[error("the key {id} belongs to a unit with another spec or payload")]
    Conflict {
        /// The key.
        id: UnitId,
    },
    /// This node keeps as many submitted units as it may. Release some.
    #[error("this node keeps {max} submitted units, which is its limit; release some")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The payload could not be read.
    #[error("cannot read the payload: {0}")]
    Payload(String),
    /// The unit could not be written to disk.
    #[error("cannot store the unit: {0}")]
    Disk(String),
    /// This node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}

impl Submit {
    /// Arguments that are not valid make [`send`](Self::send) fail.
    pub(crate) fn new(
        shared: Option<SharedRef>,
        node: Result<NodeId, InvalidName>,
        directive: Result<Directive, InvalidDirective>,
        payload: UnitPayload,
    ) -> Self {
        let submission = || {
            Ok(Submission {
                node: node?,
                directive: directive?,
                payload,
                id: None,
                start_by: UnitSpec::DEFAULT_START_BY,
                run_for: None,
                keep_for: UnitSpec::DEFAULT_KEEP_FOR,
                idempotent: false,
                labels: BTreeMap::new(),
            })
        };
        Self { shared, submission: submission() }
    }

    /// The unit's id. A new UUID of version 7 by default.
    ///
    /// Submitting the same id with the same content again, any number of times, is the same unit,
    /// which runs once; with another content it is a [conflict](SubmitError::Conflict). A client
    /// that chooses the id before it submits finds its unit again after a crash.
    pub fn key(self, id: impl Into<Uuid>) -> Self {
        self.set(|submission| submission.id = Some(id.into()))
    }

    /// How long from now the unit may wait for its start: a day by default, at most 30 days. It
    /// expires if it was not started by then, and never runs afterwards.
    pub fn start_by(self, within: Duration) -> Self {
        self.set(|submission| submission.start_by = within)
    }

    /// How long the unit may run: as long as the executor permits by default. It is then killed.
    pub fn run_for(self, within: Duration) -> Self {
        self.set(|submission| submission.run_for = Some(within))
    }

    /// How long the unit and its output are kept after its end, at both nodes: a week by default,
    /// at most 30 days.
    pub fn keep_for(self, time: Duration) -> Self {
        self.set(|submission| submission.keep_for = time)
    }

    /// Adds a label, for people and queries: at most 16, each with a name of 1 to 64 ASCII letters,
    /// digits and `._-`, and a value of at most 256 bytes.
    pub fn label(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(|submission| {
            submission.labels.insert(name.into(), value.into());
        })
    }

    /// Whether the unit may run again if the end of an earlier attempt is unknown: not by
    /// default, and it is then [lost](crate::work::unit::Outcome::Lost).
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.set(|submission| submission.idempotent = idempotent)
    }

    /// Submits the unit, and returns once it is on disk.
    ///
    /// Dropping the future may leave the unit submitted or not: submit it again with the same
    /// [key](Self::key) to find out.
    ///
    /// # Errors
    /// [`SubmitError`] says whose fault it is.
    pub async fn send(self) -> Result<UnitHandle, SubmitError> {
        let submission = self.submission?;
        let shared = self.shared.ok_or(SubmitError::NoUnits)?;
        let unit = shared.submit(submission).await?;
        Ok(UnitHandle::new(shared, unit))
    }

    fn set(mut self, set: impl FnOnce(&mut Submission)) -> Self {
        if let Ok(submission) = &mut self.submission {
            set(submission);
        }
        self
    }
}

impl IntoFuture for Submit {
    type Output = Result<UnitHandle, SubmitError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
