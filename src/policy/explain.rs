//! Why something is or is not allowed.

use std::fmt;

use super::action::Action;
use super::peer::{Decision, RuleRef};
use super::policy::Policy;
use super::rule::{Rule, What};
use super::subject::Subject;
use crate::id::NodeId;

/// Values of a field that a message lists, at most.
const MAX_LISTED: usize = 5;

/// Why something is or is not allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// If it is denied, the rule that is nearest. `None` if the policy has no rules.
    pub nearest: Option<Nearest>,
}

/// A rule that does not match.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Nearest {
    /// The rule.
    pub rule: RuleRef,
    /// Why it does not match: one text for each field, for people.
    pub why: Vec<String>,
}

impl Policy {
    /// Explains a decision. Takes time in proportion to the number of rules.
    #[must_use]
    pub fn explain(
        &self,
        subject: &Subject,
        action: &Action<'_>,
        node: Option<&NodeId>,
    ) -> Explanation {
        let decision = self.compile(subject, node).decide(action);
        let nearest = match decision {
            Decision::Allowed(_) => None,
            Decision::Denied => self
                .rules()
                .iter()
                .enumerate()
                .map(|(index, rule)| (distance(rule, subject, action, node), index, rule))
                .min_by_key(|(distance, index, _)| (*distance, *index))
                .map(|(_, index, rule)| Nearest {
                    rule: RuleRef { index, line: rule.line },
                    why: misses(rule, subject, action, node),
                }),
        };
        Explanation { decision, nearest }
    }
}

/// How many fields do not match. Among rules with as many, one of the same kind of action is
/// nearer, then one for the same peer.
fn distance(
    rule: &Rule,
    subject: &Subject,
    action: &Action<'_>,
    node: Option<&NodeId>,
) -> (usize, bool, bool) {
    let (from, on, about) = (rule.is_from(subject), rule.is_on(node), rule.is_about(action));
    let misses = [from, on, about].into_iter().filter(|matches| !matches).count();
    let same_verb = rule.what.iter().any(|what| what.verb == action.verb());
    (misses, !same_verb, !from)
}

fn misses(
    rule: &Rule,
    subject: &Subject,
    action: &Action<'_>,
    node: Option<&NodeId>,
) -> Vec<String> {
    let mut why = Vec::new();
    if !rule.is_from(subject) {
        let roles = match subject.roles().len() {
            0 => String::from("no roles"),
            _ => format!("roles {}", list(subject.roles())),
        };
        why.push(format!("{} with {roles} is not from {}", subject.id(), list(&rule.from)));
    }
    if !rule.is_on(node) {
        let node = node.map_or_else(|| String::from("an unknown node"), ToString::to_string);
        why.push(format!("{node} is not one of the nodes on {}", list(&rule.on)));
    }
    if !rule.is_about(action) {
        let same: Vec<_> = rule.what.iter().filter(|what| what.verb == action.verb()).collect();
        match same.len() {
            0 => why.push(format!("it does not allow to {action}, but to {}", list(&rule.what))),
            _ => why.push(format!("{} is not one of {}", action.name(), names(&same))),
        }
    }
    why
}

fn names(what: &[&What]) -> String {
    list(what.iter().map(|what| &what.name))
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Action::of(self.verb, self.name.as_str()).fmt(f)
    }
}

/// The first few of them.
fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let mut text: Vec<_> = items.by_ref().take(MAX_LISTED).map(|item| item.to_string()).collect();
    let others = items.count();
    if others > 0 {
        text.push(format!("{others} others"));
    }
    text.join(", ")
}

/// What follows "denied" or "allowed" in a sentence.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.decision, &self.nearest) {
            (Decision::Allowed(by), _) => write!(f, " by {by}"),
            (Decision::Denied, Some(nearest)) => {
                write!(f, "; the nearest is the {}: {}", nearest.rule, nearest.why.join("; "))
            }
            (Decision::Denied, None) => f.write_str("; the policy has no rules"),
        }
    }
}
