//! Processes that a supervisor has left behind because it was killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The variable by which the processes of an attempt are recognised: the directory of the attempt.
pub(in crate::work::unit::service) const MARK: &str = "RECEPTOR_UNIT_ATTEMPT";

/// How often those that are killed are looked for: one may start another meanwhile.
const ROUNDS: u32 = 50;

/// The time between two rounds.
const ROUND: Duration = Duration::from_millis(10);

/// Kills the processes of an attempt whose supervisor is gone: all that have inherited its mark.
/// Returns whether none is left. Blocks for half a second at most.
///
/// Those that have cleared their environment, or belong to another user, are not found.
pub(in crate::work::unit::service) fn kill(attempt: &Path) -> bool {
    let mut mark = format!("{MARK}=").into_bytes();
    mark.extend_from_slice(attempt.as_os_str().as_encoded_bytes());
    for _ in 0..ROUNDS {
        let found = marked(&mark);
        if found.is_empty() {
            return true;
        }
        for pid in found {
            // An error means that it has ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(ROUND);
    }
    false
}

/// The processes with this entry in their environment.
fn marked(mark: &[u8]) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_marked = |pid: &i32| {
        // Zombies have no environment.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark)
    };
    let own = std::process::id().cast_signed();
    pids.filter(|pid| *pid != own).filter(is_marked).filter_map(Pid::from_raw).collect()
}
