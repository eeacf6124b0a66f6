//! Loop-free alternates (RFC 5286): which neighbour to send to while the next hops of a route are
//! gone.
//!
//! A neighbour m can stand in for the next hops to d if m's own shortest paths to d do not lead
//! back through this node: dist(m, d) < dist(m, me) + dist(me, d). Where this node refuses transit,
//! no path leads through it, and every neighbour that reaches d can.
//!
//! It takes the distances from m, so one more search of the graph per neighbour. They are made in
//! the background, one at a time, after the table of next hops is out and while nothing has changed
//! since: see [`Alternates`].

use std::time::{Duration, Instant};

use crate::router::database::graph::Graph;
use crate::router::paths::spf::{Paths, costs};

/// The most alternates that a route has.
pub(crate) const MAX_ALTERNATES: usize = 2;

/// The most neighbours whose paths are searched.
const MAX_SEARCHES: usize = 8;

/// How long the paths must have stayed as they are before alternates to them are searched for.
/// Where a mesh starts or heals, they change with every record, and what is found is thrown away
/// before anybody could use it.
const CALM: Duration = Duration::from_millis(20);

/// The alternates to one node, best first, by their place in [`Paths::first`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standby {
    len: u8,
    places: [u16; MAX_ALTERNATES],
}

impl Standby {
    pub(crate) fn as_slice(&self) -> &[u16] {
        &self.places[..usize::from(self.len)]
    }
}

/// The search for alternates, one neighbour at a time.
///
/// It begins once the paths have stayed the same for 20 ms. Like that of the paths, its time is
/// estimated: after each neighbour it rests for nine times as long, and paths that are wanted go
/// first. A change of the paths restarts it.
#[derive(Debug)]
pub(crate) struct Alternates {
    search: Option<Search>,
    not_before: Instant,
}

#[derive(Debug)]
struct Search {
    candidates: Vec<Candidate>,
    /// What every node costs from the first of them.
    costs: Vec<Vec<u64>>,
}

/// A neighbour that others may be reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    place: u16,
    node: u32,
    /// What the link to it costs.
    cost: u64,
}

/// How good an alternate is: best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Whether a next hop that fails as a whole, and not only the link to it, would be on its way.
    shares_next_hop: bool,
    cost: u64,
    place: u16,
}

impl Alternates {
    pub(crate) fn new(now: Instant) -> Self {
        Self { search: None, not_before: now }
    }

    /// The paths were computed: the alternates to them are to be found when they have been calm for
    /// a while.
    pub(crate) fn on_paths(&mut self, graph: &Graph, source: u32, paths: &Paths, now: Instant) {
        let candidates = candidates(graph, source, paths);
        // With one neighbour there is no other.
        self.search = (paths.first.len() > 1).then(|| Search { candidates, costs: Vec::new() });
        self.not_before = self.not_before.max(now + CALM);
    }

    /// There are no paths.
    pub(crate) fn stop(&mut self) {
        self.search = None;
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.search.is_some().then_some(self.not_before)
    }

    /// The next step, which is due. Gives the alternates, by node number, when it was the last.
    pub(crate) fn step(
        &mut self,
        graph: &Graph,
        source: u32,
        paths: &Paths,
        usable: impl Fn(u32, u32) -> bool,
        rest: Duration,
        now: Instant,
    ) -> Option<Vec<Standby>> {
        let search = self.search.as_mut()?;
        if let Some(next) = search.candidates.get(search.costs.len()) {
            search.costs.push(costs(graph, next.node, usable));
            self.not_before = now + rest;
        }
        if search.costs.len() < search.candidates.len() {
            return None;
        }
        let search = self.search.take()?;
        let through_me = graph.vertex(source).record.transit;
        Some(search.finish(graph, source, paths, through_me))
    }
}

impl Search {
    fn finish(&self, graph: &Graph, source: u32, paths: &Paths, through_me: bool) -> Vec<Standby> {
        let links = links(graph, source, paths);
        let mut ranks = vec![[None; MAX_ALTERNATES]; paths.ways().len()];
        for (candidate, costs) in self.candidates.iter().zip(&self.costs) {
            let back = if through_me { costs[source as usize] } else { Paths::UNREACHABLE };
            for (node, (rest, way)) in costs.iter().zip(paths.ways()).enumerate() {
                let own = way.cost;
                let apart = node != source as usize && node != candidate.node as usize;
                if !apart || own == Paths::UNREACHABLE || *rest >= back.saturating_add(own) {
                    continue;
                }
                let next_hops = way.next.as_slice();
                if next_hops.contains(&candidate.place) {
                    continue;
                }
                let shares_next_hop = next_hops.iter().any(|&place| {
                    let (next, link) = links[usize::from(place)];
                    next as usize != node
                        && *rest >= costs[next as usize].saturating_add(own - link)
                });
                let cost = candidate.cost.saturating_add(*rest);
                add(&mut ranks[node], Rank { shares_next_hop, cost, place: candidate.place });
            }
        }
        // Every neighbour can be reached over its own link, also one that others are not reached
        // through.
        for (place, &(node, cost)) in (0..).zip(&links) {
            if !paths.ways()[node as usize].next.as_slice().contains(&place) {
                add(&mut ranks[node as usize], Rank { shares_next_hop: false, cost, place });
            }
        }
        ranks.iter().map(standby).collect()
    }
}

/// Keeps the best, in order.
fn add(ranks: &mut [Option<Rank>; MAX_ALTERNATES], mut rank: Rank) {
    for slot in ranks {
        match slot {
            Some(held) if *held <= rank => {}
            Some(held) => std::mem::swap(held, &mut rank),
            None => {
                *slot = Some(rank);
                return;
            }
        }
    }
}

fn standby(ranks: &[Option<Rank>; MAX_ALTERNATES]) -> Standby {
    let mut standby = Standby::default();
    for (rank, slot) in ranks.iter().flatten().zip(&mut standby.places) {
        *slot = rank.place;
        standby.len += 1;
    }
    standby
}

/// The first hops and what their links cost, by place.
fn links(graph: &Graph, source: u32, paths: &Paths) -> Vec<(u32, u64)> {
    let edges = &graph.vertex(source).edges;
    let cost = |node: u32| {
        let at = edges.binary_search_by_key(&node, |edge| edge.to).ok();
        at.map_or(Paths::UNREACHABLE, |at| edges[at].cost.into())
    };
    paths.first.iter().map(|&node| (node, cost(node))).collect()
}

/// The neighbours that lead anywhere: of many, those with the cheapest links, then those with the
/// most.
fn candidates(graph: &Graph, source: u32, paths: &Paths) -> Vec<Candidate> {
    let links = links(graph, source, paths);
    let candidates = (0..).zip(links).map(|(place, (node, cost))| Candidate { place, node, cost });
    let mut candidates: Vec<_> = candidates
        .filter(|candidate| {
            let vertex = graph.vertex(candidate.node);
            vertex.transit && vertex.edges.len() > 1
        })
        .collect();
    candidates.sort_by_key(|candidate| {
        let degree = graph.vertex(candidate.node).edges.len();
        (candidate.cost, std::cmp::Reverse(degree), candidate.place)
    });
    candidates.truncate(MAX_SEARCHES);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::{graph, id, record};
    use crate::router::record::Record;
    use crate::router::record::draft::Draft;

    #[test]
    fn a_neighbour_whose_way_leads_back_here_is_no_alternate() {
        // s - a - t, and s - b behind a dear link: b's way to t is through s or, at the same cost,
        // not.
        for (dear, expected) in [(1, &["b"][..]), (2, &[]), (3, &[])] {
            let graph = graph(vec![
                record("s", &[("a", 1), ("b", 1)]),
                record("a", &[("s", 1), ("t", 1)]),
                record("b", &[("s", 1), ("t", 1 + dear)]),
                record("t", &[("a", 1), ("b", 1 + dear)]),
            ]);
            assert_eq!(alternates(&graph, "t"), expected, "{dear}");
        }
    }

    #[test]
    fn who_refuses_transit_is_an_alternate_for_itself_only_and_may_use_any() {
        let ring = |refuses: &str| {
            let mut records = vec![
                record("s", &[("a", 1), ("b", 3)]),
                record("a", &[("s", 1), ("b", 1), ("t", 1)]),
                record("b", &[("s", 3), ("a", 1), ("t", 3)]),
                record("t", &[("a", 1), ("b", 3)]),
            ];
            records.iter_mut().filter(|record| record.origin == id(refuses)).for_each(refuse);
            graph(records)
        };
        assert_eq!(alternates(&ring("none"), "t"), ["b"]);
        let graph = ring("b");
        assert_eq!(
            (alternates(&graph, "t"), alternates(&graph, "b")),
            (vec![], vec!["b".to_owned()])
        );
        // Nothing goes through s: b's way to a over t is no shorter than over s, and yet it cannot
        // lead back.
        let mut records = vec![
            record("s", &[("a", 1), ("b", 1)]),
            record("a", &[("s", 1), ("t", 1)]),
            record("b", &[("s", 1), ("t", 5)]),
            record("t", &[("a", 1), ("b", 5)]),
        ];
        refuse(&mut records[0]);
        assert_eq!(alternates(&self::graph(records), "a"), ["b"]);
    }

    #[test]
    fn an_alternate_that_avoids_the_next_hop_altogether_comes_before_a_cheaper_one() {
        // To t over n at 2. p comes back to n at 3; q has a way of its own at 7.
        let graph = graph(vec![
            record("s", &[("n", 1), ("p", 1), ("q", 4)]),
            record("n", &[("s", 1), ("p", 1), ("t", 1)]),
            record("p", &[("s", 1), ("n", 1)]),
            record("q", &[("s", 4), ("t", 3)]),
            record("t", &[("n", 1), ("q", 3)]),
        ]);
        assert_eq!(alternates(&graph, "t"), ["q", "p"]);
        assert_eq!(alternates(&graph, "n"), ["p", "q"], "for n itself there is nothing to avoid");
    }

    #[test]
    fn of_many_neighbours_those_with_cheap_links_and_many_of_them_are_searched() {
        let names: Vec<String> = (0..12).map(|n| format!("n{n:02}")).collect();
        let cost = |n: usize| if n < 3 { 2 } else { 1 };
        let links: Vec<(&str, u32)> =
            names.iter().enumerate().map(|(n, name)| (name.as_str(), cost(n))).collect();
        let mut records =
            vec![record("s", &links), record("t", &links), record("u", &[("n11", 1)])];
        for (n, name) in names.iter().enumerate() {
            let own = [("s", cost(n)), ("t", cost(n)), ("u", 1)];
            records.push(record(name, if n == 11 { &own } else { &own[..2] }));
        }
        let graph = graph(records);
        let source = graph.number(&id("s")).unwrap();
        let paths = Paths::find(&graph, source, |_, _| true);
        let places: Vec<u16> = candidates(&graph, source, &paths).iter().map(|c| c.place).collect();
        assert_eq!(places, [11, 3, 4, 5, 6, 7, 8, 9]);
    }

    fn refuse(record: &mut Record) {
        let draft = Draft { transit: false, ..Draft::clone(record) };
        *record = draft.seal().unwrap();
    }

    /// What stands in on the way from s.
    fn alternates(graph: &Graph, to: &str) -> Vec<String> {
        let source = graph.number(&id("s")).unwrap();
        let paths = Paths::find(graph, source, |_, _| true);
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let now = Instant::now();
        let mut alternates = Alternates::new(now);
        alternates.on_paths(graph, source, &paths, now);
        let found = std::iter::repeat_with(|| {
            alternates.step(graph, source, &paths, |_, _| true, Duration::ZERO, now)
        });
        let found = found.flatten().next().unwrap();
        let places = found[graph.number(&id(to)).unwrap() as usize];
        places
            .as_slice()
            .iter()
            .map(|&at| graph.id(paths.first[usize::from(at)]).to_string())
            .collect()
    }
}
