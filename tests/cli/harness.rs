//! Runs the binary: commands to their end, nodes in the background. Nothing waits for ever, nothing
//! is left behind.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// More than anything here takes on a slow machine that does other things as well.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a CA, certificates, and control sockets.
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    /// A world without a CA.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("receptor-test-").tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir }
    }

    /// A world with a CA and a certificate for each of `nodes`.
    pub(crate) fn of(nodes: &[&str]) -> Self {
        let world = Self::empty();
        world.run(&["cert", "init", "--dir", "certs"]).ok();
        for node in nodes {
            world.run(&["cert", "issue", node, "--dir", "certs"]).ok();
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Makes a named pipe; says when all who wrote to it have ended.
    pub(crate) fn fifo(&self, name: &str) -> Receiver<()> {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (ended, all_ended) = channel();
        thread::spawn(move || {
            fs::read(path).unwrap();
            let _ = ended.send(());
        });
        all_ended
    }

    /// The binary, in this world's directory, without any settings of the machine's.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_receptor"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RECEPTOR_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("XDG_RUNTIME_DIR", self.path("run"));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    /// Runs a command to its end, with this on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        finish_with_input(&mut self.command(args), input)
    }

    /// Starts a node in the background, on a free port of loopback.
    pub(crate) fn node(&self, id: &str, more: &[&str]) -> Node {
        let args = ["node", "--id", id, "--certs", "certs", "--listen", "127.0.0.1:0"];
        Node::start(self.command(&[&args[..], more].concat()))
    }
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    /// Its output, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// What it said on standard error, if it ended with this status.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.stderr
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

pub(crate) fn finish(command: &mut Command) -> Done {
    finish_with_input(command, b"")
}

pub(crate) fn finish_with_input(command: &mut Command, input: &[u8]) -> Done {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let pid = pid(&child);
    let input = input.to_vec();
    // A command that does not read its input breaks the pipe: that is its business.
    thread::spawn(move || stdin.write_all(&input));
    let (done, ended) = channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let output = match ended.recv_timeout(LIMIT) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("still running after {LIMIT:?}: {name}");
        }
    };
    Done {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A node that runs in the background. Dropped, it is killed.
pub(crate) struct Node {
    child: Child,
    lines: Receiver<String>,
    log: Receiver<String>,
    /// The line with which it announced itself.
    pub(crate) announced: String,
}

impl Node {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (line, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| line.send(l))
        });
        let (logged, log) = channel();
        thread::spawn(move || {
            // To the end, whether or not anybody listens: the node must not run into a full pipe.
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(logged.send(line)))
        });
        match lines.recv_timeout(LIMIT) {
            Ok(announced) => Self { child, lines, log, announced },
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("no node: {error}: {}", log.iter().collect::<Vec<_>>().join("\n"));
            }
        }
    }

    /// Waits for a line of the log that contains `text`.
    #[track_caller]
    pub(crate) fn log_line(&self, text: &str) -> String {
        loop {
            match self.log.recv_timeout(LIMIT) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("not logged: {text}: {error}"),
            }
        }
    }

    /// As [`start`](Self::start), with a standard error that nobody reads but the caller.
    pub(crate) fn start_unread(mut command: Command) -> (Self, ChildStderr) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| line.send(l))
        });
        let announced = lines.recv_timeout(LIMIT);
        let (_, log) = channel();
        let mut node = Self { child, lines, log, announced: String::new() };
        node.announced = announced.expect("a node");
        (node, stderr)
    }

    /// The address that it listens on.
    pub(crate) fn addr(&self) -> &str {
        let (_, rest) = self.announced.split_once("listening on ").unwrap();
        rest.split([' ', ',']).next().unwrap()
    }

    pub(crate) fn control(&self) -> &Path {
        let (_, path) = self.announced.split_once("control socket ").unwrap();
        Path::new(path)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it ends within so long.
    pub(crate) fn ends_within(&self, wait: Duration) -> bool {
        matches!(self.lines.recv_timeout(wait), Err(RecvTimeoutError::Disconnected))
    }

    /// Waits for it to end by itself, and returns its exit status.
    pub(crate) fn ended(mut self) -> Option<i32> {
        // Its standard output ends when it does.
        match self.lines.recv_timeout(LIMIT) {
            Err(RecvTimeoutError::Disconnected) => self.child.wait().unwrap().code(),
            other => panic!("it did not end: {other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Asks until the answer is there, for so long that a peer that went without a farewell is missed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(answer) = ask() {
            return answer;
        }
    }
    panic!("did not come about: {what}");
}
