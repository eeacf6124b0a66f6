//! Requests for a verdict on convergence.

/// A request of [`Router::converge`](crate::router::Router::converge). Its end comes as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConvergeRequest(pub(super) u64);

/// Why a request was not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// [`Limits::MAX_CONVERGE_REQUESTS`](crate::router::Limits::MAX_CONVERGE_REQUESTS) are open. The caller's fault; wait for one to end.
    #[error("at most {max} requests at a time")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// This node is leaving, or has yielded its id to another process: nobody is to have a route to it.
    #[error("this node is leaving")]
    Leaving,
}
