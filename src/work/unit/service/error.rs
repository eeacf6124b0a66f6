//! Why an operation on a unit fails.

use std::io;

/// Why something could not be done with a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The unit was released, or its time to be kept is over.
    #[error("the unit was removed")]
    Removed,
    /// A write failed. The change may have been made or not: repeat it when there is room.
    #[error("cannot write to the units' directory: {0}")]
    Disk(String),
    /// This node is shut down. What is on disk goes on when it is started again.
    #[error("this node is shut down")]
    ShutDown,
}

impl From<io::Error> for UnitError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}
