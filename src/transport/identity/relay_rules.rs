//! Rules for the nodes that this node accepts as relays.

use std::fmt;
use std::str::FromStr;

use super::names::{is_role, roles_in_certificate};
use crate::id::{NodeId, excerpt};
use crate::policy::glob::matches;

/// A rule that permits transit: a pattern of node ids in which `*` matches any characters, or
/// `role:NAME` for nodes whose certificates have that role (SAN URI `receptor-role:NAME`). Patterns
/// that begin with `role:` are roles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayRule(Kind);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Id(String),
    Role(String),
}

/// Why a text is not a [`RelayRule`]. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRelayRule {
    /// The pattern is empty or too long, or has characters that no id has.
    #[error("{0:?} is not a pattern of node ids: use 1 to 128 ASCII letters, digits and `._-:@*`")]
    Pattern(String),
    /// The name of the role is empty or too long, or has other characters.
    #[error("{0:?} is not a role: use `role:` and 1 to 64 ASCII letters, digits and `._-`")]
    Role(String),
}

/// The prefix of a rule that names a role.
const ROLE: &str = "role:";

impl RelayRule {
    /// The role that certificates of relays have by convention.
    pub const RELAY: &str = "relay";

    /// Whether it permits transit through a node with this id and this certificate (DER), which a
    /// trusted CA has issued.
    pub(crate) fn permits(&self, id: &NodeId, certificate: Option<&[u8]>) -> bool {
        match &self.0 {
            Kind::Id(pattern) => matches(pattern.as_bytes(), id.as_str().as_bytes()),
            Kind::Role(role) => {
                certificate.is_some_and(|der| roles_in_certificate(der).contains(role))
            }
        }
    }
}

impl FromStr for RelayRule {
    type Err = InvalidRelayRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(role) = text.strip_prefix(ROLE) {
            return is_role(role)
                .then(|| Self(Kind::Role(role.to_owned())))
                .ok_or_else(|| InvalidRelayRule::Role(excerpt(text)));
        }
        let of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@*".contains(&byte);
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(of_id);
        fits.then(|| Self(Kind::Id(text.to_owned())))
            .ok_or_else(|| InvalidRelayRule::Pattern(excerpt(text)))
    }
}

impl fmt::Display for RelayRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Id(pattern) => f.write_str(pattern),
            Kind::Role(role) => write!(f, "{ROLE}{role}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[test]
    fn a_pattern_matches_ids_and_a_star_any_part_of_them() {
        let permits = |rule: &str, id: &str| {
            rule.parse::<RelayRule>().unwrap().permits(&id.parse().unwrap(), None)
        };
        assert!(permits("relay-*", "relay-1") && permits("relay-*", "relay-") && permits("*", "a"));
        assert!(permits("*-eu-*", "hub-eu-1") && permits("a*b*c", "aXbYbZc") && permits("a", "a"));
        assert!(!permits("relay-*", "edge-1") && !permits("a", "ab") && !permits("a*b", "abc"));
        assert!(!permits("role:relay", "relay") && !permits("role:relay", "role:relay"));
    }

    #[test]
    fn a_role_is_read_from_the_certificate() {
        let ca = Authority::new("test", 1).unwrap();
        let id: NodeId = "anything".parse().unwrap();
        let rule: RelayRule = "role:relay".parse().unwrap();
        let with = ca.issue_with_roles(&id, ["relay", "other"], 1).unwrap();
        let without = ca.issue_with_roles(&id, ["other"], 1).unwrap();
        let permits = |identity: &crate::Identity| {
            rule.permits(&id, identity.certified().cert.first().map(|der| &der[..]))
        };
        assert!(permits(&with) && !permits(&without) && !permits(&ca.issue(&id, 1).unwrap()));
        assert!(ca.issue_with_roles(&id, ["no role"], 1).is_err());
    }

    #[test]
    fn rules_are_read_and_shown_alike() {
        for text in ["*", "relay-*", "role:relay", "a:b@c"] {
            assert_eq!(text.parse::<RelayRule>().unwrap().to_string(), text);
        }
        for text in ["", "a b", "role:", "role:a b", &"x".repeat(129)] {
            let error = text.parse::<RelayRule>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{:?} is not a ", excerpt(text))), "{error}");
        }
    }
}
