//! The units of a node.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::service::SharedRef;
use super::filter::UnitFilter;
use super::handle::UnitHandle;
use super::id::UnitId;
use super::status::UnitStatus;
use crate::id::NodeId;

/// The units of a node: those that it has submitted, and those that it executes for others. None if
/// the node was not configured to keep any.
#[derive(Clone, Debug)]
pub struct Units {
    shared: Option<SharedRef>,
}

/// What the node found in its units' directory and cannot use. It is left as it is; remove it when
/// it is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QuarantinedUnit {
    /// The file or directory.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub reason: String,
}

/// Why a shortened id stands for no unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// No unit's id begins like this.
    #[error("no unit's id begins with `{}`", prefix.escape_default())]
    NotFound {
        /// What was looked for.
        prefix: String,
    },
    /// Several units' ids begin like this. Give more of it.
    #[error("the ids of {count} units begin with `{}`", prefix.escape_default())]
    Ambiguous {
        /// What was looked for.
        prefix: String,
        /// How many there are.
        count: usize,
    },
}

impl Units {
    pub(crate) fn new(shared: Option<SharedRef>) -> Self {
        Self { shared }
    }

    /// Whether the node keeps units.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.shared.is_some()
    }

    /// The units that this node has submitted, in the order of their ids. It does not wait for
    /// anything.
    #[must_use]
    pub fn list(&self, filter: &UnitFilter) -> Vec<UnitStatus> {
        let wanted = |status: &UnitStatus| filter.matches(status);
        self.shared.as_ref().map(|shared| shared.submitted(wanted)).unwrap_or_default()
    }

    /// A unit that this node has submitted.
    #[must_use]
    pub fn get(&self, id: UnitId) -> Option<UnitHandle> {
        let shared = self.shared.clone()?;
        let unit = shared.find_submitted(id.0)?;
        Some(UnitHandle::new(shared, unit))
    }

    /// The unit that this node has submitted whose id begins like this.
    ///
    /// # Errors
    /// No unit has it, or several do.
    pub fn find(&self, prefix: &str) -> Result<UnitHandle, FindError> {
        let not_found = || FindError::NotFound { prefix: prefix.to_owned() };
        if let Ok(id) = prefix.parse::<Uuid>() {
            return self.get(id.into()).ok_or_else(not_found);
        }
        let wanted = prefix.to_ascii_lowercase();
        let shared = self.shared.clone().ok_or_else(not_found)?;
        let begins = |id: &Uuid| {
            let mut buffer = Uuid::encode_buffer();
            !wanted.is_empty() && id.hyphenated().encode_lower(&mut buffer).starts_with(&wanted)
        };
        let mut found = shared.submitted_ids();
        found.retain(begins);
        match found[..] {
            [] => Err(not_found()),
            [id] => self.get(id.into()).ok_or_else(not_found),
            _ => Err(FindError::Ambiguous { prefix: prefix.to_owned(), count: found.len() }),
        }
    }

    /// The units that this node executes for others, and those that it has executed and keeps.
    /// Their [`node`](UnitStatus::node) is this one.
    #[must_use]
    pub fn here(&self, filter: &UnitFilter) -> Vec<UnitStatus> {
        let wanted = |status: &UnitStatus| filter.matches(status);
        self.shared.as_ref().map(|shared| shared.executed(wanted)).unwrap_or_default()
    }

    /// Cancels a unit that this node executes for somebody else. False if there is no such unit.
    ///
    /// # Errors
    /// The request was not stored.
    pub async fn cancel_here(
        &self,
        submitter: &NodeId,
        id: UnitId,
        grace: std::time::Duration,
    ) -> Result<bool, super::super::service::UnitError> {
        match &self.shared {
            Some(shared) => shared.cancel_executed(submitter, id.0, grace).await,
            None => Ok(false),
        }
    }

    /// What the node found in its units' directory and cannot use.
    #[must_use]
    pub fn quarantined(&self) -> Vec<QuarantinedUnit> {
        self.shared.iter().flat_map(|shared| shared.quarantined_units()).collect()
    }
}
