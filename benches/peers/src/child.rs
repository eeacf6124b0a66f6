//! The processes of a contender.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::contender::Contender;

/// A process that has said READY. It ends when this is dropped.
pub struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub ready: String,
}

impl Child {
    pub fn spawn(contender: &Contender, role: &str, dir: &Path, at: &[String]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["role", &contender.to_string(), role])
            .arg(dir)
            .args(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (
            process.stdin.take().context("no stdin")?,
            process.stdout.take().context("no stdout")?,
        );
        let mut child =
            Self { process, input, output: BufReader::new(output), ready: String::new() };
        child.ready = child.answer("READY").with_context(|| format!("the {role} did not start"))?;
        Ok(child)
    }

    /// Has the client do something, and waits for what it says about it.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.input, "{command}")?;
        self.answer("DONE")
    }

    fn answer(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                bail!("it has ended");
            }
            // Whatever else a library prints is not for us.
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// The CPU time that it and its children have used, in seconds.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.process.id())
    }
}

/// User and system time of a process and its ended children, in seconds; 0 where it cannot be read.
/// Linux counts in hundredths.
fn cpu_of(pid: u32) -> f64 {
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<_> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum::<f64>()
    };
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: f64 =
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(ticks).sum();
    (ticks(pid) + children) / 100.0
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
