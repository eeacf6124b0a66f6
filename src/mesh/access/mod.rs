//! The one place where a node decides what its peers may do.
//!
//! ```text
//!   Gate: the policy ── Access: one connection, its peer's certified id and roles
//!                           │ what a stream, call, unit or datagram wants
//!                           ▼
//!                       Grant: what was allowed; streams and calls hold it
//!   new policy, new certificate ─▶ every grant is decided again ─▶ revoked: its streams end
//! ```

pub(crate) mod connection;
pub(crate) mod gate;
pub(crate) mod grant;
mod rules;
mod swept;

#[cfg(test)]
mod at_test {
    use super::gate::Gate;
    use crate::mesh::report::log::LogLimits;
    use crate::policy::{Policy, PolicySpec, RuleSpec};

    pub(super) fn gate(policy: Option<Policy>) -> Gate {
        Gate::new("node".parse().unwrap(), policy, LogLimits::default())
    }

    /// Those who may call what.
    pub(super) fn policy(rules: &[(&str, &str)]) -> Policy {
        let rule = |(from, directive): &(&str, &str)| RuleSpec {
            from: vec![(*from).to_owned()],
            to: vec!["work".to_owned()],
            directives: Some(vec![(*directive).to_owned()]),
            ..RuleSpec::default()
        };
        let allow = rules.iter().map(rule).collect();
        Policy::new(&PolicySpec { allow, ..PolicySpec::default() }).unwrap()
    }
}
