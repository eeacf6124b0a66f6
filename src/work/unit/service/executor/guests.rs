//! For whom this node calls its own handlers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use uuid::Uuid;

use crate::id::NodeId;
use crate::sync::lock;

/// For whom this node calls its own handlers: submitters by tokens that only this process knows,
/// one for each call that is being opened.
#[derive(Debug, Default)]
pub(in crate::work::unit::service) struct Guests {
    waiting: Mutex<BTreeMap<Uuid, NodeId>>,
}

impl Guests {
    /// Lets a call with this token appear as one of the submitter.
    pub(in crate::work::unit::service) fn admit(&self, token: Uuid, submitter: &NodeId) {
        self.waiting().insert(token, submitter.clone());
    }

    /// The submitter of a token, once.
    pub(in crate::work::unit::service) fn take(&self, token: &Uuid) -> Option<NodeId> {
        self.waiting().remove(token)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Uuid, NodeId>> {
        lock(&self.waiting)
    }
}
