//! What identifies a unit.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::NodeId;

/// What identifies a unit: its submitter, and a UUID that the submitter chose.
///
/// The submitter is the base of the certified id of the node that offered the unit, so that no node
/// can touch the units of somebody else by guessing a UUID. A client that keeps the UUID finds its
/// unit again after a restart, and may submit it any number of times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct UnitKey {
    /// The certified id of the submitter, without suffix.
    pub(crate) submitter: NodeId,
    /// Chosen by the submitter; version 7 by default.
    pub(crate) id: Uuid,
}

impl UnitKey {
    /// The key of a unit. A suffix of the submitter's id is dropped: the certificate decides.
    #[must_use]
    pub(crate) fn new(submitter: &NodeId, id: Uuid) -> Self {
        Self { submitter: submitter.base(), id }
    }
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.submitter, self.id)
    }
}
