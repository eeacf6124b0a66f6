//! Why a service cannot be offered.

use crate::id::{InvalidName, ServiceName};

/// Maximum services that a node offers.
pub const MAX_SERVICES: usize = 1_024;

/// Why a service cannot be offered. The caller's fault; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The name of the service is not valid.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The node offers it already.
    #[error("the service {0} is offered already")]
    Taken(ServiceName),
    /// The node offers [`MAX_SERVICES`].
    #[error("a node offers at most {MAX_SERVICES} services")]
    TooMany,
    /// The node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}
