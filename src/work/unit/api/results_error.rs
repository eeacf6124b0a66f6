//! Why the output of a unit cannot be read.

use super::super::service::UnitError;

/// Why the output of a unit cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The unit, or its output, was removed.
    #[error("the output is gone: the unit was removed at its executor")]
    Gone,
    /// The unit ran again, which only happens to those that are idempotent. The next read gives the
    /// output of that attempt from its beginning.
    #[error("the unit was started again; its output begins anew")]
    Restarted,
    /// The executor cannot be reached, and the results are not
    /// [followed](super::ResultsOptions::follow()).
    #[error("{0}")]
    Unreachable(String),
    /// The executor's policy does not allow this node to manage units there, or no longer does.
    #[error("not allowed: the executor does not let this node read output")]
    NotAllowed,
    /// The executor sent something else than it has announced: its fault.
    #[error("the executor sent output that does not match its digest")]
    Corrupt,
    /// This node is shut down, or the unit was removed here.
    #[error(transparent)]
    Unit(#[from] UnitError),
}
