//! What one peer is allowed: a policy compiled for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::action::{Action, Verb};
use super::index::{Index, RuleIndex};
use super::rule::Rule;
use super::spec::{DefaultDecision, TransitDefault};

/// A rule of a policy, as logs name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleRef {
    /// Its number, counted from 0.
    pub index: usize,
    /// Its line in the file. `None` if it is from elsewhere.
    pub line: Option<usize>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "rule on line {line}"),
            None => write!(f, "rule {}", self.index + 1),
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Decision {
    /// It is allowed.
    Allowed(AllowedBy),
    /// It is not: no rule allows it.
    Denied,
}

impl Decision {
    /// Whether it is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// Why something is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllowedBy {
    /// This rule allows it: the first one that does.
    Rule(RuleRef),
    /// No rule does, and the default is to allow.
    Default,
    /// It is the node itself, which needs no rule.
    Itself,
    /// The node has no policy.
    NoPolicy,
}

impl fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Default => f.write_str("default"),
            Self::Itself => f.write_str("the node itself"),
            Self::NoPolicy => f.write_str("no policy"),
        }
    }
}

/// What one peer is allowed on one node. A decision takes well below a microsecond, whatever the
/// number of rules.
#[derive(Clone, Debug)]
pub struct PeerPolicy {
    common: Common,
    indexes: BTreeMap<Verb, Index>,
}

/// What a policy says to all peers.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) default: DefaultDecision,
    /// Whether it is the node itself that is judged.
    pub(super) is_itself: bool,
    pub(super) transit: TransitDefault,
    /// The lines of all rules.
    pub(super) lines: Arc<[Option<usize>]>,
}

impl PeerPolicy {
    /// Compiles the rules with these numbers.
    pub(super) fn new(common: Common, rules: &[Rule], matching: &[RuleIndex]) -> Self {
        let mut indexes: BTreeMap<Verb, Index> = BTreeMap::new();
        for nth in matching {
            for what in &rules[*nth as usize].what {
                indexes.entry(what.verb).or_default().add(&what.name, *nth);
            }
        }
        indexes.values_mut().for_each(Index::finish);
        Self { common, indexes }
    }

    /// Decides.
    pub fn decide(&self, action: &Action<'_>) -> Decision {
        if self.common.is_itself {
            return Decision::Allowed(AllowedBy::Itself);
        }
        if action.verb() == Verb::Control {
            return Decision::Denied;
        }
        let found = self.indexes.get(&action.verb()).and_then(|index| index.find(action.name()));
        match found {
            Some(rule) => {
                let index = rule as usize;
                let rule = RuleRef { index, line: self.common.lines[index] };
                Decision::Allowed(AllowedBy::Rule(rule))
            }
            None if self.is_default(action) => Decision::Allowed(AllowedBy::Default),
            None => Decision::Denied,
        }
    }

    /// Whether some action of this kind may be allowed: if not, nobody needs to ask.
    #[must_use]
    pub fn may(&self, verb: Verb) -> bool {
        self.common.is_itself
            || self.is_default(&Action::of(verb, ""))
            || self.indexes.get(&verb).is_some_and(|index| !index.is_empty())
    }

    /// Whether what no rule allows is allowed.
    fn is_default(&self, action: &Action<'_>) -> bool {
        match action.verb() {
            Verb::Transit => self.common.transit == TransitDefault::Allow,
            Verb::Control => false,
            _ => self.common.default == DefaultDecision::Allow,
        }
    }
}
