//! Nodes that have left the mesh: remembered for longer than their records, for explanations.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Departures that are remembered; beyond that the oldest is forgotten.
const MAX_DEPARTURES: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");
/// For how long a departure is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

/// The nodes that have left and have not come back.
#[derive(Debug)]
pub(crate) struct Departures(LruCache<NodeId, Departure>);

#[derive(Clone, Copy, Debug)]
struct Departure {
    at: Instant,
    ephemeral: bool,
}

/// A node that has left the mesh.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftStatus {
    /// The node.
    pub node: NodeId,
    /// How long ago it left, in seconds.
    pub ago_s: f64,
    /// Whether it was an ephemeral node. It has no record that could announce its leave: it left,
    /// or has lost all links.
    pub ephemeral: bool,
}

impl Departures {
    pub(crate) fn new() -> Self {
        Self(LruCache::new(MAX_DEPARTURES))
    }

    /// A node has left. The first report counts: it may be seen to leave at a link and by its
    /// record.
    pub(crate) fn left(&mut self, node: NodeId, ephemeral: bool, now: Instant) {
        self.0.get_or_insert(node, || Departure { at: now, ephemeral });
    }

    /// What a neighbour reports of a node: for how many milliseconds it has been gone, and whether
    /// it was ephemeral; `None` if it has not left, as far as the neighbour knows.
    pub(crate) fn reported(&mut self, node: &NodeId, left: Option<(u64, bool)>, now: Instant) {
        self.came(node);
        let Some((millis, ephemeral)) = left else { return };
        if let Some(at) = now.checked_sub(Duration::from_millis(millis)) {
            self.left(node.clone(), ephemeral, at);
        }
    }

    /// The node is there.
    pub(crate) fn came(&mut self, node: &NodeId) {
        self.0.pop(node);
    }

    /// Whether and when a node left; `None` if it is there, or nothing is known.
    pub(crate) fn of(&self, node: &NodeId, now: Instant) -> Option<LeftStatus> {
        self.0.peek(node).and_then(|departure| status(node, *departure, now))
    }

    /// All of them, the latest first.
    pub(crate) fn status(&self, now: Instant) -> Vec<LeftStatus> {
        let mut left: Vec<_> =
            self.0.iter().filter_map(|(node, departure)| status(node, *departure, now)).collect();
        left.sort_by(|a, b| a.ago_s.total_cmp(&b.ago_s).then_with(|| a.node.cmp(&b.node)));
        left
    }
}

fn status(node: &NodeId, departure: Departure, now: Instant) -> Option<LeftStatus> {
    let ago = now.saturating_duration_since(departure.at);
    (ago < REMEMBERED_FOR).then(|| LeftStatus {
        node: node.clone(),
        ago_s: ago.as_millis() as f64 / 1_000.0,
        ephemeral: departure.ephemeral,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a first instant has to come from somewhere")]
    fn a_departure_is_remembered_until_the_node_is_back_or_an_hour_has_passed() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut departures = Departures::new();
        departures.left(id("a"), false, at(0));
        departures.left(id("b"), true, at(5));
        departures.left(id("a"), false, at(9));
        assert_eq!(departures.of(&id("a"), at(10)).unwrap().ago_s, 10.0, "the first report counts");
        let names = |now| {
            departures.status(now).into_iter().map(|left| left.node.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(at(10)), ["b", "a"]);
        assert_eq!(names(at(3_601)), ["b"]);
        departures.came(&id("b"));
        assert_eq!(departures.of(&id("b"), at(10)), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a first instant has to come from somewhere")]
    fn what_a_neighbour_reports_replaces_what_was_known() {
        let now = Instant::now() + REMEMBERED_FOR;
        let mut departures = Departures::new();
        departures.reported(&id("a"), Some((90_500, true)), now);
        let left = departures.of(&id("a"), now).unwrap();
        assert_eq!((left.ago_s, left.ephemeral), (90.5, true));
        departures.reported(&id("a"), Some((1_000, false)), now);
        assert_eq!(departures.of(&id("a"), now).unwrap().ago_s, 1.0);
        departures.reported(&id("a"), None, now);
        assert_eq!(departures.of(&id("a"), now), None);
        departures.reported(&id("a"), Some((u64::MAX, false)), now);
        assert_eq!(departures.of(&id("a"), now), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a first instant has to come from somewhere")]
    fn the_number_of_departures_is_bounded() {
        let now = Instant::now();
        let mut departures = Departures::new();
        for n in 0..2_000 {
            departures.left(id(&format!("n{n}")), true, now);
        }
        assert_eq!(departures.status(now).len(), MAX_DEPARTURES.get());
        assert!(departures.of(&id("n1999"), now).is_some());
    }
}
