//! What a process uses, from /proc.

use std::fs;
use std::time::Duration;

/// Ticks of /proc per second: USER_HZ, which is 100 wherever Rust runs on Linux today.
const TICKS: u64 = 100;

/// A process that is watched.
#[derive(Clone, Copy)]
pub(crate) struct Meter {
    pid: u32,
}

impl Meter {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// CPU time so far, user and system, ended threads included.
    pub(crate) fn cpu(self) -> Duration {
        let stat = self.read("stat");
        // The name of the program is in parentheses and may contain anything.
        let (_, fields) = stat.rsplit_once(')').expect("stat has a name");
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 1_000 / TICKS)
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory since [`reset_peak`](Self::reset_peak), in bytes.
    pub(crate) fn peak(self) -> u64 {
        self.status("VmHWM:")
    }

    pub(crate) fn reset_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
            .expect("the peak of a child can be reset");
    }

    fn status(self, field: &str) -> u64 {
        let status = self.read("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("a field of /proc/PID/status");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
    }

    fn read(self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).expect("the victim runs")
    }
}
