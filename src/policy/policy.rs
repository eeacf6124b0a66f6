//! A policy: rules that were checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{Action, Verb};
use super::error::PolicyError;
use super::index::RuleIndex;
use super::peer::{Common, Decision, PeerPolicy};
use super::rule::{Rule, Who, is_group_name, who};
use super::spec::{DefaultDecision, GroupSpec, PolicySpec, TestSpec, TransitDefault};
use super::subject::Subject;
use crate::id::{Directive, NodeId, ServiceName};

/// Maximum number of rules, and of tests: 10,000 each.
pub const MAX_RULES: usize = 10_000;

/// Who may do what on a node.
///
/// A policy has only rules that allow, so their order does not matter. What no rule allows is
/// decided by its default, which is to deny. A node may always do everything on itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    default: DefaultDecision,
    transit: TransitDefault,
    groups: BTreeMap<String, Vec<Who>>,
    rules: Vec<Rule>,
    lines: Arc<[Option<usize>]>,
    tests: Vec<Test>,
}

/// A test, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Test {
    line: Option<usize>,
    from: Subject,
    on: Option<NodeId>,
    verb: Verb,
    name: String,
    expect_allow: bool,
}

impl Policy {
    /// Checks a policy and runs its tests.
    ///
    /// # Errors
    /// A text is not valid, a group is empty or unknown, there is neither a rule nor a default, or
    /// a test fails.
    pub fn new(spec: &PolicySpec) -> Result<Self, PolicyError> {
        let policy = Self::unproven(spec)?;
        match policy.failures().into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(policy),
        }
    }

    /// Checks a policy. Its tests are not run.
    pub(crate) fn unproven(spec: &PolicySpec) -> Result<Self, PolicyError> {
        if spec.allow.len() > MAX_RULES || spec.tests.len() > MAX_RULES {
            let text = format!("a policy has at most {MAX_RULES} rules and {MAX_RULES} tests");
            return Err(PolicyError::new(None, text));
        }
        let mut groups = BTreeMap::new();
        for GroupSpec { line, name, members } in &spec.groups {
            let fail = |text| PolicyError::new(*line, text);
            if !is_group_name(name) {
                return Err(fail(format!(
                    "{name:?} is not a name of a group: use 1 to 64 ASCII letters, digits and `._-`"
                )));
            }
            if members.is_empty() {
                return Err(fail(format!(
                    "group {name:?} is empty: add members, or remove it and the rules that use it"
                )));
            }
            let members = members.iter().map(|member| who(member, None));
            let members = members.collect::<Result<_, _>>().map_err(fail)?;
            if groups.insert(name.clone(), members).is_some() {
                return Err(fail(format!("there are two groups {name:?}: join them")));
            }
        }
        let rules = spec
            .allow
            .iter()
            .map(|rule| {
                Rule::check(rule, &groups).map_err(|text| PolicyError::new(rule.line, text))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let about_transit = |rule: &&Rule| rule.what.iter().any(|what| what.verb == Verb::Transit);
        if let (TransitDefault::Allow, Some(rule)) =
            (spec.transit, rules.iter().find(about_transit))
        {
            let text = "everybody may carry packets, so the rule allows nothing more: add transit = \"deny\" to the top of the policy, or remove the rule";
            return Err(PolicyError::new(rule.line, text));
        }
        let has_places = rules.iter().any(|rule| !rule.on.is_empty());
        let tests = spec
            .tests
            .iter()
            .map(|test| {
                Test::check(test, has_places).map_err(|text| PolicyError::new(test.line, text))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let lines = rules.iter().map(|rule| rule.line).collect();
        let transit = spec.transit;
        Ok(Self { default: spec.default, transit, groups, rules, lines, tests })
    }

    /// Compiles the policy for a peer of a node. `node` is `None` for a node of which nothing is
    /// known: rules with `on` do not match then.
    #[must_use]
    pub fn compile(&self, subject: &Subject, node: Option<&NodeId>) -> PeerPolicy {
        self.compile_matching(subject, node, &self.matching(subject, node))
    }

    /// The numbers of the rules that match a peer, in order. Peers with the same ones are allowed
    /// the same, but for the node itself.
    pub(crate) fn matching(&self, subject: &Subject, node: Option<&NodeId>) -> Vec<RuleIndex> {
        let rules = (0..).zip(&self.rules);
        rules
            .filter(|(_, rule)| rule.is_on(node) && rule.is_from(subject))
            .map(|(nth, _)| nth)
            .collect()
    }

    /// As [`compile`](Self::compile), for the rules that match.
    pub(crate) fn compile_matching(
        &self,
        subject: &Subject,
        node: Option<&NodeId>,
        matching: &[RuleIndex],
    ) -> PeerPolicy {
        let common = Common {
            default: self.default,
            is_itself: node.is_some_and(|node| node.base() == *subject.id()),
            transit: self.transit,
            lines: self.lines.clone(),
        };
        PeerPolicy::new(common, &self.rules, matching)
    }

    /// Whether a peer of a node may carry packets of others. As [`compile`](Self::compile) and
    /// [`decide`](PeerPolicy::decide), for those who ask nothing else.
    #[cfg(any(test, feature = "node"))]
    pub(crate) fn permits_transit(&self, subject: &Subject, node: &NodeId) -> bool {
        let permits = |rule: &Rule| {
            rule.is_about(&Action::TRANSIT) && rule.is_on(Some(node)) && rule.is_from(subject)
        };
        self.transit == TransitDefault::Allow
            || *subject.id() == node.base()
            || self.rules.iter().any(permits)
    }

    /// The number of rules.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The number of tests.
    #[must_use]
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }

    /// What is decided where no rule matches.
    #[must_use]
    pub fn default_decision(&self) -> DefaultDecision {
        self.default
    }

    /// Whether nodes may carry packets of others where no rule says so.
    #[must_use]
    pub fn transit_default(&self) -> TransitDefault {
        self.transit
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The tests that fail.
    pub(crate) fn failures(&self) -> Vec<PolicyError> {
        let failure = |test: &Test| {
            let action = Action::of(test.verb, &test.name);
            let compiled = self.compile(&test.from, test.on.as_ref());
            let text = match (compiled.decide(&action), test.expect_allow) {
                (Decision::Allowed(_), true) | (Decision::Denied, false) => return None,
                (Decision::Allowed(by), false) => {
                    format!("{} may {action} ({by}); expected: deny", test.from.id())
                }
                (Decision::Denied, true) => {
                    let explained = self.explain(&test.from, &action, test.on.as_ref());
                    format!("{} may not {action}; expected: allow{explained}", test.from.id())
                }
            };
            Some(PolicyError::new(test.line, format!("the test fails: {text}")))
        };
        self.tests.iter().filter_map(failure).collect()
    }
}

impl Test {
    fn check(spec: &TestSpec, has_places: bool) -> Result<Self, String> {
        let from: NodeId = spec.from.parse().map_err(|error| format!("`from`: {error}"))?;
        let on = spec.on.as_ref().map(|on| on.parse()).transpose();
        let on: Option<NodeId> = on.map_err(|error| format!("`on`: {error}"))?;
        if on.is_none() && has_places {
            return Err("rules have `on`: say on which node, such as on = \"edge-1\"".to_owned());
        }
        let directive = |field: &str, text: &String| {
            text.parse::<Directive>().map_err(|error| format!("`{field}`: {error}"))
        };
        let service = |field: &str, text: &String| {
            text.parse::<ServiceName>().map_err(|error| format!("`{field}`: {error}"))
        };
        let mut tried: Vec<(Verb, String)> = Vec::new();
        let mut add = |action: Action<'_>| tried.push((action.verb(), action.name().to_owned()));
        if let Some(open) = &spec.open {
            add(Action::open(&service("open", open)?));
        }
        if let Some(call) = &spec.call {
            add(Action::call(&directive("call", call)?));
        }
        if let Some(submit) = &spec.submit {
            add(Action::submit(&directive("submit", submit)?));
        }
        if spec.manage {
            add(Action::MANAGE);
        }
        if let Some(target) = &spec.forward {
            add(Action::forward(target));
        }
        if let Some(datagram) = &spec.datagram {
            add(Action::datagram(&service("datagram", datagram)?));
        }
        if spec.transit {
            add(Action::TRANSIT);
        }
        match <[_; 1]>::try_from(tried) {
            Ok([(verb, name)]) => Ok(Self {
                line: spec.line,
                from: Subject::new(&from).with_roles(spec.roles.iter().cloned()),
                on,
                verb,
                name,
                expect_allow: spec.expect_allow,
            }),
            Err(_) => Err(format!("a test tries one thing: give one of {TRIED}")),
        }
    }
}

const TRIED: &str = "open, call, submit, manage, forward, datagram, transit";
