//! `receptor work` as its users run it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{World, until};
use crate::lab::{Lab, Role};
use crate::processes::{family, private_kib, runs, signal, supervisors};

#[test]
fn a_unit_is_submitted_listed_waited_for_and_released() {
    let lab = Lab::running();
    let id = lab.work(&["submit", "edge", "job:fails", "tag", "--label", "job=7"]).ok();
    let id = id.trim();
    let waited = lab.work(&["wait", id]);
    assert_eq!((waited.code, waited.stderr.as_str()), (Some(7), ""));
    assert_eq!(lab.work(&["results", &id[..13]]).ok(), "tag fails\n");
    assert_eq!(lab.work(&["results", id, "--from", "4"]).ok(), "fails\n");
    let table = lab.work(&["list"]).ok();
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..6], [&id[..8], "edge", "job:fails", "failed", "(exit", "status"]);
    assert_eq!(row.last(), Some(&"job=7"));
    let details = lab.work(&["status", id]).ok();
    assert!(details.contains("failed (exit status 7)"), "{details}");
    for (args, count) in [
        (&["--state", "failed"][..], 1),
        (&["--state", "running"], 0),
        (&["--label", "job=7"], 1),
        (&["--label", "job=8"], 0),
        (&["--node", "edge"], 1),
        (&["--node", "relay"], 0),
        (&["--older", "1h"], 0),
    ] {
        let lines = lab.work(&[&["list", "--json"], args].concat()).ok();
        assert_eq!(lines.lines().count(), count, "{args:?}");
    }
    lab.work(&["release", id]).ok();
    until("it is gone", || lab.work(&["list", "--json"]).ok().is_empty().then_some(()));
    assert!(lab.work(&["status", id]).failed(1).contains("no unit"), "unknown ids are named");
}

#[test]
fn a_unit_that_is_not_accepted_is_listed_with_the_reason() {
    let mut lab = Lab::new("max-units-per-submitter = 1");
    Role::ALL.into_iter().for_each(|role| lab.start(role));
    let kept = lab.work(&["submit", "edge", "job:fails", "tag"]).ok();
    lab.work(&["wait", kept.trim()]);
    let waiting = lab.work(&["submit", "edge", "job:fails", "tag"]).ok();
    let reason = "max-units-per-submitter reached";
    until("the reason is known", || (lab.status(waiting.trim())["reason"] == reason).then_some(()));
    let line = format!("queued: {reason}");
    for args in [&["status", waiting.trim()][..], &["list", "--state", "queued"]] {
        let text = lab.work(args).ok();
        assert!(text.contains(&line), "{args:?}: {text}");
    }
    lab.work(&["release", kept.trim()]).ok();
    assert_eq!(lab.work(&["wait", waiting.trim()]).code, Some(7));
    assert_eq!(lab.status(waiting.trim())["reason"], Value::Null);
}

#[test]
fn a_followed_unit_brings_both_outputs_and_its_exit_status() {
    let lab = Lab::running();
    let followed = lab.work(&["submit", "edge", "job:lines", "tag", "--follow", "--rm", "-q"]);
    assert_eq!(followed.code, Some(0), "{}", followed.stderr);
    let stdout = String::from_utf8(followed.stdout).expect("text");
    assert_eq!((stdout.lines().count(), stdout.lines().last()), (40, Some("tag line 39")));
    assert_eq!(followed.stderr.lines().last(), Some("tag err 39"));
    until("it is released", || lab.work(&["list", "--json"]).ok().is_empty().then_some(()));
}

#[test]
fn the_same_key_is_the_same_unit_and_another_payload_a_conflict() {
    let lab = Lab::running();
    let key = "0193a5b2-7c4d-7000-8000-000000000001";
    for _ in 0..2 {
        let submitted = lab.work(&["submit", "edge", "job:fails", "tag", "--key", key]);
        assert_eq!(submitted.ok().trim(), key);
    }
    lab.work(&["wait", key]).failed(7);
    let conflict = lab.work(&["submit", "edge", "job:fails", "other", "--key", key]).failed(2);
    assert!(conflict.contains("another spec or payload"), "{conflict}");
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn a_unit_for_a_node_that_is_down_starts_when_it_is_up() {
    let mut lab = Lab::new("");
    lab.start(Role::Relay);
    lab.start(Role::Ctl);
    let id = lab.work(&["submit", "edge", "job:fails", "tag"]).ok();
    lab.kill(Role::Ctl);
    lab.start(Role::Ctl);
    assert_eq!(lab.status(id.trim())["state"], "queued");
    lab.start(Role::Edge);
    assert_eq!(lab.work(&["wait", id.trim()]).code, Some(7));
}

#[test]
fn a_unit_that_was_cancelled_in_time_never_starts() {
    let mut lab = Lab::new("");
    lab.start(Role::Relay);
    lab.start(Role::Ctl);
    let id = lab.work(&["submit", "edge", "job:fails", "tag"]).ok();
    lab.work(&["cancel", id.trim()]).ok();
    let waited = lab.work(&["wait", id.trim()]).failed(1);
    assert!(waited.contains("cancelled (never started)"), "{waited}");
    lab.start(Role::Edge);
    let other = lab.work(&["submit", "edge", "job:fails", "other"]).ok();
    lab.work(&["wait", other.trim()]).failed(7);
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn a_unit_expires_when_its_node_does_not_come() {
    let mut lab = Lab::new("");
    lab.start(Role::Ctl);
    let id = lab.work(&["submit", "edge", "job:fails", "tag", "--start-by", "300ms"]).ok();
    let waited = lab.work(&["wait", id.trim(), "--timeout", "10s"]).failed(3);
    assert!(waited.contains("expired"), "{waited}");
}

#[test]
fn cancelling_ends_descendants_that_left_the_process_group() {
    let lab = Lab::running();
    let id = started(&lab, "job:stubborn");
    let supervisor = only_supervisor(&lab);
    let members = family(supervisor);
    assert!(members.len() >= 3, "{members:?}");
    lab.work(&["cancel", &id, "--grace", "100ms"]).ok();
    assert!(lab.work(&["wait", &id]).failed(1).contains("cancelled"));
    until("all of them are gone", || members.iter().all(|pid| !runs(*pid)).then_some(()));
}

#[test]
fn the_same_process_goes_on_when_its_node_restarts() {
    let mut lab = Lab::running();
    let mut follow = lab.work_command(&["submit", "edge", "job:lines", "tag", "-f", "-q"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("receptor");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe"))
        .lines()
        .map(|line| line.expect("text"));
    assert_eq!(lines.next().as_deref(), Some("tag line 0"));
    let supervisor = only_supervisor(&lab);
    lab.kill(Role::Edge);
    assert!(runs(supervisor));
    lab.start(Role::Edge);
    assert_eq!(lines.last().as_deref(), Some("tag line 39"));
    assert_eq!(follow.wait().expect("it was started").code(), Some(0));
    assert_eq!(lab.starts().len(), 1);
}

#[test]
fn a_unit_whose_supervisor_was_killed_is_lost_and_nothing_is_left() {
    let lab = Lab::running();
    let id = started(&lab, "job:long");
    let supervisor = only_supervisor(&lab);
    let members = family(supervisor);
    signal(supervisor, Signal::KILL);
    let began = now();
    assert!(lab.work(&["wait", &id]).failed(1).contains("lost"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    until("nothing is left", || members.iter().all(|pid| !runs(*pid)).then_some(()));
}

#[test]
fn a_supervisor_has_at_most_2_mib_of_private_memory() {
    let lab = Lab::running();
    let id = started(&lab, "job:long");
    let kib = private_kib(only_supervisor(&lab));
    println!("a supervisor has {kib} KiB of private memory");
    assert!(kib <= 2_048, "{kib} KiB");
    lab.work(&["release", &id, "--force"]).ok();
}

#[test]
fn a_large_payload_comes_from_standard_input() {
    let lab = Lab::running();
    let payload = [b"tag\n".as_slice(), &vec![b'x'; 20_000_000]].concat();
    let id = lab.work_with_input(&["submit", "edge", "job:bulk", "-"], &payload).ok();
    lab.work(&["wait", id.trim()]).ok();
    let output = lab.work(&["results", id.trim()]);
    assert!(output.stdout.starts_with(&payload[4..]), "{} bytes", output.stdout.len());
}

#[test]
fn units_of_others_are_listed_where_they_run() {
    let lab = Lab::running();
    let id = started(&lab, "job:long");
    let socket = lab.world.path("run/receptor/edge.sock");
    let socket = socket.to_str().expect("a path of the test's");
    let here = lab.world.run(&["work", "list", "--here", "--json", "--control", socket]).json();
    assert_eq!((here["id"].as_str(), here["submitter"].as_str()), (Some(id.as_str()), Some("ctl")));
    assert_eq!(here["state"], "running");
    assert_eq!(lab.world.run(&["work", "list", "--json", "--control", socket]).ok(), "");
}

#[test]
fn a_node_that_keeps_no_units_says_what_it_lacks() {
    let world = World::of(&["a"]);
    let node = world.node("a", &[]);
    let socket = node.control().to_str().expect("a path of the test's");
    let refused = world.run(&["work", "submit", "a", "job:lines", "--control", socket]).failed(2);
    assert!(refused.contains("--units --data-dir DIR"), "{refused}");
    let args = ["node", "--id", "a", "--certs", "certs", "--listen", "127.0.0.1:0", "--units"];
    assert!(world.run(&args).failed(2).contains("--data-dir"));
}

#[test]
fn a_unit_whose_program_does_not_exist_was_never_started() {
    let mut lab = Lab::new("[command.\"no:program\"]\nrun = \"no-such-program\"");
    Role::ALL.into_iter().for_each(|role| lab.start(role));
    let id = lab.work(&["submit", "edge", "no:program"]).ok();
    lab.work(&["wait", id.trim(), "--timeout", "20s"]).failed(1);
    let status = lab.status(id.trim());
    let reason = status["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("not started: cannot execute `no-such-program`: No such"),
        "{reason}"
    );
    assert_eq!((&status["started"], &status["started_ms"]), (&false.into(), &Value::Null));
    let details = lab.work(&["status", id.trim()]).ok();
    assert!(!details.contains("\n  started"), "{details}");
}

#[test]
fn a_unit_for_a_node_that_keeps_none_is_refused() {
    let lab = Lab::running();
    let id = lab.work(&["submit", "relay", "job:lines", "tag"]).ok();
    let refused = lab.work(&["wait", id.trim(), "--timeout", "20s"]).failed(4);
    assert!(refused.contains("refused"), "{refused}");
    let id = lab.work(&["submit", "edge", "no:such", "tag"]).ok();
    let refused = lab.work(&["wait", id.trim(), "--timeout", "20s"]).failed(4);
    assert!(refused.contains("no such directive"), "{refused}");
}

#[test]
fn a_client_that_is_killed_in_the_payload_submits_nothing() {
    let lab = Lab::running();
    let mut submit = lab.work_command(&["submit", "edge", "job:bulk", "-"]);
    let mut submit = submit.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("receptor");
    let mut stdin = submit.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, &vec![b'x'; 1_000_000]).expect("it reads");
    submit.kill().expect("it runs");
    submit.wait().expect("it was started");
    assert_eq!(lab.work(&["list", "--json"]).ok(), "");
}

#[test]
fn a_damaged_unit_is_listed_apart_and_the_others_load() {
    let mut lab = Lab::new("");
    lab.start(Role::Ctl);
    let ids =
        [0, 1].map(|_| lab.work(&["submit", "edge", "job:fails", "tag"]).ok().trim().to_owned());
    lab.kill(Role::Ctl);
    let log = lab.world.path("ctl-data/units/out").join(&ids[0]).join("log");
    std::fs::write(&log, "something else").expect("it is there");
    lab.start(Role::Ctl);
    let listed = lab.work(&["list"]);
    assert!(listed.stderr.contains("1 more cannot be used"), "{}", listed.stderr);
    assert_eq!(lab.work(&["list", "--json"]).json()["id"], ids[1].as_str());
    let damaged = lab.work(&["list", "--quarantined"]).ok();
    assert!(damaged.contains(&ids[0]), "{damaged}");
}

#[test]
fn a_file_whose_name_is_not_utf8_is_listed_apart() {
    let mut lab = Lab::new("");
    lab.start(Role::Ctl);
    lab.kill(Role::Ctl);
    let name = OsStr::from_bytes(b"\xff");
    std::fs::write(lab.world.path("ctl-data/units/out").join(name), "").expect("the node made it");
    lab.start(Role::Ctl);
    let listed = lab.work(&["list"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(listed.stderr.contains("1 more cannot be used"), "{}", listed.stderr);
    let quarantined = lab.work(&["list", "--quarantined"]).ok();
    assert!(quarantined.contains("units/out/\u{fffd}: "), "{quarantined}");
    let json = lab.work(&["list", "--quarantined", "--json"]).json();
    assert!(json["path"].as_str().is_some_and(|path| path.ends_with('\u{fffd}')), "{json}");
}

/// Submits a job that writes a line and goes on; returns its id once it has.
fn started(lab: &Lab, directive: &str) -> String {
    let id = lab.work(&["submit", "edge", directive, "tag"]).ok().trim().to_owned();
    until("it has begun", || (lab.work(&["results", &id]).stdout == b"started\n").then_some(()));
    id
}

fn only_supervisor(lab: &Lab) -> u32 {
    match &supervisors(&lab.edge_units())[..] {
        [one] => one.pid,
        others => panic!("{others:?}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
fn now() -> Instant {
    Instant::now()
}
