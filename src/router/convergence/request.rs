//! Requests for a verdict on convergence.

/// A request of [`Router::converge`](crate::router::Router::converge). Its result is an
/// [`Event`](crate::router::Event).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConvergeRequest(pub(super) u64);

/// Why a request was rejected. The state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// [`Limits::MAX_CONVERGE_REQUESTS`](crate::router::Limits::MAX_CONVERGE_REQUESTS) are open.
    /// The caller's fault; retry when one has ended.
    #[error("at most {max} requests at a time")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// This node is leaving, or has yielded its id to another process: other nodes drop their
    /// routes to it.
    #[error("this node is leaving")]
    Leaving,
}
