//! Policies as TOML.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::error::PolicyError;
use super::policy::Policy;
use super::spec::{DefaultDecision, GroupSpec, PolicySpec, RuleSpec, TestSpec, TransitDefault};

/// Maximum length of a policy in bytes: 1 MiB.
pub const MAX_POLICY: usize = 1024 * 1024;

impl Policy {
    /// Reads a policy from TOML, and runs its tests.
    ///
    /// ```
    /// # fn main() -> Result<(), receptor_quic::policy::PolicyError> {
    /// use receptor_quic::policy::{Action, Policy, Subject};
    ///
    /// let policy = Policy::from_toml(
    ///     r#"
    ///     [groups]
    ///     controllers = ["ctl-*", "role:controller"]
    ///
    ///     [[allow]]
    ///     from = ["group:controllers"]
    ///     to = "work"
    ///     directives = ["ansible:*"]
    ///
    ///     [[test]]
    ///     from = "ctl-1"
    ///     call = "ansible:run"
    ///     expect = "allow"
    ///     "#,
    /// )?;
    /// let edge = Subject::new(&"edge-3".parse().expect("it is an id"));
    /// let run = "ansible:run".parse().expect("it is a directive");
    /// assert!(!policy.compile(&edge, None).decide(&Action::call(&run)).is_allowed());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new), each with the line; or it is no TOML, has an unknown key, or is longer
    /// than 1 MiB.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Self::new(&PolicySpec::from_toml(text)?)
    }
}

impl PolicySpec {
    /// Reads a policy from TOML. Nothing but the syntax, keys and types is checked.
    ///
    /// # Errors
    /// It is no TOML, has an unknown key, says nothing, or is longer than 1 MiB.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            let len = text.len();
            return Err(PolicyError::new(
                None,
                format!("{len} bytes; a policy has at most {MAX_POLICY}"),
            ));
        }
        let lines = Lines::of(text);
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.at(span.start));
            PolicyError::new(Some(line), error.message().trim_end())
        })?;
        // One that says only what its defaults are may be the beginning of a longer one.
        if raw.allow.is_empty() && raw.test.is_empty() {
            return Err(PolicyError::new(
                Some(1),
                "a policy without rules and tests: add [[allow]], or if nothing is to be allowed, a [[test]] that says so",
            ));
        }
        let mut spec = Self {
            default: match raw.default {
                Some(RawDecision::Allow) => DefaultDecision::Allow,
                Some(RawDecision::Deny) | None => DefaultDecision::Deny,
            },
            transit: match raw.transit {
                Some(RawDecision::Deny) => TransitDefault::Deny,
                Some(RawDecision::Allow) | None => TransitDefault::Allow,
            },
            ..Self::default()
        };
        let group = |(name, members): (String, Spanned<Texts>)| GroupSpec {
            line: Some(lines.at(members.span().start)),
            name,
            members: members.into_inner().0,
        };
        spec.groups = raw.groups.into_iter().map(group).collect();
        spec.allow = raw.allow.into_iter().map(|raw| rule(raw, &lines)).collect();
        spec.tests = raw.test.into_iter().map(|raw| test(raw, &lines)).collect();
        Ok(spec)
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(at, _)| at + 1).collect())
    }

    /// The line of an offset, counted from 1, as editors do.
    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|begin| *begin <= offset)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    default: Option<RawDecision>,
    transit: Option<RawDecision>,
    #[serde(default)]
    groups: BTreeMap<String, Spanned<Texts>>,
    #[serde(default)]
    allow: Vec<Spanned<RawRule>>,
    #[serde(default)]
    test: Vec<Spanned<RawTest>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawDecision {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    from: Texts,
    on: Option<Texts>,
    to: Texts,
    directives: Option<Texts>,
    verbs: Option<Texts>,
    targets: Option<Texts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    from: String,
    roles: Option<Texts>,
    on: Option<String>,
    open: Option<String>,
    call: Option<String>,
    submit: Option<String>,
    #[serde(default)]
    manage: bool,
    forward: Option<String>,
    datagram: Option<String>,
    #[serde(default)]
    transit: bool,
    expect: RawDecision,
}

/// One text, or a list of texts.
#[derive(Deserialize)]
#[serde(from = "OneOrMany")]
struct Texts(Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Texts {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => Self(vec![text]),
            OneOrMany::Many(texts) => Self(texts),
        }
    }
}

fn listed(texts: Option<Texts>) -> Option<Vec<String>> {
    texts.map(|texts| texts.0)
}

fn rule(raw: Spanned<RawRule>, lines: &Lines) -> RuleSpec {
    let line = Some(lines.at(raw.span().start));
    let raw = raw.into_inner();
    RuleSpec {
        line,
        from: raw.from.0,
        on: listed(raw.on).unwrap_or_default(),
        to: raw.to.0,
        directives: listed(raw.directives),
        verbs: listed(raw.verbs),
        targets: listed(raw.targets),
    }
}

fn test(raw: Spanned<RawTest>, lines: &Lines) -> TestSpec {
    let line = Some(lines.at(raw.span().start));
    let raw = raw.into_inner();
    TestSpec {
        line,
        from: raw.from,
        roles: listed(raw.roles).unwrap_or_default(),
        on: raw.on,
        open: raw.open,
        call: raw.call,
        submit: raw.submit,
        manage: raw.manage,
        forward: raw.forward,
        datagram: raw.datagram,
        transit: raw.transit,
        expect_allow: matches!(raw.expect, RawDecision::Allow),
    }
}
