//! Stubs that are used before their attachment is proven here: the router asks for the proof, and
//! waiting questions are answered once it has arrived.

mod drive;

use std::time::{Duration, Instant};

use crate::id::NodeId;
use crate::mesh::links::id::LinkId;

/// How long a stub's question waits for the proof that another one is attached.
const QUERY_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of questions that wait; further ones are answered at once.
const MAX_QUERIES: usize = 1_024;

/// Questions of stubs for nodes whose attachment is being verified.
#[derive(Debug, Default)]
pub(crate) struct WaitingQueries(Vec<WaitingQuery>);

#[derive(Debug)]
struct WaitingQuery {
    until: Instant,
    link: LinkId,
    node: NodeId,
}

impl WaitingQueries {
    fn add(&mut self, link: LinkId, node: &NodeId, now: Instant) -> bool {
        let room = self.0.len() < MAX_QUERIES;
        if room {
            self.0.push(WaitingQuery { until: now + QUERY_WAIT, link, node: node.clone() });
        }
        room
    }

    /// Those that can be answered, or must be.
    fn take(&mut self, routed: impl Fn(&NodeId) -> bool, now: Instant) -> Vec<(LinkId, NodeId)> {
        let ready = self.0.extract_if(.., |query| query.until <= now || routed(&query.node));
        ready.map(|query| (query.link, query.node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    #[test]
    fn a_question_waits_for_the_route_or_for_a_second() {
        let (mut queries, now) = (WaitingQueries::default(), clock::now());
        let [a, b]: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        assert!(queries.add(LinkId(1), &a, now) && queries.add(LinkId(2), &b, now));
        assert_eq!(queries.take(|node| *node == b, now), [(LinkId(2), b)]);
        assert_eq!(queries.take(|_| false, now), []);
        assert_eq!(queries.take(|_| false, now + QUERY_WAIT), [(LinkId(1), a.clone())]);
        assert_eq!((0..2_000).filter(|_| queries.add(LinkId(1), &a, now)).count(), MAX_QUERIES);
    }
}
