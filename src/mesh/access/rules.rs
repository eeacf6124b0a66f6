//! The policy of a node, and what is counted of its decisions.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::swept::Swept;
use crate::id::NodeId;
use crate::mesh::report::log::LogLimits;
use crate::mesh::report::status::PolicyStatus;
use crate::policy::{Action, DefaultDecision, PeerPolicy, Policy, Subject};
use crate::sync::lock;

/// The version of the policy, whether the peer is the node itself, and the rules that match it.
type Matching = (u64, bool, Vec<u32>);

/// The policy of a node, which connections decide by.
#[derive(Debug)]
pub(super) struct Rules {
    node: NodeId,
    /// `None` if everything is allowed.
    policy: ArcSwapOption<Policy>,
    /// Counts changes of the policy.
    version: AtomicU64,
    /// Peers that the same rules match share what is compiled of them.
    compiled: Mutex<Swept<Matching, PeerPolicy>>,
    denied: AtomicU64,
    revoked: AtomicU64,
    /// Why the last new policy was not accepted, if none was accepted since.
    rejected: Mutex<Option<String>>,
    logs: LogLimits,
}

impl Rules {
    pub(super) fn new(node: NodeId, policy: Option<Policy>, logs: LogLimits) -> Self {
        Self {
            node,
            policy: ArcSwapOption::from_pointee(policy),
            version: AtomicU64::new(0),
            compiled: Mutex::default(),
            denied: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            rejected: Mutex::default(),
            logs,
        }
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn set_policy(&self, policy: Option<Policy>) {
        self.policy.store(policy.map(Arc::new));
        self.version.fetch_add(1, Ordering::AcqRel);
        self.set_rejected(None);
    }

    pub(super) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    pub(super) fn set_rejected(&self, why: Option<String>) {
        *lock(&self.rejected) = why;
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The policy as it is for a subject. `None` if everything is allowed.
    pub(super) fn compile(&self, subject: &Subject) -> Option<Arc<PeerPolicy>> {
        let version = self.version();
        let policy = self.policy()?;
        let node = Some(&self.node);
        let matching = policy.matching(subject, node);
        let key = (version, *subject.id() == self.node.base(), matching);
        let known = lock(&self.compiled).get(&key);
        Some(known.unwrap_or_else(|| {
            let compiled = Arc::new(policy.compile_matching(subject, node, &key.2));
            lock(&self.compiled).insert(key, &compiled);
            compiled
        }))
    }

    /// The nearest rule to what was denied, for the log.
    pub(super) fn nearest(&self, subject: &Subject, action: &Action<'_>) -> Option<String> {
        let policy = self.policy()?;
        let explained = policy.explain(subject, action, Some(&self.node));
        explained.nearest.map(|nearest| nearest.rule.to_string())
    }

    pub(super) fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_revoked(&self) {
        self.revoked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn logs(&self) -> &LogLimits {
        &self.logs
    }

    pub(super) fn status(&self) -> PolicyStatus {
        let policy = self.policy();
        let default = policy.as_ref().map(|policy| policy.default_decision());
        PolicyStatus {
            rules: policy.map(|policy| policy.rule_count()),
            allows_by_default: default.is_none_or(|default| default == DefaultDecision::Allow),
            denied: self.denied.load(Ordering::Relaxed),
            revoked: self.revoked.load(Ordering::Relaxed),
            rejected: lock(&self.rejected).clone(),
        }
    }
}
