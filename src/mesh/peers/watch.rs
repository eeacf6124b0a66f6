//! The task that samples peer connections and gives up those that have become unreachable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::{Peers, Samples};
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::input::{Command, Input};
use crate::mesh::report::log::{LogKind, LogLimits};
use crate::mesh::view::View;

/// Interval between samples while there are peer connections.
const PACE: Duration = Duration::from_millis(100);
/// Interval while the answers of a peer are overdue.
const DOUBT_PACE: Duration = Duration::from_millis(25);
/// The longest interval while there are no such peers.
const IDLE_PACE: Duration = Duration::from_millis(500);
/// A stub asks its neighbour for the route to a peer that has been silent for this long before it
/// would be given up.
const ASK_AHEAD: Duration = Duration::from_secs(1);
/// How long the neighbour may take to answer. A missing answer does not count as a missing route.
const ANSWER_WAIT: Duration = Duration::from_millis(50);

/// What the watch works with.
pub(crate) struct Watch {
    pub(crate) id: NodeId,
    pub(crate) peers: Peers,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) logs: LogLimits,
}

impl Watch {
    /// Runs until the node is shut down.
    pub(crate) async fn run(self) {
        let mut pace = PACE;
        loop {
            self.peers.next_sample(pace, IDLE_PACE).await;
            let view = self.view.borrow().clone();
            if view.closed || self.inputs.is_closed() {
                return;
            }
            let now = clock::now();
            let Samples { silent: suspects, answers, doubted } = self.peers.sample(ASK_AHEAD, now);
            pace = if doubted { DOUBT_PACE } else { PACE };
            for (peer, answers) in answers {
                self.peers.report(&peer, answers).await;
            }
            if suspects.is_empty() {
                continue;
            }
            let routed = self.routed(&view, &suspects).await;
            for (node, routed) in suspects.iter().zip(routed) {
                let gave_up = self.peers.give_up(node, routed, now);
                if let Some(why) = gave_up.filter(|_| self.logs.admit(LogKind::Closed, node)) {
                    info!(%node, why, "gave up a peer");
                }
            }
        }
    }

    /// Whether there is a route to each of the nodes, as far as this node knows.
    async fn routed(&self, view: &View, nodes: &[NodeId]) -> Vec<bool> {
        if !view.stub {
            // A stub that was not looked up here needs no route as long as its packets say
            // where it is attached.
            let known = |node: &NodeId| view.reaches(node) || view.table.is_claimed(node);
            return nodes.iter().map(|node| *node == self.id || known(node)).collect();
        }
        if !view.linked {
            return nodes.iter().map(|node| *node == self.id).collect();
        }
        let mut answers = Vec::new();
        for node in nodes {
            let (reply, answer) = oneshot::channel();
            let asked = self.inputs.send(Input::Command(Command::Query(node.clone(), reply))).await;
            answers.push(asked.is_ok().then_some(answer));
        }
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut routed = Vec::new();
        for answer in answers {
            let none = match answer {
                Some(answer) => matches!(timeout_at(deadline, answer).await, Ok(Ok(None))),
                None => false,
            };
            routed.push(!none);
        }
        routed
    }
}
