//! What is left of an executor's unit that has ended.

use std::sync::Arc;

use super::super::time::UnitTime;
use super::{ExecutorUnit, Stage};
use crate::work::unit::kept_spec::KeptSpec;
use crate::work::unit::outcome::{Outcome, Report, ReportState};
use crate::work::unit::spec::UnitSpec;

/// A machine whose unit has ended: what its journal says, in little memory.
#[derive(Clone, Debug)]
pub(crate) struct EndedExecutor {
    spec: KeptSpec,
    start_by: UnitTime,
    outcome: Outcome,
    started: bool,
    cancel: Option<u64>,
    since: UnitTime,
    version: u64,
    last_attempt: u32,
}

impl ExecutorUnit {
    /// What is left of a unit that has ended. `None` if it has not, or is to be released.
    pub(crate) fn ended(&self) -> Option<EndedExecutor> {
        let Stage::Final { outcome, started } = &self.stage else { return None };
        (!self.release).then(|| EndedExecutor {
            spec: KeptSpec::from(&*self.spec),
            start_by: self.start_by,
            outcome: outcome.clone(),
            started: *started,
            cancel: self.cancel,
            since: self.since,
            version: self.version,
            last_attempt: self.last_attempt,
        })
    }
}

impl From<EndedExecutor> for ExecutorUnit {
    /// The machine as it would be rebuilt from its journal.
    fn from(ended: EndedExecutor) -> Self {
        let spec = Arc::new(UnitSpec::from(&ended.spec));
        Self {
            hash: spec.hash(),
            start_by: ended.start_by,
            stage: Stage::Final { outcome: ended.outcome, started: ended.started },
            offset: spec.payload_len,
            spec,
            cancel: ended.cancel,
            release: false,
            since: ended.since,
            version: ended.version,
            last_attempt: ended.last_attempt,
            called: false,
            spawn_error: None,
        }
    }
}

impl EndedExecutor {
    pub(crate) fn spec(&self) -> &KeptSpec {
        &self.spec
    }

    /// Where the unit stands.
    pub(crate) fn report(&self) -> Report {
        Report {
            version: self.version,
            state: ReportState::Final(self.outcome.clone()),
            started: self.started,
            since: self.since,
        }
    }

    /// When its time to be kept is over.
    pub(crate) fn deadline(&self) -> UnitTime {
        self.since.plus(self.spec.keep_for_ms())
    }
}
