//! One process of the bench: this program again, in a role, asked by lines and watched through
//! /proc.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::{Result, role};

/// Longer than any command takes: a process that says nothing for so long hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    /// What it said when it was ready: where it listens.
    pub(crate) addr: String,
}

impl Process {
    /// Starts a role, and waits until it is ready.
    pub(crate) fn start(role: &str, args: &[(&str, String)]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role::FLAG, role])
            .args(args.iter().map(|(key, value)| format!("{key}={value}")))
            // An endpoint allocates megabytes that it hardly touches. Once one was freed, glibc
            // takes the next from the heap, and clears all of it: a millisecond that is nobody's. A
            // fixed threshold keeps it from doing so.
            .env("MALLOC_MMAP_THRESHOLD_", "4194304")
            .env("MALLOC_TRIM_THRESHOLD_", "67108864")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child has pipes".into());
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Self { name: role.to_owned(), child, stdin, lines, addr: String::new() };
        process.addr = process.answer()?;
        Ok(process)
    }

    /// Has it do something, and waits for the numbers that it answers.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Vec<f64>> {
        writeln!(self.stdin, "{command}")?;
        let answer = self.answer()?;
        Ok(answer.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    fn answer(&self) -> Result<String> {
        let line =
            self.lines.recv_timeout(TIMEOUT).map_err(|error| format!("{}: {error}", self.name))?;
        match line.split_once(' ') {
            Some(("ok", rest)) => Ok(rest.to_owned()),
            None if line == "ok" => Ok(String::new()),
            _ => Err(format!("{}: {line}", self.name).into()),
        }
    }

    /// CPU-seconds that it used so far, user's and system's; not a number where the system does not
    /// say.
    pub(crate) fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanos = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<f64>().ok()
        };
        match tasks {
            Ok(tasks) => tasks.map(|task| nanos(task).unwrap_or(f64::NAN)).sum::<f64>() / 1e9,
            Err(_) => f64::NAN,
        }
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
