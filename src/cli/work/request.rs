//! What is asked about units over the control socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::id::IdPrefix;
use super::unit::{State, UnitView};
use crate::id::NodeId;
use crate::work::Directive;
use crate::work::unit::UnitFilter;

/// A question about units, or a change of them. Times are in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "unit", rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::cli) enum UnitRequest {
    /// Submit a unit. The payload follows in chunks.
    Submit(SubmitRequest),
    /// List units.
    List {
        #[serde(default)]
        filter: UnitQuery,
    },
    /// List what cannot be used of the units' directory.
    Quarantined {},
    /// Report a unit's status.
    Status { id: IdPrefix },
    /// Report a unit's status, and again whenever it changes, until it is final.
    Watch { id: IdPrefix },
    /// Send what the unit has written.
    Results(ResultsRequest),
    /// Cancel a unit.
    Cancel { id: IdPrefix, grace_ms: u64 },
    /// Release a unit.
    Release { id: IdPrefix, force: bool },
    /// Release all units that match.
    ReleaseAll {
        #[serde(default)]
        filter: UnitQuery,
        force: bool,
    },
}

/// A unit to submit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct SubmitRequest {
    pub(in crate::cli) node: NodeId,
    pub(in crate::cli) directive: Directive,
    pub(in crate::cli) key: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) start_by_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) run_for_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) keep_for_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(in crate::cli) idempotent: bool,
}

/// Output of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct ResultsRequest {
    pub(in crate::cli) id: IdPrefix,
    /// From this offset on, in bytes.
    #[serde(default)]
    pub(in crate::cli) from: u64,
    /// Standard error instead of standard output.
    #[serde(default)]
    pub(in crate::cli) stderr: bool,
    /// Up to the end of the unit, instead of up to what there is.
    #[serde(default)]
    pub(in crate::cli) follow: bool,
}

/// Which units.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::cli) struct UnitQuery {
    /// Units of this node: those that were submitted to it, or with `here` by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) node: Option<NodeId>,
    /// Units in one of these states; in any state if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli) states: Vec<State>,
    /// Units with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::cli) labels: BTreeMap<String, String>,
    /// Units that were submitted at least this long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) older_ms: Option<u64>,
    /// Units that this node executes for others, instead of those that it has submitted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) here: bool,
}

impl UnitQuery {
    /// Whether it leaves none out, of those that the node has submitted or, with `here`, executes.
    pub(super) fn selects_all(&self) -> bool {
        *self == Self { here: self.here, ..Self::default() }
    }

    /// What the node can select by itself, at a time in milliseconds since the Unix epoch. The rest
    /// is left to [`matches`](Self::matches).
    pub(in crate::cli) fn filter(&self, now_ms: u64) -> UnitFilter {
        UnitFilter {
            // The node of a unit that is executed here is this one.
            node: self.node.clone().filter(|_| !self.here),
            labels: self.labels.clone().into_iter().collect(),
            created_before_ms: self.older_ms.map(|older| now_ms.saturating_sub(older)),
            ..UnitFilter::default()
        }
    }

    /// Whether a unit that has passed the [filter](Self::filter) is one of them.
    pub(in crate::cli) fn matches(&self, unit: &UnitView) -> bool {
        let submitter = self.node.as_ref().filter(|_| self.here);
        submitter.is_none_or(|node| node.as_str() == unit.submitter)
            && (self.states.is_empty() || self.states.contains(&unit.state))
    }
}

/// How many units a request has released, and which it could not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct Released {
    pub(in crate::cli) released: usize,
    /// At most [`MAX_FAILURES`](Self::MAX_FAILURES) of them, with the reason.
    #[serde(default)]
    pub(in crate::cli) failures: Vec<String>,
    /// How many could not be released.
    #[serde(default)]
    pub(in crate::cli) failed: usize,
}

impl Released {
    /// The most failures that are described.
    pub(in crate::cli) const MAX_FAILURES: usize = 16;
}

#[cfg(test)]
mod tests {
    use super::super::unit::tests::unit;
    use super::*;

    #[test]
    fn a_query_selects_by_all_that_it_names() {
        let running = unit(State::Running);
        let query = UnitQuery {
            node: Some("edge-1".parse().unwrap()),
            states: vec![State::Queued, State::Running],
            labels: [("job".to_owned(), "7".to_owned())].into(),
            older_ms: Some(5_000),
            here: false,
        };
        let filter = UnitFilter {
            node: query.node.clone(),
            labels: vec![("job".to_owned(), "7".to_owned())],
            created_before_ms: Some(10_000),
            ..UnitFilter::default()
        };
        assert_eq!(query.filter(15_000), filter);
        assert!(query.matches(&running) && UnitQuery::default().matches(&running));
        assert!(!UnitQuery { states: vec![State::Lost], ..query.clone() }.matches(&running));
        // With `here`, the node is the submitter.
        let here = UnitQuery { here: true, ..query };
        assert_eq!(here.filter(15_000), UnitFilter { node: None, ..filter });
        assert!(!here.matches(&running));
        assert!(UnitQuery { node: Some("ctl".parse().unwrap()), ..here }.matches(&running));
    }

    #[test]
    fn requests_are_lines_that_scripts_can_write() {
        let list = UnitRequest::List { filter: UnitQuery::default() };
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"{"unit":"list","filter":{}}"#);
        assert_eq!(serde_json::from_str::<UnitRequest>(r#"{"unit":"list"}"#).unwrap(), list);
        let results: UnitRequest =
            serde_json::from_str(r#"{"unit":"results","id":"0193"}"#).unwrap();
        let expected =
            ResultsRequest { id: "0193".parse().unwrap(), from: 0, stderr: false, follow: false };
        assert_eq!(results, UnitRequest::Results(expected));
    }
}
