//! The answer to whether the mesh includes this node.

use serde::{Deserialize, Serialize};

use crate::router;

/// Whether all nodes have installed the route to this one, see
/// [`Node::converged`](crate::Node::converged).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "convergence", rename_all = "kebab-case")]
pub enum Convergence {
    /// Every node that this one could reach has it.
    Converged {
        /// How many they are, this node included. Ephemeral nodes have no routes, and do not count.
        count: u64,
    },
    /// Not every node is known to have it: one did not answer in time, or links and nodes came
    /// and went all the while.
    Partial {
        /// The most nodes that have answered, this node included. An ephemeral node that got no
        /// answer counts nobody.
        count: u64,
        /// How many this node could reach at the end, itself included.
        expected: u64,
    },
}

/// Why the mesh was not asked, or the answer is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvergeError {
    /// The request is not taken; the reason says whose fault it is.
    #[error(transparent)]
    Refused(#[from] router::ConvergeError),
    /// The node is shut down.
    #[error("this node is shut down")]
    ShutDown,
}
