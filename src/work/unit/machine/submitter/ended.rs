//! What is left of a submitter's unit that has ended.

use super::super::time::UnitTime;
use super::{Session, Stage, SubmitterUnit};
use crate::id::NodeId;
use crate::work::unit::kept_spec::KeptSpec;
use crate::work::unit::outcome::Outcome;
use crate::work::unit::spec::UnitSpec;

/// A machine whose unit has ended, and that has nothing to ask: what its journal says, in little
/// memory.
#[derive(Clone, Debug)]
pub(crate) struct EndedSubmitter {
    node: NodeId,
    spec: KeptSpec,
    start_by: UnitTime,
    outcome: Outcome,
    started: bool,
    offered: bool,
    cancel: Option<u64>,
    since: UnitTime,
}

impl SubmitterUnit {
    /// What is left of a unit that has ended. `None` if it has not, or is to be released.
    pub(crate) fn ended(&self) -> Option<EndedSubmitter> {
        let Stage::Final { outcome, started } = &self.stage else { return None };
        self.release.is_none().then(|| EndedSubmitter {
            node: self.node.clone(),
            spec: KeptSpec::from(&self.spec),
            start_by: self.start_by,
            outcome: outcome.clone(),
            started: *started,
            offered: self.offered,
            cancel: self.cancel,
            since: self.since,
        })
    }
}

impl From<EndedSubmitter> for SubmitterUnit {
    /// The machine as it would be rebuilt from its journal.
    fn from(ended: EndedSubmitter) -> Self {
        Self {
            node: ended.node,
            spec: UnitSpec::from(&ended.spec),
            start_by: ended.start_by,
            stage: Stage::Final { outcome: ended.outcome, started: ended.started },
            offered: ended.offered,
            cancel: ended.cancel,
            release: None,
            since: ended.since,
            reported: None,
            session: Session::Down,
            passed_on: None,
        }
    }
}

impl EndedSubmitter {
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(crate) fn spec(&self) -> &KeptSpec {
        &self.spec
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    pub(crate) fn started(&self) -> bool {
        self.started
    }

    /// When it was submitted.
    pub(crate) fn created(&self) -> UnitTime {
        UnitTime(self.start_by.0.saturating_sub(self.spec.start_by_ms()))
    }

    /// When the newest entry of the journal was made.
    pub(crate) fn since(&self) -> UnitTime {
        self.since
    }

    /// When its time to be kept is over.
    pub(crate) fn deadline(&self) -> UnitTime {
        self.since.plus(self.spec.keep_for_ms())
    }
}
