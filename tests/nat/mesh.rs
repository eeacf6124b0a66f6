//! Two public relays, and edges that dial out to them: the binary, as its users run it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::clock::{now, until, within};
use crate::lab::{Host, Segment};
use crate::process::Process;

const PORT: u16 = 4433;

/// Certificates, control sockets and logs of a lab's nodes, and its relays.
pub(crate) struct Mesh {
    dir: TempDir,
    peers: Vec<String>,
    // Processes end before their namespaces go.
    relays: Vec<Process>,
    hosts: Vec<Host>,
}

/// A node behind something, with the relays as its only neighbours.
pub(crate) struct Edge {
    pub(crate) id: String,
    // It ends before its namespace goes.
    #[cfg_attr(
        not(any(feature = "mdns", feature = "portmap")),
        expect(dead_code, reason = "it is dropped")
    )]
    process: Process,
    pub(crate) host: Host,
}

#[cfg(any(feature = "mdns", feature = "portmap"))]
impl Edge {
    /// Lets the node leave as it does when it is told to, and waits until it has.
    #[cfg(feature = "portmap")]
    pub(crate) fn leave(self) {
        self.process.leave();
    }

    /// What it has logged so far.
    #[cfg(feature = "mdns")]
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

impl Mesh {
    /// Two relays on the internet, at different addresses, so that edges can tell what their NAT
    /// does.
    pub(crate) fn new(internet: &Segment) -> Self {
        Self::with(internet, false, &[])
    }

    /// The same, with more words for the relays, dialled by IPv6 if `v6`.
    pub(crate) fn with(internet: &Segment, v6: bool, more: &[&str]) -> Self {
        let mut mesh = Self::without_relays();
        for id in ["r1", "r2"] {
            let host = internet.host(id);
            let addr = SocketAddr::new(host.ip(v6), PORT);
            let listen = format!("[::]:{PORT}");
            let relay =
                mesh.start(&host, id, &[&["--listen", &listen, "--transit"], more].concat());
            mesh.peers.push(format!("{id}@{addr}"));
            mesh.relays.push(relay);
            mesh.hosts.push(host);
        }
        mesh
    }

    /// An authority and nothing else: its nodes know nobody.
    pub(crate) fn without_relays() -> Self {
        let mut dir = tempfile::Builder::new().prefix("receptor-lab-").tempdir().unwrap();
        if std::env::var_os("RECEPTOR_NAT_LOG").is_some() {
            dir.disable_cleanup(true);
            eprintln!("logs are in {}", dir.path().display());
        }
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let mesh = Self { dir, peers: Vec::new(), relays: Vec::new(), hosts: Vec::new() };
        mesh.run(&["cert", "init", "--dir", "certs"]).ok();
        mesh
    }

    /// Starts an edge, with more words on its command line.
    pub(crate) fn edge(&self, id: &str, host: Host, more: &[&str]) -> Edge {
        self.edge_of(&self.peers, id, host, more)
    }

    /// The same, with links by TLS over TCP. The relays must listen for them at the same port.
    pub(crate) fn edge_by_tls(&self, id: &str, host: Host) -> Edge {
        let peers: Vec<_> = self.peers.iter().map(|peer| format!("tls://{peer}")).collect();
        self.edge_of(&peers, id, host, &[])
    }

    fn edge_of(&self, peers: &[String], id: &str, host: Host, more: &[&str]) -> Edge {
        let peers = peers.iter().flat_map(|peer| ["--peer", peer]);
        let commands = ["--command", "echo:bytes=cat"];
        let args: Vec<_> = peers.chain(commands).chain(more.iter().copied()).collect();
        let process = self.start(&host, id, &args);
        Edge { id: id.to_owned(), process, host }
    }

    /// Waits until the edges have links to both relays and routes to each other.
    pub(crate) fn settle(&self, edges: &[&Edge]) {
        for edge in edges {
            until("the edge has its links and routes", || {
                let status = self.status(&edge.id);
                let up = list(&status["links"]).iter().filter(|link| link["state"] == "up").count();
                let routed = |other: &&Edge| {
                    other.id == edge.id
                        || list(&status["routes"]).iter().any(|route| route["node"] == *other.id)
                };
                (up == self.peers.len() && edges.iter().all(routed)).then_some(())
            });
        }
    }

    /// What a node knows and does.
    pub(crate) fn status(&self, node: &str) -> Value {
        self.run(&["status", "--json", "--control", &self.control(node)]).json()
    }

    /// Calls `to` from `from`, once, and expects its answer at once.
    #[track_caller]
    pub(crate) fn ping(&self, from: &Edge, to: &Edge) {
        self.ping_within(Duration::from_secs(3), from, to);
    }

    #[track_caller]
    fn ping_within(&self, limit: Duration, from: &Edge, to: &Edge) {
        let limit = limit.as_secs().to_string();
        self.run(&["ping", &to.id, "--timeout", &limit, "--control", &self.control(&from.id)]).ok();
    }

    /// How `from` reaches `to`, and why so.
    pub(crate) fn explain(&self, from: &Edge, to: &Edge) -> Value {
        self.run(&["explain", &to.id, "--json", "--control", &self.control(&from.id)]).json()
    }

    /// Whether `from` sends to `to` directly, and to which address then.
    pub(crate) fn direct(&self, from: &Edge, to: &Edge) -> Option<SocketAddr> {
        let path = &self.explain(from, to)["path"];
        (path["kind"] == "direct").then(|| path["address"].as_str().unwrap().parse().unwrap())
    }

    /// Calls at once, waits until both ends send directly, and says how long that took from the
    /// first packet on.
    #[track_caller]
    pub(crate) fn direct_within(&self, limit: Duration, from: &Edge, to: &Edge) -> Duration {
        let begin = now();
        self.ping_within(limit, from, to);
        let both = || {
            (self.direct(from, to).is_some() && self.direct(to, from).is_some())
                .then(|| begin.elapsed())
        };
        within(limit.saturating_sub(begin.elapsed()), both).unwrap_or_else(|| {
            let (there, back) = (self.explain(from, to), self.explain(to, from));
            panic!("no direct path within {limit:?}: {there:#}\n{back:#}")
        })
    }

    /// Calls at once, waits until an attempt at a direct path has ended, and checks that packets
    /// are relayed for this reason.
    #[track_caller]
    pub(crate) fn relayed_because(&self, why: &str, from: &Edge, to: &Edge) {
        self.ping(from, to);
        for (from, to) in [(from, to), (to, from)] {
            let explained = until("an attempt at a direct path ends", || {
                let explained = self.explain(from, to);
                (explained["path"]["why"] != "trying" && explained["path"]["why"] != "idle")
                    .then_some(explained)
            });
            let path = &explained["path"];
            assert!(path["kind"] == "relayed" && path["why"] == why, "not {why}: {explained:#}");
            assert!(
                path["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
                "{explained:#}"
            );
        }
        self.ping(from, to);
    }

    /// Packets that relays have carried so far.
    pub(crate) fn forwarded(&self) -> u64 {
        ["r1", "r2"]
            .iter()
            .map(|relay| self.status(relay)["switch"]["forwarded"].as_u64().unwrap())
            .sum()
    }

    pub(crate) fn relay(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    pub(crate) fn control(&self, node: &str) -> String {
        self.dir.path().join(format!("run/receptor/{node}.sock")).display().to_string()
    }

    /// The binary, in this mesh's directory, without any settings of the machine's.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_receptor"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RECEPTOR_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        if let Some(log) = std::env::var_os("RECEPTOR_NAT_LOG") {
            command.env("RUST_LOG", log);
        }
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().unwrap();
        Done {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    fn start(&self, host: &Host, id: &str, more: &[&str]) -> Process {
        self.run(&["cert", "issue", id, "--dir", "certs"]).ok();
        let args = ["node", "--id", id, "--certs", "certs", "--until-stdin-ends"];
        let log: PathBuf = self.dir.path().join(format!("{id}.log"));
        Process::start(&host.namespace, self.command(&[&args[..], more].concat()), log)
    }
}

/// A command that ended.
struct Done {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Done {
    #[track_caller]
    fn ok(self) -> String {
        assert!(self.success, "{}", self.stderr);
        self.stdout
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
