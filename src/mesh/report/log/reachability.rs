//! Log lines for nodes that become reachable or unreachable, many to a line.

use std::fmt;
use std::time::{Duration, Instant};

use tracing::info;

use crate::id::NodeId;

/// How long changes are collected before a line is written; a mesh that syncs brings all its nodes
/// within this time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait. It doubles for as long as changes go on.
const MAX_WAIT: Duration = Duration::from_secs(16);
/// Nodes that a line names; the others are counted.
const NAMED: usize = 8;

/// Collects changes of reachability and logs them as summaries.
#[derive(Debug)]
pub(crate) struct ReachabilityLog {
    reachable: Changes,
    unreachable: Changes,
    /// When the next lines are due; `None` if nothing has changed.
    due: Option<Instant>,
    wait: Duration,
    written: Option<Instant>,
}

/// The nodes that changed in one way.
#[derive(Debug, Default)]
struct Changes {
    count: u64,
    first: Vec<NodeId>,
}

impl ReachabilityLog {
    pub(crate) fn new() -> Self {
        let (reachable, unreachable) = (Changes::default(), Changes::default());
        Self { reachable, unreachable, due: None, wait: FIRST_WAIT, written: None }
    }

    /// There is a route to the node.
    pub(crate) fn reachable(&mut self, node: &NodeId, now: Instant) {
        self.reachable.note(node);
        self.schedule(now);
    }

    /// The route to the node was lost.
    pub(crate) fn unreachable(&mut self, node: &NodeId, now: Instant) {
        self.unreachable.note(node);
        self.schedule(now);
    }

    /// Writes the lines that are due. Call it every few hundred milliseconds.
    pub(crate) fn write(&mut self, now: Instant) {
        let Some((reachable, unreachable)) = self.take_due(now) else { return };
        if reachable.count > 0 {
            info!(nodes = %reachable, count = reachable.count, "reachable");
        }
        if unreachable.count > 0 {
            info!(nodes = %unreachable, count = unreachable.count, "unreachable");
        }
    }

    fn schedule(&mut self, now: Instant) {
        if self.due.is_none() {
            // After a quiet time the next change is logged as soon as the first one was.
            let busy = self.written.is_some_and(|at| now < at + self.wait);
            self.wait = if busy { MAX_WAIT.min(2 * self.wait) } else { FIRST_WAIT };
            self.due = Some(now + self.wait);
        }
    }

    fn take_due(&mut self, now: Instant) -> Option<(Changes, Changes)> {
        self.due.take_if(|due| *due <= now)?;
        self.written = Some(now);
        Some((std::mem::take(&mut self.reachable), std::mem::take(&mut self.unreachable)))
    }
}

impl Changes {
    fn note(&mut self, node: &NodeId) {
        self.count += 1;
        if self.first.len() < NAMED && !self.first.contains(node) {
            self.first.push(node.clone());
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, node) in self.first.iter().enumerate() {
            write!(f, "{}{node}", if nth == 0 { "" } else { ", " })?;
        }
        match self.count - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(nth: usize) -> NodeId {
        format!("n{nth}").parse().unwrap()
    }

    #[test]
    fn nodes_that_appear_together_share_a_line() {
        let (mut log, start) = (ReachabilityLog::new(), clock::now());
        (0..500).for_each(|nth| log.reachable(&id(nth), start));
        assert!(log.take_due(start + SECOND / 2).is_none());
        let (reachable, unreachable) = log.take_due(start + SECOND).unwrap();
        assert_eq!(reachable.to_string(), "n0, n1, n2, n3, n4, n5, n6, n7 and 492 more");
        assert_eq!((reachable.count, unreachable.count), (500, 0));
        assert!(log.take_due(start + 60 * SECOND).is_none());
    }

    #[test]
    fn a_single_change_names_its_node() {
        let (mut log, start) = (ReachabilityLog::new(), clock::now());
        log.unreachable(&id(7), start);
        let (reachable, unreachable) = log.take_due(start + SECOND).unwrap();
        assert_eq!((unreachable.to_string().as_str(), reachable.count), ("n7", 0));
    }

    #[test]
    fn changes_without_end_are_logged_ever_more_rarely() {
        let (mut log, start) = (ReachabilityLog::new(), clock::now());
        let mut lines = Vec::new();
        for tick in 0..4 * 120 {
            let now = start + tick * SECOND / 4;
            log.reachable(&id(1), now);
            log.unreachable(&id(1), now);
            if log.take_due(now).is_some() {
                lines.push((now - start).as_secs());
            }
        }
        assert!(lines.len() <= 12 && lines.iter().filter(|at| **at < 30).count() <= 5, "{lines:?}");
        // After a pause the first change waits no longer than at first.
        let later = start + 600 * SECOND;
        log.reachable(&id(2), later);
        assert!(log.take_due(later + SECOND).is_some());
    }
}
