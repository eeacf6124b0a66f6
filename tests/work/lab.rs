//! A submitter, a relay and an executor.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Done, Node, World, finish, finish_with_input};
use crate::{jobs, processes};

/// A node of the lab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Submits.
    Ctl,
    /// Carries.
    Relay,
    /// Executes.
    Edge,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Ctl, Self::Relay, Self::Edge];

    fn id(self) -> &'static str {
        match self {
            Self::Ctl => "ctl",
            Self::Relay => "relay",
            Self::Edge => "edge",
        }
    }
}

/// The nodes, and what they keep.
pub(crate) struct Lab {
    pub(crate) world: World,
    relay_addr: String,
    nodes: [Option<Node>; 3],
    /// More for the executor's command line.
    pub(crate) edge_prefix: Vec<String>,
}

impl Lab {
    /// A lab in which nothing runs yet. `units` is the executor's table of that name.
    pub(crate) fn new(units: &str) -> Self {
        let world = World::of(&["ctl", "relay", "edge"]);
        // The relay has to come back at the same address.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let relay_addr = socket.local_addr().expect("bound").to_string();
        drop(socket);
        world.write(
            "edge.toml",
            &format!("[units]\nreserve-percent = 0\n{units}\n{}", jobs::tables()),
        );
        Self { world, relay_addr, nodes: [None, None, None], edge_prefix: Vec::new() }
    }

    /// A lab in which all nodes run.
    pub(crate) fn running() -> Self {
        let mut lab = Self::new("");
        Role::ALL.into_iter().for_each(|role| lab.start(role));
        lab
    }

    /// Starts a node, unless it runs.
    pub(crate) fn start(&mut self, role: Role) {
        if self.nodes[role as usize].is_none() {
            let node = Node::start(self.command(role));
            self.nodes[role as usize] = Some(node);
        }
    }

    /// Kills a node, if it runs, and nothing else.
    pub(crate) fn kill(&mut self, role: Role) {
        if let Some(mut node) = self.nodes[role as usize].take() {
            node.kill();
        }
    }

    /// Takes a node out, so that the test ends it.
    pub(crate) fn take(&mut self, role: Role) -> Node {
        self.nodes[role as usize].take().expect("it runs")
    }

    fn command(&self, role: Role) -> Command {
        let id = role.id();
        let peer = format!("relay@{}", self.relay_addr);
        let data = format!("{id}-data");
        let own: Vec<&str> = match role {
            Role::Relay => vec!["--listen", &self.relay_addr, "--transit"],
            Role::Ctl => vec!["--peer", &peer, "--no-direct", "--data-dir", &data, "--units"],
            Role::Edge => {
                vec![
                    "--peer",
                    &peer,
                    "--no-direct",
                    "--data-dir",
                    &data,
                    "--config",
                    "edge.toml",
                    "--grace",
                    "1s",
                ]
            }
        };
        let args = [vec!["node", "--id", id, "--certs", "certs"], own].concat();
        let mut command = match &self.edge_prefix[..] {
            [first, rest @ ..] if role == Role::Edge => {
                rebuild(first, rest, &self.world.command(&args))
            }
            _ => self.world.command(&args),
        };
        if let Some(log) = std::env::var_os("RECEPTOR_CRASH_LOG") {
            command.env("RUST_LOG", log);
        }
        command
    }

    /// `receptor work …` at the submitter.
    pub(crate) fn work_command(&self, args: &[&str]) -> Command {
        let socket = self.socket();
        let socket = socket.to_str().expect("a path of the test's");
        let args = [&["work"], args, &["--control", socket]].concat();
        self.world.command(&args)
    }

    /// Runs `receptor work …` at the submitter to its end.
    pub(crate) fn work(&self, args: &[&str]) -> Done {
        finish(&mut self.work_command(args))
    }

    /// The same with this on standard input.
    pub(crate) fn work_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        finish_with_input(&mut self.work_command(args), input)
    }

    /// The status of a unit.
    pub(crate) fn status(&self, id: &str) -> Value {
        self.work(&["status", id, "--json"]).json()
    }

    fn socket(&self) -> PathBuf {
        self.world.path("run/receptor/ctl.sock")
    }

    /// Where the executor keeps units of others.
    pub(crate) fn edge_units(&self) -> PathBuf {
        self.world.path("edge-data/units/in")
    }

    /// The tags and process ids of all commands that were started, in that order.
    pub(crate) fn starts(&self) -> Vec<(String, u32)> {
        let text = fs::read_to_string(self.world.path("starts")).unwrap_or_default();
        let start = |line: &str| {
            let (tag, pid) = line.split_once(' ')?;
            Some((tag.to_owned(), pid.parse().ok()?))
        };
        text.lines().filter_map(start).collect()
    }
}

impl Drop for Lab {
    /// Nothing is left behind: what outlives nodes is killed here.
    fn drop(&mut self) {
        Role::ALL.into_iter().for_each(|role| self.kill(role));
        for supervisor in processes::supervisors(&self.edge_units()) {
            processes::family(supervisor.pid)
                .into_iter()
                .for_each(|pid| processes::signal(pid, Signal::KILL));
        }
    }
}

/// A node behind another program, which executes it.
fn rebuild(first: &str, rest: &[String], node: &Command) -> Command {
    let mut command = Command::new(first);
    command.args(rest).arg(node.get_program()).args(node.get_args());
    if let Some(dir) = node.get_current_dir() {
        command.current_dir(dir);
    }
    for (name, value) in node.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
