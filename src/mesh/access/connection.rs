//! What the peer of one connection may do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tracing::{debug, info};

use super::grant::Grant;
use super::rules::Rules;
use crate::id::NodeId;
use crate::mesh::report::log::LogKind;
use crate::policy::{Action, AllowedBy, Decision, PeerPolicy, Subject, Verb};
use crate::sync::lock;

/// Grants of one connection beyond which those that nobody uses are dropped. Those in use are
/// bounded by the streams and calls that the connection may have.
const SWEEP_AT: usize = 64;

/// What the peer of one connection may do. Every way into the node asks it.
#[derive(Debug)]
pub(crate) struct Access {
    rules: Arc<Rules>,
    peer: NodeId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    subject: Subject,
    /// The policy as it is for the subject, and the version of the policy that it is of. In
    /// `Some`, `None` if everything is allowed.
    compiled: Option<(u64, Option<Arc<PeerPolicy>>)>,
    grants: BTreeMap<Verb, BTreeMap<Box<str>, Arc<Grant>>>,
    len: usize,
    /// Grants after the last sweep.
    kept: usize,
}

/// A peer may not do what it wants. The peer learns no more than this; the log names the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAllowed;

impl Access {
    pub(super) fn new(rules: Arc<Rules>, peer: NodeId, subject: Subject) -> Self {
        let state = State { subject, compiled: None, grants: BTreeMap::new(), len: 0, kept: 0 };
        Self { rules, peer, state: Mutex::new(state) }
    }

    /// Decides. What is allowed is decided again when the policy or the peer's certificate changes:
    /// whoever acts on it has to end with the grant.
    pub(crate) fn allow(&self, action: &Action<'_>) -> Result<Arc<Grant>, NotAllowed> {
        self.known(action).ok_or_else(|| {
            self.denied(action);
            NotAllowed
        })
    }

    /// As [`allow`](Self::allow). What is not allowed is neither counted nor logged: somebody else
    /// asks again.
    pub(crate) fn known(&self, action: &Action<'_>) -> Option<Arc<Grant>> {
        let mut state = lock(&self.state);
        if let Some(grant) = state.grants.get(&action.verb()).and_then(|by| by.get(action.name())) {
            return Some(grant.clone());
        }
        match state.decide(&self.rules, action) {
            Decision::Allowed(by) => Some(state.grant(action, by)),
            Decision::Denied => None,
        }
    }

    /// Decides again what is in use: the policy has changed.
    pub(super) fn judge(&self) {
        self.judge_as(None);
    }

    /// The peer has proven a certificate with these roles.
    pub(crate) fn set_roles(&self, roles: impl IntoIterator<Item = String>) {
        let subject = Subject::new(&self.peer).with_roles(roles);
        if lock(&self.state).subject != subject {
            self.judge_as(Some(subject));
        }
    }

    fn judge_as(&self, subject: Option<Subject>) {
        let mut ended = Vec::new();
        {
            let mut state = lock(&self.state);
            if let Some(subject) = subject {
                state.subject = subject;
            }
            state.compiled = None;
            let compiled = state.compiled(&self.rules);
            let State { grants, len, .. } = &mut *state;
            for by_name in grants.values_mut() {
                by_name.retain(|_, grant| {
                    let stays = match decide(compiled.as_deref(), &grant.action()) {
                        // The rule may be another one now: who asks next gets a grant by it.
                        Decision::Allowed(by) => by == grant.by() || Arc::strong_count(grant) > 1,
                        Decision::Denied => {
                            ended.push(grant.clone());
                            false
                        }
                    };
                    *len -= usize::from(!stays);
                    stays
                });
            }
        }
        for grant in ended {
            grant.revoke();
            self.rules.count_revoked();
            if self.rules.logs().admit(LogKind::NotAllowed, &self.peer) {
                info!(peer = %self.peer, action = %grant.action(), "no longer allowed");
            }
        }
    }

    fn denied(&self, action: &Action<'_>) {
        self.rules.count_denied();
        if !self.rules.logs().admit(LogKind::NotAllowed, &self.peer) {
            return;
        }
        let peer = &self.peer;
        let subject = lock(&self.state).subject.clone();
        match self.rules.nearest(&subject, action) {
            Some(nearest) => info!(%peer, %action, nearest, "not allowed: no rule matches"),
            None => info!(%peer, %action, "not allowed: no rule matches"),
        }
    }
}

impl State {
    fn compiled(&mut self, rules: &Rules) -> Option<Arc<PeerPolicy>> {
        // Read before the policy: if it changes meanwhile, this is compiled again.
        let version = rules.version();
        match &self.compiled {
            Some((of, compiled)) if *of == version => compiled.clone(),
            _ => {
                let compiled = rules.compile(&self.subject);
                self.compiled = Some((version, compiled.clone()));
                compiled
            }
        }
    }

    fn decide(&mut self, rules: &Rules, action: &Action<'_>) -> Decision {
        let compiled = self.compiled(rules);
        decide(compiled.as_deref(), action)
    }

    fn grant(&mut self, action: &Action<'_>, by: AllowedBy) -> Arc<Grant> {
        if self.len >= SWEEP_AT.max(2 * self.kept) {
            for by_name in self.grants.values_mut() {
                by_name.retain(|_, grant| Arc::strong_count(grant) > 1);
            }
            self.len = self.grants.values().map(BTreeMap::len).sum();
            self.kept = self.len;
        }
        debug!(peer = %self.subject.id(), %action, %by, "allowed");
        let grant = Arc::new(Grant::new(action, by));
        let by_name = self.grants.entry(action.verb()).or_default();
        by_name.insert(action.name().into(), grant.clone());
        self.len += 1;
        grant
    }
}

fn decide(policy: Option<&PeerPolicy>, action: &Action<'_>) -> Decision {
    policy.map_or(Decision::Allowed(AllowedBy::NoPolicy), |policy| policy.decide(action))
}

#[cfg(test)]
impl Access {
    /// That of a peer who may do everything.
    pub(crate) fn of_test(peer: &str) -> Arc<Self> {
        let peer: NodeId = peer.parse().unwrap();
        super::at_test::gate(None).connection(&peer, Subject::new(&peer))
    }
}

#[cfg(test)]
mod tests {
    use super::super::at_test::gate;
    use super::super::gate::Gate;
    use super::*;

    fn call(access: &Access, directive: &str) -> Result<Arc<Grant>, NotAllowed> {
        access.allow(&Action::call(&directive.parse().unwrap()))
    }

    fn access(gate: &Gate, peer: &str) -> Arc<Access> {
        let peer: NodeId = peer.parse().unwrap();
        gate.connection(&peer, Subject::new(&peer))
    }

    #[test]
    fn a_grant_ends_when_the_policy_no_longer_allows_it() {
        let gate = gate(None);
        let (ctl, edge) = (access(&gate, "ctl-1~x"), access(&gate, "edge-1"));
        let grants = [call(&ctl, "a:b").unwrap(), call(&ctl, "c:d").unwrap()];
        let other = call(&edge, "a:b").unwrap();
        gate.set_policy(Some(super::super::at_test::policy(&[("ctl-*", "a:*")])));
        assert!(!grants[0].is_revoked() && grants[1].is_revoked() && other.is_revoked());
        assert_eq!(call(&ctl, "c:d").err(), Some(NotAllowed));
        assert_eq!(call(&edge, "a:b").err(), Some(NotAllowed));
        let status = gate.status();
        assert_eq!((status.denied, status.revoked), (2, 2));
        gate.set_policy(None);
        assert!(call(&edge, "a:b").is_ok() && other.is_revoked(), "what has ended stays so");
    }

    #[test]
    fn a_new_certificate_changes_what_its_roles_allow() {
        let gate = gate(Some(super::super::at_test::policy(&[("role:ops", "a:*")])));
        let access = access(&gate, "x");
        assert!(call(&access, "a:b").is_err());
        access.set_roles(["ops".to_owned()]);
        let grant = call(&access, "a:b").unwrap();
        access.set_roles(["ops".to_owned()]);
        assert!(!grant.is_revoked());
        access.set_roles([]);
        assert!(grant.is_revoked() && call(&access, "a:b").is_err());
    }

    #[test]
    fn grants_that_nobody_uses_do_not_pile_up() {
        let gate = gate(None);
        let access = access(&gate, "x");
        let used = call(&access, "a:used").unwrap();
        for nth in 0..10_000 {
            call(&access, &format!("a:{nth}")).unwrap();
        }
        assert!(lock(&access.state).len <= SWEEP_AT + 1);
        gate.set_policy(Some(super::super::at_test::policy(&[("y", "a:*")])));
        assert!(used.is_revoked());
    }

    #[test]
    fn the_node_itself_needs_no_rule() {
        let gate = gate(Some(super::super::at_test::policy(&[("y", "a:*")])));
        assert!(call(&access(&gate, "node~1"), "c:d").is_ok());
        assert!(gate.decide_own(&Action::CONTROL).is_allowed());
        assert!(access(&gate, "y").allow(&Action::CONTROL).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_learn_of_the_end() {
        let gate = gate(None);
        let access = access(&gate, "x");
        let grant = call(&access, "a:b").unwrap();
        let waiting = tokio::spawn({
            let grant = grant.clone();
            async move { grant.revoked().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.set_policy(Some(super::super::at_test::policy(&[("y", "a:*")])));
        waiting.await.unwrap();
        grant.revoked().await;
    }
}
