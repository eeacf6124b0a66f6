//! The gate of a node: its policy, and the connections that are judged by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::connection::Access;
use super::rules::Rules;
use super::swept::Swept;
use crate::id::NodeId;
use crate::mesh::report::log::LogLimits;
use crate::mesh::report::status::PolicyStatus;
#[cfg(any(test, feature = "cli"))]
use crate::policy::{Action, AllowedBy, Decision};
use crate::policy::{Policy, Subject};
use crate::sync::lock;
use crate::transport::Identity;

/// The policy of a node, and the connections that are judged by it; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Arc<Rules>,
    connections: Mutex<Swept<u64, Access>>,
    next: AtomicU64,
}

impl Gate {
    pub(crate) fn new(node: NodeId, policy: Option<Policy>, logs: LogLimits) -> Self {
        Self(Arc::new(Inner {
            rules: Arc::new(Rules::new(node, policy, logs)),
            connections: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    /// Judges a connection with a peer, whose certificate says this of it.
    pub(crate) fn connection(&self, peer: &NodeId, subject: Subject) -> Arc<Access> {
        let access = Arc::new(Access::new(self.0.rules.clone(), peer.clone(), subject));
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.connections).insert(number, &access);
        access
    }

    /// Decides by this policy from now on, and again whatever is in use. Returns when all of it is
    /// decided.
    pub(crate) fn set_policy(&self, policy: Option<Policy>) {
        self.0.rules.set_policy(policy);
        // One that is made meanwhile is judged by the new policy from the start.
        let live = lock(&self.0.connections).held();
        for access in live {
            access.judge();
        }
    }

    /// The policy. `None` if everything is allowed.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.0.rules.policy()
    }

    /// The identity of this node, whose trust asks the policy who may carry packets of others.
    pub(crate) fn judging_transit(&self, identity: Identity) -> Identity {
        let trust = identity.trust().clone().with_policy(self.policy(), self.0.rules.node());
        identity.with_trust(trust)
    }

    /// Decides what the node's own user does, through its control socket: the node itself may do
    /// everything.
    #[cfg(any(test, feature = "cli"))]
    pub(crate) fn decide_own(&self, action: &Action<'_>) -> Decision {
        let node = self.0.rules.node();
        self.policy().map_or(Decision::Allowed(AllowedBy::NoPolicy), |policy| {
            policy.compile(&Subject::new(node), Some(node)).decide(action)
        })
    }

    /// What the policy is and has done.
    pub(crate) fn status(&self) -> PolicyStatus {
        self.0.rules.status()
    }

    /// Notes why a new policy was not accepted; `None` if the policy is up to date.
    #[cfg(feature = "cli")]
    pub(crate) fn note_rejected(&self, why: Option<String>) {
        self.0.rules.set_rejected(why);
    }

    pub(crate) fn logs(&self) -> &LogLimits {
        self.0.rules.logs()
    }
}
