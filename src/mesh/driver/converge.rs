//! Waiting until the mesh includes this node: who waits, for which request of the router, and for
//! how long.
//!
//! A stub has no router. Its neighbour asks for it: CONVERGE goes there, CONVERGED comes back.

mod drive;

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::mesh::links::id::LinkId;
use crate::mesh::report::convergence::{ConvergeError, Convergence};
use crate::router::ConvergeRequest;

/// Where a verdict goes.
pub(crate) type Asker = oneshot::Sender<Result<Convergence, ConvergeError>>;

/// Callers that wait for the router's verdicts; bounded by the router's limit of requests.
#[derive(Default)]
pub(crate) struct Waiting {
    by_request: BTreeMap<ConvergeRequest, Waiter>,
}

enum Waiter {
    Here(Asker),
    Stub(LinkId),
}
