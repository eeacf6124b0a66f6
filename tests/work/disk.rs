//! A disk that is full: the executor's data directory is a small file system of its own.

use std::io::Write as _;

use rustix::process::geteuid;

use crate::harness::until;
use crate::lab::{Lab, Role};

/// Set to 1, a test that cannot run fails instead of being skipped.
const REQUIRE: &str = "RECEPTOR_REQUIRE_LAB";

#[test]
fn a_job_that_fills_the_disk_ends_and_the_node_lives_on() {
    let Some(mut lab) = lab_with_disk("a_job_that_fills_the_disk_ends_and_the_node_lives_on")
    else {
        return;
    };
    Role::ALL.into_iter().for_each(|role| lab.start(role));
    let flood = lab.work(&["submit", "edge", "job:flood", "tag", "--run-for", "2s"]).ok();
    let waited = lab.work(&["wait", flood.trim(), "--timeout", "50s"]);
    assert_ne!(waited.code, Some(0), "20 MB do not fit in 4 MB");
    assert_eq!(lab.status(flood.trim())["state"], "failed", "{}", waited.stderr);
    // The room comes back with the release.
    lab.work(&["release", flood.trim()]).ok();
    until("it is gone", || lab.work(&["list", "--json"]).ok().is_empty().then_some(()));
    let other = lab.work(&["submit", "edge", "job:lines", "tag", "--start-by", "60s"]).ok();
    lab.work(&["wait", other.trim()]).ok();
}

/// A lab whose executor keeps its data on a file system of 4 MB, in a mount namespace that ends
/// with it. `None` if this machine cannot have one.
fn lab_with_disk(test: &str) -> Option<Lab> {
    let why = if !geteuid().is_root() {
        "mounting a file system takes root"
    } else if !can_mount() {
        "this machine has no mount namespaces"
    } else {
        let mut lab = Lab::new("");
        std::fs::create_dir(lab.world.path("edge-data")).expect("a new directory");
        let script = "mount -t tmpfs -o size=4m,mode=700 tmpfs edge-data && exec \"$@\"";
        lab.edge_prefix = ["unshare", "-m", "sh", "-c", script, "sh"].map(str::to_owned).into();
        return Some(lab);
    };
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!required, "{test} cannot run: {why}; unset {REQUIRE} to skip it");
    let _ = std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
    None
}

fn can_mount() -> bool {
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]);
    command.status().is_ok_and(|status| status.success())
}
