//! The id of a unit, as its submitter knows it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a unit: a UUID that its submitter chose, version 7 by default.
///
/// Unique among the units of one submitter. Ids sort by the time of submission if they are of
/// version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitId(pub Uuid);

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Uuid> for UnitId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for UnitId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl From<UnitId> for Uuid {
    fn from(id: UnitId) -> Self {
        id.0
    }
}
