//! A node of the binary in a namespace.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use crate::clock::LIMIT;
use crate::lab::Namespace;

/// Runs until it is dropped, or until this test run ends in whatever way.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a node, and waits until it says that it runs. `command` must have
    /// `--until-stdin-ends`.
    pub(crate) fn start(namespace: &Namespace, mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let child = namespace.enter(|| command.spawn()).unwrap();
        let mut process = Self { child, log };
        let stdout = process.child.stdout.take().unwrap();
        let (line, announced) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| line.send(l))
        });
        if announced.recv_timeout(LIMIT).is_err() {
            panic!("no node: {command:?}");
        }
        process
    }

    /// Ends it as a user does, and waits until it has.
    #[cfg(feature = "portmap")]
    #[track_caller]
    pub(crate) fn leave(mut self) {
        drop(self.child.stdin.take());
        let ended = crate::clock::until("the process ends", || self.child.try_wait().unwrap());
        assert!(ended.success(), "{ended}: {}", self.log());
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- {}\n{last}", self.log.display());
        }
    }
}
