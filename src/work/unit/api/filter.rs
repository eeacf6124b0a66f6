//! Which units are listed.

use super::status::{UnitState, UnitStatus};
use crate::id::NodeId;

/// Which units are listed: all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnitFilter {
    /// Those of this executor.
    pub node: Option<NodeId>,
    /// Those in this state.
    pub state: Option<UnitState>,
    /// Those with this [summary](UnitStatus::summary): a state or an outcome.
    pub summary: Option<String>,
    /// Those with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Those that were submitted at or before this time, in milliseconds since the Unix epoch.
    pub created_before_ms: Option<u64>,
}

impl UnitFilter {
    /// Whether a unit is listed.
    #[must_use]
    pub fn matches(&self, status: &UnitStatus) -> bool {
        self.node.as_ref().is_none_or(|node| *node == status.node)
            && self.state.is_none_or(|state| state == status.state)
            && self.summary.as_ref().is_none_or(|summary| summary == status.summary())
            && self.labels.iter().all(|(name, value)| status.labels.get(name) == Some(value))
            && self.created_before_ms.is_none_or(|before| status.created_ms <= before)
    }
}
