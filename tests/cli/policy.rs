//! Who may do what, with real processes: refusals, reloads, and what the commands say.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{World, until};

const POLICY: &str = "\
[[allow]]
from = \"a\"
to = \"work\"
directives = \"text:*\"

[[test]]
from = \"a\"
call = \"text:upper\"
expect = \"allow\"
";

#[test]
fn a_policy_is_checked_tested_and_explained() {
    let world = World::empty();
    world.write("p.toml", POLICY);
    let said = world.run(&["policy", "check", "p.toml"]).ok();
    assert_eq!(said, "p.toml: the policy is valid: 1 rule, 1 test holds\n");
    assert_eq!(world.run(&["policy", "test", "p.toml"]).ok(), "p.toml: 1 test holds\n");
    let explain = |from: &str, what: &str| {
        world.run(&["policy", "explain", from, what, "--policy", "p.toml", "--on", "b"])
    };
    let said = explain("a", "text:upper").ok();
    assert_eq!(said, "allowed: a may call text:upper on b: by the rule in p.toml, line 1\n");
    let said = explain("x", "text:upper").failed(4);
    assert!(
        said.contains("the nearest is the rule in p.toml, line 1, but x with no roles"),
        "{said}"
    );
    let said = explain("a", "receptor:ping").failed(4);
    assert!(said.contains("does not allow to call receptor:ping"), "{said}");
    assert!(explain("b", "anything").ok().contains("by the node itself"));

    world.write("bad.toml", &POLICY.replace("\"allow\"", "\"deny\""));
    let said = world.run(&["policy", "check", "bad.toml"]).failed(2);
    assert!(said.contains("bad.toml, line 6: the test fails: a may call text:upper"), "{said}");
    let said = world.run(&["policy", "test", "bad.toml"]).failed(1);
    assert!(said.contains("bad.toml, line 6: ") && said.contains("1 of 1 test failed"), "{said}");
    for (mistake, expected) in [
        (POLICY.replace("to =", "too ="), "bad.toml, line 3: unknown field"),
        (format!("{POLICY}[groups]\ng = []\n"), "bad.toml, line 11: group \"g\" is empty"),
        (POLICY.trim_end().to_owned(), "bad.toml, line 9: the last line does not end"),
        (POLICY[..40].to_owned(), "bad.toml, line 4: "),
    ] {
        world.write("bad.toml", &mistake);
        let said = world.run(&["policy", "check", "bad.toml"]).failed(2);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_policy_is_in_force_and_reloaded_and_a_faulty_one_changes_nothing() {
    let world = World::of(&["a", "b"]);
    world.write("p.toml", POLICY);
    world.write(
        "b.toml",
        "policy = \"p.toml\"\n[command]\n\"text:upper\" = \"tr a-z A-Z\"\n\"text:wait\" = \"sh -c 'echo ready; sleep 600'\"\n",
    );
    let b = world.node("b", &["--config", "b.toml", "--control", "b.sock"]);
    let peer = format!("b@{}", b.addr());
    let _a = world.node("a", &["--peer", &peer, "--control", "a.sock"]);
    let on_a = |args: &[&str]| world.run(&[args, &["--control", "a.sock"]].concat());
    let on_b = |args: &[&str]| world.run(&[args, &["--control", "b.sock"]].concat());
    let said = until("a calls b", || {
        let done = on_a(&["send", "b", "text:upper", "hello"]);
        (done.code != Some(3)).then_some(done)
    });
    assert_eq!(said.ok(), "HELLO");
    let said = on_a(&["ping", "b", "--count", "1"]).failed(4);
    assert!(said.contains("not allowed"), "{said}");
    let line = b.log_line("not allowed: no rule matches");
    assert!(line.contains("call receptor:ping") && line.contains("rule on line 1"), "{line}");
    assert!(on_b(&["status"]).ok().contains("  policy       1 rule; 1 denied, 0 ended\n"));
    assert!(on_b(&["policy", "show"]).ok().ends_with(POLICY));
    assert!(on_a(&["policy", "show"]).ok().contains("a has no policy"));
    on_b(&["policy", "explain", "a", "text:upper"]).ok();

    // A call that runs.
    let mut running = world.command(&["send", "b", "text:wait", "--control", "a.sock"]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    world.write("p.toml", &POLICY.replace("to =", "too ="));
    let said = on_b(&["reload"]).failed(2);
    assert!(said.contains("p.toml, line 3: unknown field `too`"), "{said}");
    for command in ["status", "policy"] {
        let args = if command == "policy" { vec!["policy", "show"] } else { vec![command] };
        let said = on_b(&args).ok();
        assert!(
            said.contains("the last reload was refused: ") && said.contains("line 3"),
            "{said}"
        );
    }
    assert_eq!(on_a(&["send", "b", "text:upper", "hello"]).ok(), "HELLO");
    assert!(running.try_wait().unwrap().is_none(), "the call runs on");

    let changed = POLICY.replace("text:*", "text:upper");
    world.write("p.toml", &changed);
    let said = on_b(&["reload"]).ok();
    assert!(said.contains("in effect: policy\n"), "{said}");
    #[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
    let reloaded = Instant::now();
    assert_eq!(running.wait().unwrap().code(), Some(4));
    assert!(reloaded.elapsed() < Duration::from_secs(1), "{:?}", reloaded.elapsed());
    assert_eq!(on_a(&["send", "b", "text:upper", "hello"]).ok(), "HELLO");
    on_a(&["send", "b", "text:wait"]).failed(4);
    let said = on_b(&["policy", "show"]).ok();
    assert!(said.ends_with(&changed), "{said}");
}

#[test]
fn a_node_does_not_start_with_a_faulty_policy() {
    let world = World::of(&["a"]);
    world.write("p.toml", &POLICY.replace("\"allow\"", "\"deny\""));
    let args = ["node", "--id", "a", "--certs", "certs", "--listen", "127.0.0.1:0"];
    let said = world.run(&[&args[..], &["--policy", "p.toml"]].concat()).failed(2);
    assert!(said.contains("p.toml, line 6: the test fails"), "{said}");
}
