//! Rate limits for log lines, by kind and by peer.
//!
//! Every line that another node can cause takes a token from three buckets: one for that node and
//! kind, one for the kind, and one for all lines. Lines that find a bucket empty are counted, and
//! the counts are logged as a summary, so a hostile or broken node can fill neither the disk nor
//! hide what others do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::info;

use crate::id::NodeId;
use crate::mesh::clock;
use crate::sync::lock;

/// Lines of one kind about one node: enough for a restart or two in a row.
const PER_NODE: Rate = Rate { burst: 6, interval: Duration::from_secs(10) };
/// Lines of one kind about all nodes.
const PER_KIND: Rate = Rate { burst: 20, interval: Duration::from_secs(3) };
/// Standard error of commands, which operators ask for and may be long; it is not counted as a line
/// of the node.
const OUTPUT_PER_NODE: Rate = Rate { burst: 200, interval: Duration::from_millis(500) };
const OUTPUT: Rate = Rate { burst: 500, interval: Duration::from_millis(200) };
/// Lines of all other kinds: 76 within any 30 s, which leaves room for summaries below 100.
const OVERALL: Rate = Rate { burst: 46, interval: Duration::from_secs(1) };
/// Nodes with a bucket of their own; further nodes share one for each kind.
const MAX_NODES: usize = 1_024;
/// Minimum time between two summaries of one kind.
const SUMMARY_EVERY: Duration = Duration::from_secs(15);

/// What a line reports. Lines of one kind share a limit and a summary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum LogKind {
    /// A link came up, went down, was replaced or is held back.
    Link,
    /// The cost of a link has changed.
    LinkCost,
    /// A link or connection was closed because of what the peer did, or no longer answers.
    Closed,
    /// Two processes have one id, or two ids one address.
    Conflict,
    /// A record is not trusted.
    Record,
    /// A node lists a stub that is not attached to it.
    Claim,
    /// A node has left the mesh.
    Left,
    /// A direct path came up or went down.
    Path,
    /// A node was found on the local network.
    #[cfg_attr(
        not(feature = "mdns"),
        expect(dead_code, reason = "only the local network finds nodes")
    )]
    Found,
    /// A peer may not do what it wants.
    NotAllowed,
    /// A call failed.
    Call,
    /// A command wrote to its standard error.
    CommandOutput,
}

impl LogKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::LinkCost => "link cost",
            Self::Closed => "connection closed",
            Self::Conflict => "id conflict",
            Self::Record => "untrusted record",
            Self::Claim => "false claim",
            Self::Left => "node left",
            Self::Path => "direct path",
            Self::Found => "found on the local network",
            Self::NotAllowed => "not allowed",
            Self::Call => "call failed",
            Self::CommandOutput => "command output",
        }
    }
}

/// The limits of one node's log; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLimits(Arc<Mutex<LogLimit>>);

impl LogLimits {
    /// Whether a line of this kind about `node` may be written now. Otherwise it is counted for the
    /// next summary.
    pub(crate) fn admit(&self, kind: LogKind, node: &NodeId) -> bool {
        lock(&self.0).admit(kind, node, clock::now())
    }

    /// Logs the summaries that are due. Call it every few hundred milliseconds.
    pub(crate) fn summarise(&self, now: Instant) {
        let due = lock(&self.0).summaries(now);
        for Summary { kind, lines, node, over } in due {
            let (kind, seconds) = (kind.as_str(), over.as_secs().max(1));
            match node {
                Some(peer) => {
                    info!(kind, %peer, "{lines} similar lines suppressed in the last {seconds} s");
                }
                None => info!(kind, "{lines} similar lines suppressed in the last {seconds} s"),
            }
        }
    }
}

/// Lines that were not written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Summary {
    kind: LogKind,
    lines: u64,
    /// The node that all of them were about; `None` if there were several.
    node: Option<NodeId>,
    /// The time since the first of them.
    over: Duration,
}

#[derive(Debug, Default)]
struct LogLimit {
    overall: Bucket,
    kinds: BTreeMap<LogKind, Kind>,
    nodes: BTreeMap<(LogKind, NodeId), Bucket>,
}

/// The state of one kind.
#[derive(Debug, Default)]
struct Kind {
    bucket: Bucket,
    /// For nodes beyond [`MAX_NODES`].
    others: Bucket,
    suppressed: Option<Suppressed>,
    /// When lines of this kind were last summarised.
    summarised: Option<Instant>,
}

#[derive(Debug)]
struct Suppressed {
    since: Instant,
    lines: u64,
    node: Option<NodeId>,
}

impl LogLimit {
    fn admit(&mut self, kind: LogKind, node: &NodeId, now: Instant) -> bool {
        let of_kind = self.kinds.entry(kind).or_default();
        let key = (kind, node.clone());
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&key) {
            self.nodes.retain(|_, bucket| !bucket.is_full(now));
        }
        let own = if self.nodes.len() < MAX_NODES || self.nodes.contains_key(&key) {
            self.nodes.entry(key).or_default()
        } else {
            &mut of_kind.others
        };
        // No token is taken for a line that is not written.
        let mut buckets = match kind {
            LogKind::CommandOutput => vec![(own, OUTPUT_PER_NODE), (&mut of_kind.bucket, OUTPUT)],
            _ => {
                vec![(own, PER_NODE), (&mut of_kind.bucket, PER_KIND), (&mut self.overall, OVERALL)]
            }
        };
        if buckets.iter().all(|(bucket, rate)| bucket.has_token(*rate, now)) {
            buckets.iter_mut().for_each(|(bucket, rate)| bucket.take(*rate, now));
            return true;
        }
        match &mut of_kind.suppressed {
            Some(suppressed) => {
                suppressed.lines += 1;
                suppressed.node.take_if(|known| known != node);
            }
            None => {
                of_kind.suppressed =
                    Some(Suppressed { since: now, lines: 1, node: Some(node.clone()) });
            }
        }
        false
    }

    fn summaries(&mut self, now: Instant) -> Vec<Summary> {
        let due = |of_kind: &mut Kind| {
            let since = of_kind.suppressed.as_ref()?.since;
            // The first one waits as well, so that it covers more than one line.
            let last = of_kind.summarised.map_or(since, |at| at.max(since));
            if now < last + SUMMARY_EVERY {
                return None;
            }
            of_kind.summarised = Some(now);
            of_kind.suppressed.take()
        };
        let summary = |(kind, of_kind): (&LogKind, &mut Kind)| {
            let Suppressed { since, lines, node } = due(of_kind)?;
            Some(Summary { kind: *kind, lines, node, over: now.saturating_duration_since(since) })
        };
        self.kinds.iter_mut().filter_map(summary).collect()
    }
}

/// `burst` lines at once, then one per `interval`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// A token bucket: when it is full again; `None` if it is full.
#[derive(Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|full_at| full_at <= now)
    }

    fn has_token(&self, rate: Rate, now: Instant) -> bool {
        self.0.is_none_or(|full_at| full_at <= now + rate.interval * (rate.burst - 1))
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.0 = Some(self.0.map_or(now, |full_at| full_at.max(now)) + rate.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KINDS: [LogKind; 8] = [
        LogKind::Link,
        LogKind::LinkCost,
        LogKind::Closed,
        LogKind::Conflict,
        LogKind::Record,
        LogKind::Left,
        LogKind::Path,
        LogKind::Call,
    ];

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn summary(lines: u64, node: Option<&str>, seconds: u32) -> Summary {
        Summary { kind: LogKind::Link, lines, node: node.map(id), over: SECOND * seconds }
    }

    #[test]
    fn one_node_gets_its_burst_and_the_rest_is_summarised() {
        let (mut limit, start) = (LogLimit::default(), clock::now());
        let written = (0..100).filter(|_| limit.admit(LogKind::Link, &id("a"), start)).count();
        assert_eq!(written, 6);
        assert_eq!(limit.summaries(start + 14 * SECOND), []);
        assert_eq!(limit.summaries(start + 15 * SECOND), [summary(94, Some("a"), 15)]);
        assert_eq!(limit.summaries(start + 60 * SECOND), []);
        // A node that was quiet has its burst again.
        let later = start + 120 * SECOND;
        assert!((0..6).all(|_| limit.admit(LogKind::Link, &id("a"), later)));
        assert!(!limit.admit(LogKind::Link, &id("a"), later));
    }

    #[test]
    fn a_noisy_node_does_not_silence_another() {
        let (mut limit, start) = (LogLimit::default(), clock::now());
        for second in 0..60 {
            let now = start + second * SECOND;
            (0..1_000).for_each(|_| _ = limit.admit(LogKind::Link, &id("noisy"), now));
            let quiet = id("quiet");
            assert!(second % 15 > 0 || limit.admit(LogKind::Link, &quiet, now), "at {second} s");
        }
    }

    #[test]
    fn invented_names_share_what_one_kind_has() {
        let (mut limit, start) = (LogLimit::default(), clock::now());
        let invented = (0..5_000).map(|nth| id(&format!("n{nth}")));
        let written = invented.filter(|node| limit.admit(LogKind::Link, node, start)).count();
        assert_eq!(written, 20);
        assert!(limit.nodes.len() <= MAX_NODES);
        assert_eq!(limit.summaries(start + 15 * SECOND), [summary(4_980, None, 15)]);
        // Other kinds have not used up anything.
        assert!(limit.admit(LogKind::Closed, &id("a"), start));
        // What is full again is forgotten.
        assert!(limit.admit(LogKind::Link, &id("later"), start + 300 * SECOND));
        assert!(limit.nodes.len() <= MAX_NODES);
    }

    #[test]
    fn output_of_commands_leaves_room_for_other_lines() {
        let (mut limit, start) = (LogLimit::default(), clock::now());
        let written =
            (0..1_000).filter(|_| limit.admit(LogKind::CommandOutput, &id("a"), start)).count();
        assert_eq!(written, 200);
        assert!(limit.admit(LogKind::Call, &id("a"), start));
    }

    #[test]
    fn all_kinds_together_stay_below_a_hundred_lines_in_30_s() {
        let (mut limit, start) = (LogLimit::default(), clock::now());
        let mut lines = Vec::new();
        for tick in 0..1_200 {
            let now = start + tick * SECOND / 4;
            for (kind, nth) in KINDS.iter().flat_map(|kind| (0..20).map(move |nth| (kind, nth))) {
                if limit.admit(*kind, &id(&format!("n{}", (tick + nth) % 4_000)), now) {
                    lines.push(now);
                }
            }
            lines.extend(limit.summaries(now).iter().map(|_| now));
        }
        let within =
            |from| lines.iter().filter(|at| (from..from + 30 * SECOND).contains(*at)).count();
        let most = lines.iter().map(|from| within(*from)).max().unwrap();
        assert!(most <= 100, "{most}");
    }
}
