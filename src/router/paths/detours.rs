//! First hops towards a node that avoid some neighbours: for a sender whose packets get no answer
//! through them.
//!
//! A neighbour that floods correctly and forwards nothing is invisible to routing, so the ends of a
//! connection report it (see `docs/routing.md`, "Black holes"). The graph without this node and
//! without the avoided ones says which other neighbours have a way of their own:
//!
//! ```text
//!        ┌── h (avoided) ──┐
//!   me ──┼── m ────────────┼── d      m: dist(m, d) < dist(m, h) + dist(h, d), so m does not use h
//!        └── n ── h ...... ┘          n: reaches d without h, yet its shortest path may use h: tried last
//! ```
//!
//! A neighbour whose shortest path leads back through this node still works as a first hop: nodes
//! never return a packet to the neighbour that it came from, and use an alternate instead. The hop
//! limit ends what loops nevertheless.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::id::NodeId;
use crate::router::Router;
use crate::router::database::graph::Graph;
use crate::router::paths::spf::{Paths, Schedule, costs};

/// Maximum number of nodes that a stub is searched for at: the nearest of those that it is attached
/// to.
const MAX_ATTACHMENTS: usize = 4;

impl Router {
    /// The neighbours through which `to` can be reached without `avoided`, best first: those whose
    /// own shortest paths use none of the avoided nodes, then the others; cheapest first within
    /// each; ties by id. Empty if there is no such neighbour, or no route.
    ///
    /// `to` itself cannot be avoided, and neither can the node that a stub is attached to, unless
    /// it is attached to others as well.
    ///
    /// Takes two searches of the whole graph, for a stub two for each of the four nearest nodes
    /// that it is attached to, and one for each avoided node: see
    /// [`detour_pause`](Self::detour_pause).
    #[must_use]
    pub fn detours(&self, to: &NodeId, avoided: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let Some(route) = self.table.route(to) else { return Vec::new() };
        // A stub is reached through the nodes that it is attached to.
        let ends = if route.stub { self.attachments(to) } else { vec![to.clone()] };
        let graph = self.database.graph();
        let number = |ids: &mut dyn Iterator<Item = &NodeId>| -> BTreeSet<u32> {
            ids.filter_map(|id| graph.number(id)).collect()
        };
        let ends = number(&mut ends.iter().take(MAX_ATTACHMENTS));
        if ends.is_empty() {
            return Vec::new();
        }
        let avoided = number(&mut avoided.iter());
        let Some(me) = graph.number(self.id()).filter(|me| !ends.contains(me)) else {
            return Vec::new();
        };
        let search = Search::new(graph, me, ends, avoided);
        search
            .ranked(|neighbour| self.uses_link(graph.id(neighbour)))
            .map(|n| graph.id(n).clone())
            .collect()
    }

    /// How long to wait after each call of [`detours`](Self::detours) with so many `avoided` nodes,
    /// so that the calls take about a tenth of one core.
    #[must_use]
    pub fn detour_pause(&self, to: &NodeId, avoided: usize) -> Duration {
        let ends = if self.has_record(to) { 1 } else { MAX_ATTACHMENTS };
        let searches = u32::try_from(2 * ends + avoided).unwrap_or(u32::MAX);
        Schedule::rest(self.database.graph()).saturating_mul(searches)
    }
}

struct Search<'a> {
    graph: &'a Graph,
    me: u32,
    /// The node that is searched for, or those that it is attached to.
    ends: BTreeSet<u32>,
    /// Never all of the ends.
    avoided: BTreeSet<u32>,
}

/// How good a first hop is: best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    /// Whether its own shortest path may lead through an avoided node.
    uses_avoided: bool,
    cost: u64,
    id: &'a NodeId,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, me: u32, ends: BTreeSet<u32>, mut avoided: BTreeSet<u32>) -> Self {
        if ends.is_subset(&avoided) {
            avoided.retain(|node| !ends.contains(node));
        }
        Self { graph, me, ends, avoided }
    }

    fn ranked(&self, usable: impl Fn(u32) -> bool) -> impl Iterator<Item = u32> {
        let link =
            |from: u32, to: u32| (from != self.me || usable(to)) && (to != self.me || usable(from));
        // Costs are the same in both directions, so a search from an end gives the distances to it.
        let to_end = nearest(self.ends.iter().map(|&end| costs(self.graph, end, link)));
        let honest = self.ends.difference(&self.avoided);
        let apart = nearest(honest.map(|&end| {
            costs(self.graph, end, |from, to| {
                [from, to].iter().all(|node| *node != self.me && !self.avoided.contains(node))
            })
        }));
        let through: Vec<(u64, Vec<u64>)> = self
            .avoided
            .iter()
            .map(|&node| (to_end[node as usize], costs(self.graph, node, link)))
            .collect();
        let mut ranked: Vec<(Rank<'_>, u32)> = Vec::new();
        for edge in &self.graph.vertex(self.me).edges {
            let first = edge.to as usize;
            let leads_on = self.ends.contains(&edge.to) || self.graph.vertex(edge.to).transit;
            if self.avoided.contains(&edge.to)
                || !leads_on
                || apart[first] == Paths::UNREACHABLE
                || !usable(edge.to)
            {
                continue;
            }
            let uses_avoided = through.iter().any(|(rest, from_avoided)| {
                to_end[first] >= from_avoided[first].saturating_add(*rest)
            });
            let cost = apart[first].saturating_add(edge.cost.into());
            ranked.push((Rank { uses_avoided, cost, id: self.graph.id(edge.to) }, edge.to));
        }
        ranked.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        ranked.into_iter().map(|(_, node)| node)
    }
}

/// The minimum cost for each node. Empty without nodes.
fn nearest(searches: impl Iterator<Item = Vec<u64>>) -> Vec<u64> {
    let least = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = b.min(*a));
        a
    };
    searches.reduce(least).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::{graph, id, record};
    use crate::router::record::draft::Draft;

    #[test]
    fn a_neighbour_with_a_way_of_its_own_stands_in() {
        let graph = graph(vec![
            record("s", &[("h", 1), ("m", 1)]),
            record("h", &[("s", 1), ("t", 1)]),
            record("m", &[("s", 1), ("t", 1)]),
            record("t", &[("h", 1), ("m", 1)]),
        ]);
        assert_eq!(detours(&graph, "t", &[]), ["h", "m"]);
        assert_eq!(detours(&graph, "t", &["h"]), ["m"]);
        assert_eq!(detours(&graph, "t", &["h", "m"]), [""; 0]);
        assert_eq!(detours(&graph, "h", &["h"]), ["h", "m"], "the end itself cannot be avoided");
    }

    #[test]
    fn a_longer_way_that_is_no_loop_free_alternate_is_found() {
        // m's shortest path to t leads back through s.
        let graph = graph(vec![
            record("s", &[("h", 1), ("m", 1)]),
            record("h", &[("s", 1), ("t", 1)]),
            record("m", &[("s", 1), ("n", 5)]),
            record("n", &[("m", 5), ("t", 5)]),
            record("t", &[("h", 1), ("n", 5)]),
        ]);
        assert_eq!(detours(&graph, "t", &["h"]), ["m"]);
    }

    #[test]
    fn a_neighbour_that_would_use_the_avoided_node_comes_last() {
        let graph = graph(vec![
            record("s", &[("h", 2), ("p", 1), ("q", 4)]),
            record("h", &[("s", 2), ("p", 1), ("t", 1)]),
            record("p", &[("s", 1), ("h", 1), ("t", 3)]),
            record("q", &[("s", 4), ("t", 3)]),
            record("t", &[("h", 1), ("p", 3), ("q", 3)]),
        ]);
        assert_eq!(detours(&graph, "t", &["h"]), ["q", "p"]);
    }

    #[test]
    fn a_neighbour_without_transit_leads_to_itself_only() {
        let mut records = vec![
            record("s", &[("h", 1), ("m", 1)]),
            record("h", &[("s", 1), ("t", 1)]),
            record("m", &[("s", 1), ("t", 1)]),
            record("t", &[("h", 1), ("m", 1)]),
        ];
        let refuses = Draft { transit: false, ..Draft::clone(&records[2]) };
        records[2] = refuses.seal().unwrap();
        let graph = graph(records);
        assert_eq!(detours(&graph, "t", &["h"]), [""; 0]);
        assert_eq!(detours(&graph, "m", &["h"]), ["m"]);
    }

    #[test]
    fn another_attachment_of_a_stub_stands_in_for_the_avoided_one() {
        let graph = graph(vec![
            record("s", &[("h", 1), ("m", 1)]),
            record("h", &[("s", 1)]),
            record("m", &[("s", 1), ("n", 1)]),
            record("n", &[("m", 1)]),
        ]);
        // The stub is attached to h and n.
        assert_eq!(detours_to(&graph, &["h", "n"], &["h"]), ["m"]);
        assert_eq!(
            detours_to(&graph, &["h", "n"], &["h", "n"]),
            ["h", "m"],
            "one of them is needed"
        );
        assert_eq!(detours_to(&graph, &["h"], &["h"]), ["h"], "no other way leads to h");
    }

    /// The first hops from s.
    fn detours(graph: &Graph, to: &str, avoided: &[&str]) -> Vec<String> {
        detours_to(graph, &[to], avoided)
    }

    fn detours_to(graph: &Graph, ends: &[&str], avoided: &[&str]) -> Vec<String> {
        let numbers =
            |names: &[&str]| names.iter().map(|name| graph.number(&id(name)).unwrap()).collect();
        let me = graph.number(&id("s")).unwrap();
        let search = Search::new(graph, me, numbers(ends), numbers(avoided));
        search.ranked(|_| true).map(|node| graph.id(node).to_string()).collect()
    }
}
