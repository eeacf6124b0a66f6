//! What the commands do with the units of a node of this process, which serves a control socket.
//!
//! The errors of units become exit statuses here, and nowhere else.

use std::time::Duration;

use super::id::IdPrefix;
use super::payload::FedPayload;
use super::request::{Released, ResultsRequest, SubmitRequest, UnitQuery};
use super::unit::{Brief, State, UnitView};
use crate::cli::output::json::Document;
use crate::cli::process::exit::Failure;
use crate::mesh::clock::unix_ms;
use crate::node::Node;
use crate::work::unit::{
    self, FindError, Outcome, QuarantinedUnit, ResultsError, ResultsOptions, SubmitError,
    UnitError, UnitHandle, UnitPayload, UnitResults, UnitState, UnitStatus, Units,
};

/// The units of a node.
#[derive(Clone, Debug)]
pub(in crate::cli) struct LocalUnits {
    node: Node,
    units: Units,
}

impl LocalUnits {
    pub(in crate::cli) fn new(node: Node) -> Self {
        Self { units: node.units(), node }
    }

    /// # Errors
    /// The node keeps no units.
    pub(in crate::cli) fn check_enabled(&self) -> Result<(), Failure> {
        if self.units.enabled() { Ok(()) } else { Err(submit_failure(&SubmitError::NoUnits)) }
    }

    /// Submits a unit, and returns its status once it is on disk.
    pub(in crate::cli) async fn submit(
        &self,
        request: SubmitRequest,
        payload: FedPayload,
    ) -> Result<UnitView, Failure> {
        let payload = UnitPayload::reader(payload);
        let mut submit =
            self.node.submit(request.node, request.directive, payload).key(request.key);
        submit = submit.idempotent(request.idempotent);
        if let Some(ms) = request.start_by_ms {
            submit = submit.start_by(Duration::from_millis(ms));
        }
        if let Some(ms) = request.run_for_ms {
            submit = submit.run_for(Duration::from_millis(ms));
        }
        if let Some(ms) = request.keep_for_ms {
            submit = submit.keep_for(Duration::from_millis(ms));
        }
        submit = request
            .labels
            .into_iter()
            .fold(submit, |submit, (name, value)| submit.label(name, value));
        let unit = submit.await.map_err(|error| submit_failure(&error))?;
        Ok(view(unit.status()))
    }

    fn list<'a>(
        &self,
        query: &'a UnitQuery,
    ) -> Result<impl Iterator<Item = UnitView> + 'a, Failure> {
        self.check_enabled()?;
        let filter = query.filter(unix_ms());
        let units = if query.here { self.units.here(&filter) } else { self.units.list(&filter) };
        Ok(units.into_iter().map(view).filter(|unit| query.matches(unit)))
    }

    /// The units that match, as a document. It is written on a blocking thread: a node may keep
    /// thousands of units.
    pub(in crate::cli) async fn listed(&self, query: UnitQuery) -> Result<Document, Failure> {
        let units = self.clone();
        let listed = move || units.list(&query).map(|list| Document::of_all(list.map(Brief)));
        tokio::task::spawn_blocking(listed).await.map_err(Failure::failed)?
    }

    /// Their paths as text: one that is not UTF-8 has no JSON.
    pub(in crate::cli) fn quarantined(&self) -> Result<Vec<QuarantinedUnit>, Failure> {
        self.check_enabled()?;
        Ok(self.units.quarantined().into_iter().map(with_path_as_text).collect())
    }

    pub(in crate::cli) fn status(&self, id: &IdPrefix) -> Result<UnitView, Failure> {
        self.find(id).map(|unit| view(unit.status()))
    }

    pub(in crate::cli) fn find(&self, id: &IdPrefix) -> Result<UnitHandle, Failure> {
        self.check_enabled()?;
        self.units.find(&id.to_string()).map_err(|error| match error {
            FindError::Ambiguous { .. } => Failure::usage(format!("{error}; give more of the id")),
            _ => Failure::failed(error),
        })
    }

    pub(in crate::cli) async fn cancel(
        &self,
        id: &IdPrefix,
        grace: Duration,
    ) -> Result<UnitView, Failure> {
        let unit = self.find(id)?;
        unit.cancel(grace).await.map_err(|error| unit_failure(&error))?;
        Ok(view(unit.status()))
    }

    pub(in crate::cli) async fn release(
        &self,
        id: &IdPrefix,
        force: bool,
    ) -> Result<Released, Failure> {
        self.find(id)?.release(force).await.map_err(|error| unit_failure(&error))?;
        Ok(Released { released: 1, ..Released::default() })
    }

    /// Releases all units that match. Those that have not ended are left alone without `force`.
    pub(in crate::cli) async fn release_all(
        &self,
        query: &UnitQuery,
        force: bool,
    ) -> Result<Released, Failure> {
        let mut done = Released::default();
        let query = UnitQuery { here: false, ..query.clone() };
        let units = self.list(&query)?;
        for unit in units.filter(|unit| force || unit.state.is_final()) {
            match self.release(&unit.id.into(), force).await {
                Ok(_) => done.released += 1,
                Err(failure) => {
                    done.failed += 1;
                    if done.failures.len() < Released::MAX_FAILURES {
                        done.failures.push(format!("{}: {failure}", unit.id));
                    }
                }
            }
        }
        Ok(done)
    }
}

fn with_path_as_text(unit: QuarantinedUnit) -> QuarantinedUnit {
    let path = unit.path.to_string_lossy().into_owned().into();
    QuarantinedUnit { path, ..unit }
}

/// A unit's output.
pub(in crate::cli) fn output(unit: &UnitHandle, request: &ResultsRequest) -> UnitResults {
    let options = ResultsOptions::default().from(request.from).follow(request.follow);
    unit.results(if request.stderr { options.stderr() } else { options })
}

/// A status as the commands print it.
pub(in crate::cli) fn view(status: UnitStatus) -> UnitView {
    let outcome = status.outcome.as_ref();
    let reason = match outcome {
        // The status, or the signal, is all there is to say.
        Some(Outcome::Failed(unit::Failure::Exit(_) | unit::Failure::Signal(_))) => None,
        Some(Outcome::Failed(failure)) => Some(failure.to_string()),
        Some(Outcome::Refused(refusal)) => Some(refusal.to_string()),
        Some(outcome) if *outcome != Outcome::Expired => None,
        // Why it was not accepted in time, or is not accepted now.
        _ => status.busy.map(|busy| busy.to_string()),
    };
    UnitView {
        id: status.id.into(),
        node: status.node.to_string(),
        submitter: status.submitter.to_string(),
        directive: status.directive.to_string(),
        state: state(&status),
        exit: outcome.and_then(Outcome::exit_code),
        signal: outcome.and_then(Outcome::signal),
        reason,
        started: status.started,
        created_ms: status.created_ms,
        started_ms: status.started_ms,
        ended_ms: status.ended_ms,
        payload_bytes: status.payload_len,
        handed_bytes: status.payload_handed,
        stdout_bytes: status.stdout_len,
        stderr_bytes: status.stderr_len,
        labels: status.labels,
        releasing: status.releasing,
    }
}

fn state(status: &UnitStatus) -> State {
    match (&status.outcome, status.state) {
        (Some(outcome), _) => match outcome {
            Outcome::Succeeded => State::Succeeded,
            Outcome::Failed(_) => State::Failed,
            Outcome::Cancelled => State::Cancelled,
            Outcome::Expired => State::Expired,
            Outcome::Refused(_) => State::Refused,
            Outcome::Lost => State::Lost,
        },
        (None, UnitState::Queued) => State::Queued,
        (None, UnitState::Handing) => State::Handing,
        (None, UnitState::Accepted) => State::Accepted,
        (None, UnitState::Starting) => State::Starting,
        (None, UnitState::Running) => State::Running,
        (None, UnitState::Ended) => State::Unknown,
    }
}

/// Why a unit is no longer watched, before it has ended.
pub(in crate::cli) fn over(unit: &UnitHandle) -> Failure {
    unit_failure(if unit.status().removed { &UnitError::Removed } else { &UnitError::ShutDown })
}

fn submit_failure(error: &SubmitError) -> Failure {
    match error {
        SubmitError::NoUnits => Failure::usage(
            "this node keeps no units; start it with `receptor node --units --data-dir DIR`",
        ),
        SubmitError::Invalid(_) | SubmitError::Conflict { .. } => Failure::usage(error),
        SubmitError::TooMany { .. } => Failure::busy(error),
        SubmitError::ShutDown => Failure::unreachable(error),
        _ => Failure::failed(error),
    }
}

fn unit_failure(error: &UnitError) -> Failure {
    match error {
        UnitError::ShutDown => Failure::unreachable(error),
        _ => Failure::failed(error),
    }
}

pub(in crate::cli) fn results_failure(error: &ResultsError) -> Failure {
    match error {
        ResultsError::Unreachable(_) => Failure::unreachable(error),
        ResultsError::NotAllowed => Failure::refused(error),
        ResultsError::Unit(error) => unit_failure(error),
        _ => Failure::failed(error),
    }
}
