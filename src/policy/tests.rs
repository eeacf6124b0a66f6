//! Policies as a whole.

use std::collections::BTreeSet;

use super::*;
use crate::id::NodeId;

/// SplitMix64, as everywhere in tests; the build without features has no other.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub(super) fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn some(&mut self, of: &[&str], max: usize) -> Vec<String> {
        (0..=self.below(max)).map(|_| (*self.choice(of)).to_owned()).collect()
    }
}

const NODES: [&str; 6] = ["ctl-1", "ctl-2", "edge-1", "edge-2", "ops", "x"];
const ROLES: [&str; 3] = ["controller", "monitor", "m"];
const DIRECTIVES: [&str; 4] = ["ansible:run", "ansible:ping", "deploy:run", "receptor:ping"];
const SERVICES: [&str; 4] = ["echo", "logs", "logs-1", "work"];
const TARGETS: [&str; 2] = ["tcp:127.0.0.1:22", "tcp:[::1]:22"];

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// Every action of the names above.
fn actions<T>(mut each: impl FnMut(Action<'_>) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for directive in DIRECTIVES.map(|text| text.parse().unwrap()) {
        all.push(each(Action::call(&directive)));
        all.push(each(Action::submit(&directive)));
    }
    for service in SERVICES.map(|text| text.parse().unwrap()) {
        all.push(each(Action::open(&service)));
        all.push(each(Action::datagram(&service)));
    }
    all.extend(TARGETS.map(|target| each(Action::forward(target))));
    all.extend([Action::FOLLOW, Action::MANAGE, Action::TRANSIT, Action::CONTROL].map(each));
    all
}

/// Some subjects: each node with no roles, and with each role.
fn subjects() -> Vec<Subject> {
    let plain = NODES.map(|node| Subject::new(&id(node)));
    let roles = plain.iter().flat_map(|node| ROLES.map(|role| node.clone().with_roles([role])));
    plain.iter().cloned().chain(roles).collect()
}

/// Whether each action is allowed.
fn decisions(policy: &Policy, subject: &Subject, node: Option<&NodeId>) -> Vec<bool> {
    let compiled = policy.compile(subject, node);
    actions(|action| compiled.decide(&action).is_allowed())
}

fn random_rule(random: &mut Random, groups: &[&str], transit: bool) -> RuleSpec {
    let from = ["ctl-*", "edge-?", "ops", "*", "role:controller", "role:m*", "ctl-1"];
    let mut from = random.some(&from, 3);
    if !groups.is_empty() && random.below(2) == 0 {
        from.push(format!("group:{}", random.choice(groups)));
    }
    let mut rule = RuleSpec { from, ..RuleSpec::default() };
    if random.below(4) == 0 {
        rule.on = random.some(&["edge-*", "x"], 2);
    }
    match random.below(8) {
        0 => {
            rule.to = vec!["work".into()];
            rule.directives = Some(random.some(&["ansible:*", "deploy:run", "*:run", "*"], 2));
        }
        1 => {
            rule.to = vec!["unit".into()];
            rule.verbs = Some(vec!["submit".into(), "manage".into()]);
            rule.directives = Some(random.some(&["ansible:*", "deploy:run"], 2));
        }
        2 => {
            rule.to = vec!["node".into()];
            rule.verbs = Some(random.some(&["ping", "route"], 2));
        }
        3 => {
            rule.to = vec!["forward".into()];
            rule.targets = Some(random.some(&["tcp:127.0.0.1:*", "tcp:*:22", "*"], 2));
        }
        4 if transit => rule.to = vec!["transit".into()],
        5 => rule.to = random.some(&["datagram:logs*", "datagram:echo"], 2),
        6 => rule.to = random.some(&["echo", "logs*", "*s", "*"], 2),
        _ => rule.to = vec!["logs-?".into()],
    }
    rule
}

fn random_spec(random: &mut Random) -> PolicySpec {
    let mut spec = PolicySpec::default();
    if random.below(10) == 0 {
        spec.default = DefaultDecision::Allow;
    }
    let transit = random.below(2) == 0;
    if transit {
        spec.transit = TransitDefault::Deny;
    }
    for group in ["a", "b"] {
        let members = random.some(&["ctl-1", "edge-2", "role:monitor", "o*"], 3);
        spec.groups.push(GroupSpec { name: group.to_owned(), members, line: None });
    }
    spec.allow = (0..random.below(8)).map(|_| random_rule(random, &["a", "b"], transit)).collect();
    spec
}

/// Decides as the documentation says, rule by rule.
fn naive(policy: &Policy, subject: &Subject, node: Option<&NodeId>) -> Vec<bool> {
    actions(|action| {
        let itself = node.is_some_and(|node| node == subject.id());
        let by_rule = policy
            .rules()
            .iter()
            .any(|rule| rule.is_from(subject) && rule.is_on(node) && rule.is_about(&action));
        let by_default = match action.verb() {
            Verb::Transit => policy.transit_default() == TransitDefault::Allow,
            Verb::Control => false,
            _ => policy.default_decision() == DefaultDecision::Allow,
        };
        itself || by_rule || by_default
    })
}

#[test]
fn a_compiled_policy_decides_as_its_rules_one_by_one() {
    for seed in 0..500 {
        let policy = Policy::new(&random_spec(&mut Random::new(seed))).unwrap();
        for subject in subjects() {
            for node in [None, Some(&id("edge-1")), Some(&id("ops"))] {
                if let Some(node) = node {
                    let decided = policy.compile(&subject, Some(node)).decide(&Action::TRANSIT);
                    assert_eq!(policy.permits_transit(&subject, node), decided.is_allowed());
                }
                let decided = decisions(&policy, &subject, node);
                assert_eq!(decided, naive(&policy, &subject, node), "seed {seed}: {subject:?}");
            }
        }
    }
}

#[test]
fn removing_a_rule_never_allows_more() {
    for seed in 0..500 {
        let spec = random_spec(&mut Random::new(seed));
        let whole = Policy::new(&spec).unwrap();
        for left_out in 0..spec.allow.len() {
            let mut less = spec.clone();
            less.allow.remove(left_out);
            let less = Policy::new(&less).unwrap();
            for subject in subjects() {
                for node in [None, Some(&id("edge-1"))] {
                    let pairs = decisions(&less, &subject, node);
                    let mut pairs = pairs.into_iter().zip(decisions(&whole, &subject, node));
                    let holds = pairs.all(|(less, whole)| whole || !less);
                    assert!(holds, "seed {seed}, without rule {left_out}: {subject:?}");
                }
            }
        }
    }
}

#[test]
fn a_new_member_of_a_group_changes_decisions_for_that_member_only() {
    let mut changed = 0;
    for seed in 0..500 {
        let mut spec = random_spec(&mut Random::new(seed));
        let before = Policy::new(&spec).unwrap();
        spec.groups[0].members.push("x".to_owned());
        let after = Policy::new(&spec).unwrap();
        for subject in subjects() {
            let before = decisions(&before, &subject, None);
            let after = decisions(&after, &subject, None);
            if *subject.id() == id("x") {
                changed += usize::from(before != after);
                assert!(before.iter().zip(&after).all(|(before, after)| *after || !before));
            } else {
                assert_eq!(before, after, "seed {seed}: {subject:?}");
            }
        }
    }
    assert!(changed > 100, "{changed}");
}

#[test]
fn the_order_of_rules_does_not_matter() {
    for seed in 0..200 {
        let mut spec = random_spec(&mut Random::new(seed));
        let before = Policy::new(&spec).unwrap();
        spec.allow.reverse();
        let after = Policy::new(&spec).unwrap();
        for subject in subjects() {
            let same = decisions(&before, &subject, None) == decisions(&after, &subject, None);
            assert!(same, "seed {seed}: {subject:?}");
        }
    }
}

#[test]
fn an_explanation_names_the_rule_or_what_is_missing() {
    for seed in 0..200 {
        let policy = Policy::new(&random_spec(&mut Random::new(seed))).unwrap();
        for subject in subjects() {
            let compiled = policy.compile(&subject, None);
            actions(|action| {
                let explained = policy.explain(&subject, &action, None);
                assert_eq!(explained.decision, compiled.decide(&action));
                let nearest = explained.nearest.as_ref();
                assert_eq!(
                    nearest.is_some(),
                    explained.decision == Decision::Denied && policy.rule_count() > 0
                );
                assert!(nearest.is_none_or(|nearest| !nearest.why.is_empty()), "seed {seed}");
            });
        }
    }
}

#[test]
fn a_decision_is_quick_with_a_thousand_rules() {
    // All match the peer, and each has a pattern of its own.
    let pattern = |nth: usize| match nth % 3 {
        0 => format!("app-{nth}"),
        1 => format!("app-{nth}-*"),
        _ => format!("*-{nth}-app"),
    };
    let rule = |nth: usize| RuleSpec {
        from: vec!["*".to_owned()],
        to: vec![pattern(nth)],
        ..RuleSpec::default()
    };
    let spec = PolicySpec { allow: (0..1_000).map(rule).collect(), ..PolicySpec::default() };
    let policy = Policy::new(&spec).unwrap();
    let compiled = policy.compile(&Subject::new(&id("x")), None);
    let names: BTreeSet<String> = (0..1_100)
        .flat_map(|nth| [format!("app-{nth}"), format!("app-{nth}-y"), format!("y-{nth}-app")])
        .collect();
    let allowed = names
        .iter()
        .filter(|name| {
            let service = name.parse().unwrap();
            compiled.decide(&Action::open(&service)).is_allowed()
        })
        .count();
    assert_eq!(allowed, 334 + 333 + 333);
}

#[cfg(feature = "policy")]
mod toml {
    use super::*;

    const GOOD: &str = r#"default = "deny"
transit = "deny"

[groups]
controllers = ["ctl-*", "cert:role=controller"]

[[allow]]
from = ["controllers"]
to = "work"
directives = ["ansible:*"]

[[allow]]
from = ["role:monitor", "group:controllers"]
to = "node"
verbs = ["ping"]

[[test]]
from = "ctl-1"
call = "ansible:run"
expect = "allow"

[[test]]
from = "edge-3"
call = "ansible:run"
expect = "deny"

[[test]]
from = "edge-3"
roles = ["monitor"]
call = "receptor:ping"
expect = "allow"
"#;

    fn error(text: &str) -> String {
        Policy::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn a_policy_is_read_and_its_tests_hold() {
        let policy = Policy::from_toml(GOOD).unwrap();
        assert_eq!((policy.rule_count(), policy.test_count()), (2, 3));
        let run = "ansible:run".parse().unwrap();
        let controller = Subject::new(&id("nobody")).with_roles(["controller"]);
        let decided = policy.compile(&controller, None).decide(&Action::call(&run));
        let rule = RuleRef { index: 0, line: Some(7) };
        assert_eq!(decided, Decision::Allowed(AllowedBy::Rule(rule)));
        let edge = policy.explain(&Subject::new(&id("edge-1")), &Action::call(&run), None);
        assert_eq!(
            edge.to_string(),
            "; the nearest is the rule on line 7: edge-1 with no roles is not from group:controllers"
        );
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_to_do() {
        for (from, to, expected) in [
            ("to = \"work\"", "too = \"work\"", "line 9: unknown field `too`"),
            ("[\"ansible:*\"]", "[]", "line 7: `to = \"work\"` needs `directives`"),
            ("directives = [\"ansible:*\"]", "", "needs `directives`; for all of them"),
            ("\"ctl-*\", \"cert:role=controller\"", "", "line 5: group \"controllers\" is empty"),
            ("group:controllers", "group:control", "line 12: \"group:control\": there is no such"),
            ("verbs = [\"ping\"]", "verbs = [\"pong\"]", "line 12: \"pong\" is no verb of `node`"),
            ("default = \"deny\"", "default = \"no\"", "line 1: unknown variant `no`"),
            ("\"ansible:*\"", "\"receptor:ping\"", "line 7: \"receptor:ping\" is built in"),
            ("\"ansible:*\"", "\"ansible\"", "line 7: \"ansible\" is not a pattern of directives"),
            ("to = \"work\"", "to = \"echo\"", "line 7: `directives` does not belong to"),
            ("[\"controllers\"]", "[\"a b\"]", "line 7: \"a b\" is not a pattern of node ids"),
            ("from = \"ctl-1\"", "", "line 17: missing field `from`"),
            ("expect = \"deny\"", "expect = \"allow\"", "line 22: the test fails: edge-3 may not"),
        ] {
            assert!(GOOD.contains(from));
            let error = error(&GOOD.replacen(from, to, 1));
            assert!(error.starts_with("line ") && error.contains(expected), "{from}: {error}");
        }
        let transit = GOOD.replacen("transit = \"deny\"", "", 1);
        let transit = transit.replacen("to = \"work\"", "to = \"transit\"", 1);
        let transit = transit.replacen("directives = [\"ansible:*\"]", "", 1);
        assert!(error(&transit).contains("add transit = \"deny\""));
        assert!(error("").starts_with("line 1: a policy without rules"));
    }

    #[test]
    fn a_policy_that_is_cut_off_never_allows_more() {
        let whole = Policy::from_toml(GOOD).unwrap();
        for len in 0..GOOD.len() {
            let Ok(cut) = Policy::from_toml(&GOOD[..len]) else { continue };
            for subject in subjects() {
                let pairs = decisions(&cut, &subject, None);
                let pairs = pairs.into_iter().zip(decisions(&whole, &subject, None));
                assert!(pairs.into_iter().all(|(cut, whole)| whole || !cut), "{len} bytes");
            }
        }
    }

    #[test]
    fn tests_say_on_which_node_where_rules_do() {
        let text = GOOD.replacen("to = \"work\"", "to = \"work\"\non = \"edge-*\"", 1);
        assert!(error(&text).contains("rules have `on`: say on which node"));
        let text = text.replace("expect =", "on = \"edge-1\"\nexpect =");
        let policy = Policy::from_toml(&text).unwrap();
        let run = "ansible:run".parse().unwrap();
        let on = |node: &str| {
            let compiled = policy.compile(&Subject::new(&id("ctl-1")), Some(&id(node)));
            compiled.decide(&Action::call(&run)).is_allowed()
        };
        assert!(on("edge-1") && !on("relay-1") && on("ctl-1"), "the last is the node itself");
    }

    /// A policy as a file has it.
    fn written(spec: &PolicySpec) -> String {
        let mut text = String::new();
        let mut line = |line: String| text += &(line + "\n");
        match spec.default {
            DefaultDecision::Deny => line("default = \"deny\"".to_owned()),
            DefaultDecision::Allow => line("default = \"allow\"".to_owned()),
        }
        if spec.transit == TransitDefault::Deny {
            line("transit = \"deny\"".to_owned());
        }
        line("[groups]".to_owned());
        for group in &spec.groups {
            line(format!("{} = {:?}", group.name, group.members));
        }
        for rule in &spec.allow {
            line("[[allow]]".to_owned());
            line(format!("from = {:?}", rule.from));
            if !rule.on.is_empty() {
                line(format!("on = {:?}", rule.on));
            }
            line(format!("to = {:?}", rule.to));
            let fields = [
                ("directives", &rule.directives),
                ("verbs", &rule.verbs),
                ("targets", &rule.targets),
            ];
            for (field, values) in fields {
                if let Some(values) = values {
                    line(format!("{field} = {values:?}"));
                }
            }
        }
        text
    }

    /// A file, with mistakes.
    fn generated(random: &mut Random) -> String {
        const PIECES: [&str; 12] = [
            "[[test]]\nfrom = \"ctl-1\"\ncall = \"ansible:run\"\nexpect = \"allow\"",
            "[[test]]\nfrom = \"x\"\nmanage = true\nexpect = \"deny\"",
            "open = \"x\"",
            "a = []",
            "[allow]",
            "from = \"\"",
            "to = [\"datagram:\"]",
            "to = \"unit\"",
            "verbs = 7",
            "directives = \"\u{e4}:*\"",
            "\"",
            "= [",
        ];
        let text = written(&random_spec(random));
        let mut lines: Vec<&str> = text.lines().collect();
        for _ in 0..random.below(4) {
            let at = random.below(lines.len());
            match random.below(3) {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[random.below(lines.len())]),
                _ => {
                    let piece: &str = PIECES[random.below(PIECES.len())];
                    lines.insert(at, piece);
                }
            }
        }
        let mut text = lines.join("\n");
        if random.below(4) == 0 {
            let mut at = random.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.truncate(at);
        }
        text
    }

    #[test]
    fn generated_files_are_read_or_refused() {
        let count = std::env::var("RECEPTOR_POLICIES").ok().and_then(|count| count.parse().ok());
        let mut read = 0;
        for seed in 0..count.unwrap_or(20_000) {
            let text = generated(&mut Random::new(seed));
            match Policy::from_toml(&text) {
                Ok(policy) => {
                    read += 1;
                    let subject = Subject::new(&id("x"));
                    assert_eq!(decisions(&policy, &subject, None), naive(&policy, &subject, None));
                }
                Err(error) => {
                    let lines = text.lines().count().max(1) + 1;
                    assert!(error.line().is_some_and(|line| line <= lines), "seed {seed}: {error}");
                    assert!(!error.message().is_empty(), "seed {seed}");
                }
            }
        }
        assert!(read > 1_000, "{read} are policies");
    }
}
