//! A rule that allows, checked.

use std::collections::BTreeMap;
use std::fmt;

use super::action::{Action, Verb};
use super::glob::Glob;
use super::spec::RuleSpec;
use super::subject::Subject;
use crate::id::{Directive, NodeId, ServiceName};

/// Longest name of a role or a group, in bytes.
const MAX_NAME: usize = 64;
/// Longest target of a forward, in bytes.
const MAX_TARGET: usize = 256;

/// A rule that allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) line: Option<usize>,
    pub(super) from: Vec<Who>,
    /// Empty: on all nodes.
    pub(super) on: Vec<Glob>,
    pub(super) what: Vec<What>,
}

/// Who is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Id(Glob),
    Role(Glob),
    /// The name, and the members.
    Group(String, Vec<Self>),
}

/// What is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct What {
    pub(super) verb: Verb,
    pub(super) name: Glob,
}

impl Who {
    pub(super) fn matches(&self, subject: &Subject) -> bool {
        match self {
            Self::Id(glob) => glob.matches(subject.id().as_str()),
            Self::Role(glob) => subject.roles().iter().any(|role| glob.matches(role)),
            Self::Group(_, members) => members.iter().any(|member| member.matches(subject)),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(glob) => write!(f, "{glob}"),
            Self::Role(glob) => write!(f, "role:{glob}"),
            Self::Group(name, _) => write!(f, "group:{name}"),
        }
    }
}

impl Rule {
    /// Checks a rule.
    pub(super) fn check(
        spec: &RuleSpec,
        groups: &BTreeMap<String, Vec<Who>>,
    ) -> Result<Self, String> {
        let from: Vec<_> =
            spec.from.iter().map(|text| who(text, Some(groups))).collect::<Result<_, _>>()?;
        if from.is_empty() {
            return Err("`from` is empty: name who is allowed, such as from = [\"ctl-*\"]".into());
        }
        let on = spec.on.iter().map(|text| id_glob(text)).collect::<Result<_, _>>()?;
        if spec.to.is_empty() {
            return Err("`to` is empty: name what is allowed, such as to = \"work\"".into());
        }
        let mut what = Vec::new();
        for to in &spec.to {
            what.extend(targets_of(to, spec)?);
        }
        Ok(Self { line: spec.line, from, on, what })
    }

    pub(super) fn is_from(&self, subject: &Subject) -> bool {
        self.from.iter().any(|who| who.matches(subject))
    }

    pub(super) fn is_on(&self, node: Option<&NodeId>) -> bool {
        self.on.is_empty()
            || node.is_some_and(|node| self.on.iter().any(|glob| glob.matches(node.as_str())))
    }

    pub(super) fn is_about(&self, action: &Action<'_>) -> bool {
        self.what.iter().any(|what| what.verb == action.verb() && what.name.matches(action.name()))
    }
}

/// Reads who is meant; `groups` is `None` within a group.
pub(super) fn who(text: &str, groups: Option<&BTreeMap<String, Vec<Who>>>) -> Result<Who, String> {
    if let Some(name) = text.strip_prefix("group:") {
        let Some(groups) = groups else {
            return Err(format!("{text:?}: a group has no groups; list the members of {name:?}"));
        };
        let Some(members) = groups.get(name) else {
            return Err(format!("{text:?}: there is no such group; define it in [groups]"));
        };
        return Ok(Who::Group(name.to_owned(), members.clone()));
    }
    if let Some(role) = text.strip_prefix("role:").or_else(|| text.strip_prefix("cert:role=")) {
        return Glob::parse(role, MAX_NAME, is_of_name).map(Who::Role).ok_or_else(|| {
            format!("{text:?} is not a role: use `role:` and ASCII letters, digits and `._-*?`")
        });
    }
    if let Some(members) = groups.and_then(|groups| groups.get(text)) {
        return Ok(Who::Group(text.to_owned(), members.clone()));
    }
    Ok(Who::Id(id_glob(text)?))
}

/// Whether a text may name a group.
pub(super) fn is_group_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_of_name)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn is_of_id(byte: u8) -> bool {
    is_of_name(byte) || b":@".contains(&byte)
}

fn id_glob(text: &str) -> Result<Glob, String> {
    Glob::parse(text, NodeId::MAX_LEN, is_of_id).ok_or_else(|| {
        format!("{text:?} is not a pattern of node ids: use ASCII letters, digits and `._-:@*?`")
    })
}

/// What one entry of `to` allows, with the fields that belong to it.
fn targets_of(to: &str, spec: &RuleSpec) -> Result<Vec<What>, String> {
    let of = Fields { to, spec };
    let all = |verb| What { verb, name: Glob::any() };
    match to {
        "*" => {
            of.only(&[])?;
            let verbs = Verb::ALL.into_iter();
            Ok(verbs
                .filter(|verb| !matches!(verb, Verb::Transit | Verb::Control))
                .map(all)
                .collect())
        }
        "work" => {
            of.only(&["directives"])?;
            of.directives(Verb::Call, of.needed("directives", spec.directives.as_ref())?)
        }
        "unit" => {
            of.only(&["directives", "verbs"])?;
            let verbs = of.needed("verbs", spec.verbs.as_ref())?;
            let mut what = vec![all(Verb::Follow)];
            for verb in verbs {
                match verb.as_str() {
                    "submit" => {
                        let some = of.needed("directives", spec.directives.as_ref())?;
                        what.extend(of.directives(Verb::Submit, some)?);
                    }
                    "manage" => what.push(all(Verb::Manage)),
                    other => return Err(bad_verb(other, to, "submit, manage")),
                }
            }
            if spec.directives.is_some() && !verbs.iter().any(|verb| verb == "submit") {
                return Err("`directives` belongs to the verb submit of `unit`".to_owned());
            }
            Ok(what)
        }
        "node" => {
            of.only(&["verbs"])?;
            let verb = |verb: &String| match verb.as_str() {
                "ping" | "route" | "*" => Glob::parse(verb, MAX_NAME, is_of_name)
                    .map(|name| What { verb: Verb::BuiltIn, name })
                    .ok_or_else(|| bad_verb(verb, to, "ping, route, *")),
                other => Err(bad_verb(other, to, "ping, route, *")),
            };
            of.needed("verbs", spec.verbs.as_ref())?.iter().map(verb).collect()
        }
        "forward" => {
            of.only(&["targets"])?;
            let target = |text: &String| {
                Glob::parse(text, MAX_TARGET, |byte| byte.is_ascii_graphic())
                    .map(|name| What { verb: Verb::Forward, name })
                    .ok_or_else(|| {
                        format!(
                            "{text:?} is not a pattern of targets, such as \"tcp:127.0.0.1:22\""
                        )
                    })
            };
            of.needed("targets", spec.targets.as_ref())?.iter().map(target).collect()
        }
        "transit" => {
            of.only(&[])?;
            Ok(vec![all(Verb::Transit)])
        }
        _ => {
            of.only(&[])?;
            let (verb, text) = match to.strip_prefix("datagram:") {
                Some(service) => (Verb::Datagram, service),
                None => (Verb::Open, to),
            };
            let name = Glob::parse(text, ServiceName::MAX_LEN, is_of_id).ok_or_else(|| {
                format!(
                    "{to:?} is not a pattern of services: use ASCII letters, digits and `._-:@*?`"
                )
            })?;
            Ok(vec![What { verb, name }])
        }
    }
}

fn bad_verb(verb: &str, to: &str, allowed: &str) -> String {
    format!("{verb:?} is no verb of `{to}`: use {allowed}")
}

/// The fields of a rule that say what of an entry of `to` is allowed.
struct Fields<'a> {
    to: &'a str,
    spec: &'a RuleSpec,
}

impl Fields<'_> {
    /// Refuses fields that mean nothing here: ignored, they would look like a restriction.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let given = [
            ("directives", self.spec.directives.is_some()),
            ("verbs", self.spec.verbs.is_some()),
            ("targets", self.spec.targets.is_some()),
        ];
        for (field, given) in given {
            if given && !known.contains(&field) {
                return Err(format!(
                    "`{field}` does not belong to `to = {:?}`: give it a rule of its own",
                    self.to
                ));
            }
        }
        Ok(())
    }

    /// A field without which the rule would allow more than its author may have meant, as a file
    /// that is cut off does.
    fn needed<'b>(
        &self,
        field: &str,
        values: Option<&'b Vec<String>>,
    ) -> Result<&'b Vec<String>, String> {
        match values {
            Some(values) if !values.is_empty() => Ok(values),
            _ => Err(format!(
                "`to = {:?}` needs `{field}`; for all of them: {field} = {}",
                self.to,
                match (self.to, field) {
                    ("unit", "verbs") => "[\"submit\", \"manage\"]",
                    _ => "[\"*\"]",
                }
            )),
        }
    }

    fn directives(&self, verb: Verb, patterns: &[String]) -> Result<Vec<What>, String> {
        let max = 2 * Directive::MAX_PART + 1;
        let directive = |text: &String| {
            if text.starts_with("receptor:") {
                return Err(format!(
                    "{text:?} is built in: allow it by `to = \"node\"` and `verbs`, such as verbs = [\"ping\"]"
                ));
            }
            let glob = Glob::parse(text, max, |byte| is_of_name(byte) || byte == b':');
            let glob = glob.filter(|glob| glob.is_any() || text.contains(':'));
            glob.map(|name| What { verb, name }).ok_or_else(|| {
                format!("{text:?} is not a pattern of directives, such as \"ansible:*\"")
            })
        };
        patterns.iter().map(directive).collect()
    }
}
