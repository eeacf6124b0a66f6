//! The processes under attack.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use receptor_quic::{Identity, NodeId};

use crate::harness::{Node, World, finish, until};
use crate::member::id;
use crate::meter::Meter;

/// A relay, and two nodes that reach each other through it alone.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) relay: Observed,
    pub(crate) a: Observed,
    pub(crate) b: Observed,
}

/// A node whose log lines are counted.
pub(crate) struct Observed {
    pub(crate) node: Node,
    lines: Arc<AtomicUsize>,
}

/// Who is attacked, and what is measured.
#[derive(Clone, Copy)]
pub(crate) enum Victim {
    Relay,
    /// An end that is reached through the relay.
    End,
}

impl Stage {
    /// `relay_cost` is the cost of the relay's links; those of others cost 1.
    pub(crate) fn start(relay_cost: u16) -> Self {
        let world = World::of(&["relay", "a", "b", "guest", "mallory", "greedy"]);
        let cost = relay_cost.to_string();
        let relay =
            Observed::start(&world, "relay", &["--transit", "--no-direct", "--cost", &cost]);
        let peer = format!("relay@{}", relay.node.addr());
        let a = Observed::start(&world, "a", &["--no-direct", "--peer", &peer]);
        // `wait` and `flood` end with their node: their standard streams do.
        let commands = [
            "--command",
            "quick:work=true",
            "--command",
            "wait:work=cat",
            "--command",
            "flood:work=yes",
        ];
        let b = Observed::start(
            &world,
            "b",
            &[&["--no-direct", "--peer", &peer][..], &commands].concat(),
        );
        let stage = Self { world, relay, a, b };
        until("a reaches b", || {
            (finish(&mut stage.call("quick:work")).code == Some(0)).then_some(())
        });
        stage
    }

    pub(crate) fn victim(&self, victim: Victim) -> &Observed {
        match victim {
            Victim::Relay => &self.relay,
            Victim::End => &self.b,
        }
    }

    /// A call from a to b.
    pub(crate) fn call(&self, directive: &str) -> Command {
        let mut command = self.world.command(&["send", "b", directive, "--timeout", "5s"]);
        command.arg("--control").arg(self.a.node.control());
        command
    }

    /// The arguments by which a new process joins as an ephemeral node.
    pub(crate) fn join(&self, id: &str, at: &Observed) -> [String; 6] {
        ["--id", id, "--certs", "certs", "--peer", at.node.addr()].map(str::to_owned)
    }

    pub(crate) fn identity(&self, name: &str) -> (NodeId, Identity) {
        let node = id(name);
        let identity =
            Identity::load(&self.world.path("certs"), &node).expect("the world has certificates");
        (node, identity)
    }
}

impl Observed {
    fn start(world: &World, id: &str, more: &[&str]) -> Self {
        let args = ["node", "--id", id, "--certs", "certs", "--listen", "127.0.0.1:0"];
        let (node, stderr) = Node::start_unread(world.command(&[&args[..], more].concat()));
        let lines = Arc::new(AtomicUsize::new(0));
        let counted = lines.clone();
        std::thread::spawn(move || {
            for _ in BufReader::new(stderr).lines().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { node, lines }
    }

    /// Lines of the log so far.
    pub(crate) fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter::new(self.node.pid())
    }
}
