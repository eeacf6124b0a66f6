//! The processes of the lab, as `/proc` has them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// A supervisor, and the unit it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supervisor {
    pub(crate) pid: u32,
    pub(crate) unit: Uuid,
}

/// The supervisors of units below a directory.
pub(crate) fn supervisors(below: &Path) -> Vec<Supervisor> {
    let below = below.to_str().expect("a directory of the test's");
    let entries = fs::read_dir("/proc").expect("Linux has it").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let supervisor = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&str> =
            line.split(|byte| *byte == 0).filter_map(|word| str::from_utf8(word).ok()).collect();
        let at = words.iter().position(|word| *word == "receptor-supervise-unit")?;
        let unit = words.get(at + 1).filter(|unit| unit.starts_with(below))?;
        Some(Supervisor { pid, unit: Path::new(unit).file_name()?.to_str()?.parse().ok()? })
    };
    let found: Vec<Supervisor> = pids.filter_map(supervisor).collect();
    // A process that is about to execute a command looks like the supervisor that has forked it.
    let children: Vec<u32> =
        found.iter().flat_map(|found| family(found.pid)[1..].to_vec()).collect();
    found.into_iter().filter(|found| !children.contains(&found.pid)).collect()
}

/// All that descends from a process, and it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", found[next])).into_iter().flatten().flatten();
        let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = texts
            .flat_map(|text| {
                text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// Whether a process runs. One that has ended and was not waited for does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Signals a process, if it still runs.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// The memory that a process has for itself, in KiB. Pages of its program that nobody else happens
/// to have touched do not count: they are a cache of the file.
pub(crate) fn private_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let value = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    text.lines().filter(|line| line.starts_with("Private_Dirty:")).filter_map(value).sum()
}
