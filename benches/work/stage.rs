//! The nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use receptor_quic::work::unit::{Outcome, UnitFilter, UnitHandle, UnitLimits, UnitsConfig};
use receptor_quic::{Authority, Command, Node, NodeBuilder, NodeId};

/// How long a unit may take. One that takes longer hangs, and fails the bench.
const UNIT_LIMIT: Duration = Duration::from_secs(60);

/// A submitter, a relay and an executor.
pub(crate) struct Stage {
    submitter: Node,
    relay: Node,
    executor: Node,
}

impl Stage {
    pub(crate) async fn start(dir: &Path) -> Self {
        let authority = Authority::new("units", 1).unwrap();
        let builder = |name: &str| {
            let id: NodeId = name.parse().unwrap();
            let identity = authority.issue(&id, 1).unwrap();
            Node::builder(id, identity)
        };
        let relay = builder("relay").listen("127.0.0.1:0").transit(true).start().await.unwrap();
        let peer = |builder: NodeBuilder| builder.peer(relay.local_addrs()[0]);
        let executor = peer(builder("executor"))
            .units(config(dir, "executor"))
            .command("sh:true", Command::new("/bin/true"))
            .unwrap()
            .handle("fn:nop", |_, _| async { Ok(()) })
            .unwrap();
        let executor = executor.start().await.unwrap();
        let submitter =
            peer(builder("submitter")).units(config(dir, "submitter")).start().await.unwrap();
        Self { submitter, relay, executor }
    }

    pub(crate) async fn submit(&self, directive: &str) {
        submit(&self.submitter, directive).await;
    }

    /// Submits a unit, and waits for its end.
    pub(crate) async fn run(&self, directive: &str) {
        run(&self.submitter, directive).await;
    }

    /// Runs units in several tasks. Returns how many end in a second.
    pub(crate) async fn many(&self, directive: &str, count: usize, tasks: usize) -> f64 {
        let each = count.div_ceil(tasks);
        let started = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let (submitter, directive) = (self.submitter.clone(), directive.to_owned());
            running.spawn(async move {
                for _ in 0..each {
                    run(&submitter, &directive).await;
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        (each * tasks) as f64 / started.elapsed().as_secs_f64()
    }

    /// Waits until all units have ended.
    pub(crate) async fn settle(&self) {
        for status in self.submitter.units().list(&UnitFilter::default()) {
            if let Some(unit) = self.submitter.units().get(status.id) {
                end(&unit).await;
            }
        }
    }

    /// How many units both ends keep.
    pub(crate) fn held(&self) -> usize {
        let all = UnitFilter::default();
        self.submitter.units().list(&all).len() + self.executor.units().here(&all).len()
    }

    pub(crate) async fn stop(self) {
        for node in [self.submitter, self.executor, self.relay] {
            node.shutdown().await;
        }
    }
}

/// Limits that do not depend on the free space of this machine.
fn config(dir: &Path, name: &str) -> UnitsConfig {
    let mut limits = UnitLimits::default();
    limits.reserve_percent = 0;
    UnitsConfig::new().dir(dir.join(name)).limits(limits)
}

async fn submit(submitter: &Node, directive: &str) -> UnitHandle {
    let submitted = tokio::time::timeout(UNIT_LIMIT, submitter.submit("executor", directive, ""));
    submitted.await.expect("a unit is submitted in time").unwrap()
}

/// Waits until a unit has ended.
async fn end(unit: &UnitHandle) -> Outcome {
    let ended = tokio::time::timeout(UNIT_LIMIT, unit.wait()).await;
    ended.expect("a unit ends in time").unwrap()
}

async fn run(submitter: &Node, directive: &str) {
    let unit = submit(submitter, directive).await;
    assert_eq!(end(&unit).await, Outcome::Succeeded);
}
