//! The nodes of the demo: started, killed, and cleaned up.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::node::announced_addrs;
use crate::cli::process::exit::Failure;
use crate::id::NodeId;
use crate::mesh::PeerAddr;
use crate::node::Node;
use crate::transport::Authority;

/// The nodes: each has a certificate.
pub(super) const NODES: [&str; 5] = ["controller", "relay-1", "relay-2", "edge-1", "edge-2"];

/// Timeout for the start of a process.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Timeout for an orderly shutdown of a node.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Number of last log lines shown per process when the demo fails.
const LAST_LINES: usize = 10;

/// The nodes of the demo, and the directory with all their files.
#[derive(Debug)]
pub(super) struct Stage {
    dir: TempDir,
    authority: Authority,
    nodes: Vec<Node>,
    processes: Vec<Process>,
}

/// A node in a separate process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: &'static str,
    pub(super) addr: SocketAddr,
    pub(super) pid: u32,
    child: Child,
}

impl Stage {
    /// A directory that is thrown away, with a CA and a certificate for each node.
    pub(super) fn new() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("receptor-demo-").tempdir().map_err(|error| {
            Failure::failed(format!("cannot make a temporary directory: {error}"))
        })?;
        let authority = Authority::new("receptor demo", 1).map_err(Failure::failed)?;
        let stage = Self { dir, authority, nodes: Vec::new(), processes: Vec::new() };
        for id in NODES {
            let id = node_id(id);
            let identity = stage.authority.issue(&id, 1).map_err(Failure::failed)?;
            identity.save(stage.dir.path(), &id).map_err(Failure::failed)?;
        }
        Ok(stage)
    }

    pub(super) fn dir(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Starts a node in this process, which dials these.
    pub(super) async fn start_here(
        &mut self,
        id: &'static str,
        peers: &[PeerAddr],
    ) -> Result<Node, Failure> {
        let id = node_id(id);
        let identity = self.authority.issue(&id, 1).map_err(Failure::failed)?;
        let builder = Node::builder(id, identity).direct(false);
        let builder = peers.iter().fold(builder, |builder, peer| builder.peer(peer.clone()));
        let node = builder.start().await.map_err(Failure::failed)?;
        self.nodes.push(node.clone());
        Ok(node)
    }

    /// Starts a node as a process of this binary, and waits until it listens.
    pub(super) async fn start_process(
        &mut self,
        id: &'static str,
        more: &[String],
    ) -> Result<&Process, Failure> {
        let fail = |error: std::io::Error| Failure::failed(format!("cannot start {id}: {error}"));
        let binary = std::env::current_exe().map_err(fail)?;
        let log = File::create(self.log(id)).map_err(fail)?;
        let mut command = Command::new(binary);
        // All nodes are on one machine and would not use the relays, which the demo is about.
        command
            .args(["node", "--until-stdin-ends", "--no-direct", "--id", id, "--certs"])
            .arg(self.dir.path());
        command.arg("--control").arg(self.dir.path().join(format!("{id}.sock"))).args(more);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RECEPTOR_") {
                command.env_remove(name);
            }
        }
        // Its own process group: Ctrl-C is for this process, which then ends the others.
        command.process_group(0).kill_on_drop(true);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(fail)?;
        let announced = announced(&mut child).await;
        let addr =
            announced.as_deref().and_then(announced_addrs).and_then(|addrs| addrs.first().copied());
        let pid = child.id().unwrap_or_default();
        let addr =
            addr.ok_or_else(|| Failure::failed(format!("{id} did not say where it listens")));
        // Kept in any case, so that it is cleaned up.
        let unknown = SocketAddr::from(([0; 4], 0));
        self.processes.push(Process { id, addr: *addr.as_ref().unwrap_or(&unknown), pid, child });
        addr?;
        Ok(self.processes.last().expect("it was pushed just now"))
    }

    /// Kills a process with SIGKILL.
    pub(super) fn kill(&mut self, id: &str) -> Result<(), Failure> {
        let process = self.processes.iter_mut().find(|process| process.id == id);
        let process =
            process.ok_or_else(|| Failure::failed(format!("there is no process {id}")))?;
        process
            .child
            .start_kill()
            .map_err(|error| Failure::failed(format!("cannot kill {id}: {error}")))
    }

    /// The last log lines of each process.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        for process in &self.processes {
            let log = fs::read_to_string(self.log(process.id)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                words += &format!("{}: {line}\n", process.id);
            }
        }
        words
    }

    /// Ends every node and removes every file.
    pub(super) async fn close(self) -> Result<(), Failure> {
        let Self { dir, nodes, processes, .. } = self;
        let path = dir.path().to_owned();
        for node in nodes {
            // A node that does not leave in time is dropped, which ends it.
            let _ = timeout(LEAVE_LIMIT, node.shutdown()).await;
        }
        for process in &processes {
            // An error means that it has ended.
            let _ = process.child.id().and_then(pid_of).map(|pid| kill_process(pid, Signal::TERM));
        }
        for mut process in processes {
            if timeout(LEAVE_LIMIT, process.child.wait()).await.is_err() {
                let _ = process.child.kill().await;
            }
        }
        let closed = dir.close();
        if path.exists() {
            let why = closed.err().map_or_else(String::new, |error| format!(": {error}"));
            return Err(Failure::failed(format!("{} is left{why}", path.display())));
        }
        Ok(())
    }

    fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }
}

impl Process {
    /// Where other nodes dial it.
    pub(super) fn peer_addr(&self) -> PeerAddr {
        PeerAddr {
            expected: Some(node_id(self.id)),
            host: self.addr.ip().to_string(),
            port: self.addr.port(),
            carrier: Default::default(),
        }
    }
}

pub(super) fn node_id(id: &str) -> NodeId {
    NodeId::try_from(id).expect("the demo's names are node ids")
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// The line with which a node says where it listens.
async fn announced(child: &mut Child) -> Option<String> {
    let stdout = child.stdout.take()?;
    let mut lines = BufReader::new(stdout).lines();
    timeout(START_LIMIT, lines.next_line()).await.ok()?.ok()?
}
