//! `receptor policy`: checks, tests, explains and shows policies.

pub(super) mod args;
pub(super) mod file;
pub(super) mod running;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use args::{ExplainArgs, PolicyCommand, VerbArg};
use file::{PolicyFile, fault, read};

use super::socket::{self, SocketArgs};
use crate::cli::output::text::escape;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::id::{Directive, ServiceName};
use crate::policy::{
    Action, AllowedBy, Decision, DefaultDecision, Explanation, Policy, PolicySpec, RuleRef,
    Subject, TransitDefault,
};

/// Runs `receptor policy`.
pub(super) async fn run(command: PolicyCommand, env: &Env) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check { file } => check(&file),
        PolicyCommand::Test { file } => test(&file),
        PolicyCommand::Explain(args) => explain(args, env).await,
        PolicyCommand::Show(socket) => show(socket, env).await,
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let policy = PolicyFile::load(path)?.policy;
    print(&format!("{}: the policy is valid: {}\n", path.display(), summary(&policy)))
}

fn test(path: &Path) -> Result<(), Failure> {
    let spec = PolicySpec::from_toml(&read(path)?).map_err(|error| fault(path, &error))?;
    let policy = Policy::unproven(&spec).map_err(|error| fault(path, &error))?;
    let failures = policy.failures();
    let (failed, all) = (failures.len(), policy.test_count());
    if failures.is_empty() {
        return print(&format!("{}: {}\n", path.display(), count(all, "test holds", "tests hold")));
    }
    let mut text: Vec<_> = failures.iter().map(|error| fault(path, error).text).collect();
    text.push(format!("{failed} of {} failed", count(all, "test", "tests")));
    Err(Failure::failed(text.join("\n")))
}

async fn show(args: SocketArgs, env: &Env) -> Result<(), Failure> {
    let shown = socket::client(args, env)?.policy().await?;
    let mut text = match &shown.file {
        Some((path, policy)) => format!("# {}\n{policy}", path.display()),
        None => {
            format!("# {} has no policy: everybody whom it trusts may do everything\n", shown.node)
        }
    };
    if let Some(why) = &shown.rejected {
        let _ = writeln!(text, "# the last reload was refused: {why}");
    }
    // A policy is text of the node's user; what it shows cannot steer the terminal.
    let lines: Vec<_> = text.lines().map(escape).collect();
    print(&format!("{}\n", lines.join("\n")))
}

async fn explain(args: ExplainArgs, env: &Env) -> Result<(), Failure> {
    let (path, text, node) = match args.policy {
        Some(path) => {
            let text = read(&path)?;
            (path, text, args.on)
        }
        None => {
            let shown = socket::client(args.socket, env)?.policy().await?;
            let Some((path, text)) = shown.file else {
                let node = shown.node;
                return print(&format!(
                    "allowed: {node} has no policy, so everybody whom it trusts may do everything\n"
                ));
            };
            (path, text, Some(args.on.unwrap_or(shown.node)))
        }
    };
    let policy = Policy::from_toml(&text).map_err(|error| fault(&path, &error))?;
    let subject = Subject::new(&args.from).with_roles(args.role);
    let wanted = Wanted::read(&args.what, args.verb)?;
    let action = wanted.action();
    let explained = policy.explain(&subject, &action, node.as_ref());
    let sentence = |may: &str| match &node {
        Some(node) => format!("{} {may} {action} on {node}", subject.id()),
        None => format!("{} {may} {action}", subject.id()),
    };
    match &explained.decision {
        Decision::Allowed(by) => {
            print(&format!("allowed: {}: {}\n", sentence("may"), because(*by, &path)))
        }
        Decision::Denied => Err(Failure::refused(format!(
            "not allowed: {}: {}",
            sentence("may not"),
            missing(&explained, &path)
        ))),
    }
}

/// Why something is allowed.
fn because(by: AllowedBy, path: &Path) -> String {
    match by {
        AllowedBy::Rule(rule) => format!("by the {}", place(rule, path)),
        by => format!("by {by}"),
    }
}

/// What is missing to a permission.
fn missing(explained: &Explanation, path: &Path) -> String {
    match &explained.nearest {
        Some(nearest) => format!(
            "no rule matches; the nearest is the {}, but {}",
            place(nearest.rule, path),
            nearest.why.join("; ")
        ),
        None => "the policy has no rules".to_owned(),
    }
}

fn place(rule: RuleRef, path: &Path) -> String {
    match rule.line {
        Some(line) => format!("rule in {}, line {line}", path.display()),
        None => rule.to_string(),
    }
}

/// What a node wants to do, read.
enum Wanted {
    Open(ServiceName),
    Call(Directive),
    Submit(Directive),
    Manage,
    Forward(String),
    Datagram(ServiceName),
    Transit,
}

impl Wanted {
    fn read(text: &str, verb: Option<VerbArg>) -> Result<Self, Failure> {
        let verb = verb.unwrap_or_else(|| match text {
            "unit" => VerbArg::Manage,
            "transit" => VerbArg::Transit,
            text if text.contains(':') => VerbArg::Call,
            _ => VerbArg::Open,
        });
        let directive = || text.parse::<Directive>().map_err(Failure::usage);
        let service = || text.parse::<ServiceName>().map_err(Failure::usage);
        Ok(match verb {
            VerbArg::Open => Self::Open(service()?),
            VerbArg::Call => Self::Call(directive()?),
            VerbArg::Submit => Self::Submit(directive()?),
            VerbArg::Manage => Self::Manage,
            VerbArg::Forward => Self::Forward(text.to_owned()),
            VerbArg::Datagram => Self::Datagram(service()?),
            VerbArg::Transit => Self::Transit,
        })
    }

    fn action(&self) -> Action<'_> {
        match self {
            Self::Open(service) => Action::open(service),
            Self::Call(directive) => Action::call(directive),
            Self::Submit(directive) => Action::submit(directive),
            Self::Manage => Action::MANAGE,
            Self::Forward(target) => Action::forward(target),
            Self::Datagram(service) => Action::datagram(service),
            Self::Transit => Action::TRANSIT,
        }
    }
}

fn summary(policy: &Policy) -> String {
    let mut text = format!(
        "{}, {}",
        count(policy.rule_count(), "rule", "rules"),
        count(policy.test_count(), "test holds", "tests hold")
    );
    if policy.default_decision() == DefaultDecision::Allow {
        text += "; what no rule allows is allowed";
    }
    if policy.transit_default() == TransitDefault::Deny {
        text += "; only those carry packets whom a rule names";
    }
    text
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
}
