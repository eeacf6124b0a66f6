//! Who may do what on a node: rules in, decisions out. Pure: no I/O, no clock, no randomness.
//!
//! A [`Policy`] is made from a [`PolicySpec`], or with the feature `policy` from TOML. For each
//! peer it is compiled once: rules whose `from` does not match are left out, the names of the
//! others are indexed. A decision is then a few look-ups, however many rules there are:
//!
//! ```text
//!   PolicySpec ─▶ Policy ── for a Subject ─▶ PeerPolicy ── for an Action ─▶ Decision
//!   (rules, tests)  │        (id, roles)      (indexes)                    (allowed by rule N, or not)
//!                   └─ explain ─▶ the rule, or the nearest one and why it does not match
//! ```
//!
//! There are only rules that allow, so their order never matters. All fields of a rule have to
//! match, and of a field any value.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod action;
mod error;
mod explain;
#[cfg(feature = "policy")]
mod file;
pub(crate) mod glob;
mod index;
mod peer;
#[expect(clippy::module_inception, reason = "the file of the type `Policy`")]
mod policy;
mod rule;
mod spec;
mod subject;

#[cfg(test)]
mod tests;

pub use action::{Action, Verb};
pub use error::PolicyError;
pub use explain::{Explanation, Nearest};
#[cfg(feature = "policy")]
pub use file::MAX_POLICY;
pub use peer::{AllowedBy, Decision, PeerPolicy, RuleRef};
pub use policy::{MAX_RULES, Policy};
pub use spec::{DefaultDecision, GroupSpec, PolicySpec, RuleSpec, TestSpec, TransitDefault};
pub use subject::Subject;
