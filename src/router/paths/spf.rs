//! Shortest paths, and when to compute them.

use std::time::{Duration, Instant};

use crate::router::database::graph::{Effect, Graph};

use crate::router::database::vertex::Edge;
use crate::router::paths::radix_heap::RadixHeap;

/// The most equal-cost next hops that are kept for a node: the lowest ids.
pub(crate) const MAX_NEXT_HOPS: usize = 8;

/// Shortest paths from one node to all others, by node number.
#[derive(Debug)]
pub(crate) struct Paths {
    ways: Vec<Way>,
    /// The first hops that [`NextHops`] speaks of, ascending by name.
    pub(crate) first: Vec<u32>,
}

/// The shortest paths to one node. Half a cache line, for a search of a large graph waits for
/// memory and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// The total cost; `u64::MAX`: not reachable.
    pub(crate) cost: u64,
    /// Links on the path; of several of equal cost, on the shortest.
    pub(crate) hops: u32,
    pub(crate) next: NextHops,
}

/// A small ascending set of first hops, by their place in [`Paths::first`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextHops {
    len: u8,
    places: [u16; MAX_NEXT_HOPS],
}

impl NextHops {
    fn one(place: u16) -> Self {
        let mut hops = Self { len: 1, places: [0; MAX_NEXT_HOPS] };
        hops.places[0] = place;
        hops
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        &self.places[..usize::from(self.len)]
    }

    /// The lowest of both. No allocation: it is made for every tie of every search.
    fn union(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        let (mut ours, mut theirs) = (self.as_slice(), other.as_slice());
        let mut hops = Self::default();
        for slot in &mut hops.places {
            let (Some(&a), Some(&b)) =
                (ours.first().or_else(|| theirs.first()), theirs.first().or_else(|| ours.first()))
            else {
                break;
            };
            *slot = a.min(b);
            hops.len += 1;
            ours = &ours[usize::from(ours.first() == Some(&*slot))..];
            theirs = &theirs[usize::from(theirs.first() == Some(&*slot))..];
        }
        hops
    }
}

impl Paths {
    pub(crate) const UNREACHABLE: u64 = u64::MAX;

    /// Dijkstra from `source` over the edges, by their two ends, that `usable` allows. Nodes that
    /// refuse transit are ends only. Only what is reachable is touched.
    ///
    /// Costs are positive, so all predecessors of a node on shortest paths are final before the
    /// node is: its hops and next hops do not depend on the order in which nodes are numbered.
    pub(crate) fn find(graph: &Graph, source: u32, usable: impl Fn(u32, u32) -> bool) -> Self {
        let edges = graph.vertex(source).edges.iter().copied();
        let mut first: Vec<Edge> = edges.filter(|edge| usable(source, edge.to)).collect();
        first.sort_unstable_by_key(|edge| graph.id(edge.to));
        let nowhere = Way { cost: Self::UNREACHABLE, hops: 0, next: NextHops::default() };
        let mut paths = Self {
            ways: vec![nowhere; graph.bound()],
            first: first.iter().map(|edge| edge.to).collect(),
        };
        let csr = graph.csr();
        let mut queue = RadixHeap::new();
        paths.ways[source as usize].cost = 0;
        for (place, edge) in (0..).zip(&first) {
            paths.relax(edge.to, u64::from(edge.cost), 1, NextHops::one(place), &mut queue);
        }
        while let Some((cost, node)) = queue.pop() {
            let way = paths.ways[node as usize];
            if cost > way.cost {
                continue;
            }
            let (hops, next) = (way.hops + 1, way.next);
            for edge in
                csr.edges(node).iter().filter(|edge| edge.to != source && usable(node, edge.to))
            {
                paths.relax(edge.to, cost + u64::from(edge.cost), hops, next, &mut queue);
            }
        }
        paths
    }

    /// The way to a node, if there is one. None to what has a number only since the paths were
    /// found.
    pub(crate) fn way(&self, node: u32) -> Option<&Way> {
        self.ways.get(node as usize).filter(|way| way.cost != Self::UNREACHABLE)
    }

    /// What it costs to reach a node; [`UNREACHABLE`](Self::UNREACHABLE) if nothing leads there.
    pub(crate) fn cost(&self, node: u32) -> u64 {
        self.way(node).map_or(Self::UNREACHABLE, |way| way.cost)
    }

    /// All ways, by node number, those that lead nowhere, too.
    pub(crate) fn ways(&self) -> &[Way] {
        &self.ways
    }

    fn relax(&mut self, node: u32, cost: u64, hops: u32, next: NextHops, queue: &mut RadixHeap) {
        let way = &mut self.ways[node as usize];
        if cost < way.cost {
            *way = Way { cost, hops, next };
            queue.push(cost, node);
        } else if cost == way.cost {
            way.hops = way.hops.min(hops);
            way.next = way.next.union(next);
        }
    }
}

/// What it costs to reach every node from `source`, by node number, under the same rules as
/// [`Paths::find`].
pub(crate) fn costs(graph: &Graph, source: u32, usable: impl Fn(u32, u32) -> bool) -> Vec<u64> {
    let csr = graph.csr();
    let mut costs = vec![Paths::UNREACHABLE; graph.bound()];
    let mut queue = RadixHeap::new();
    queue.push(0, source);
    costs[source as usize] = 0;
    while let Some((cost, node)) = queue.pop() {
        if cost > costs[node as usize] {
            continue;
        }
        let edges = if node == source { &graph.vertex(node).edges } else { csr.edges(node) };
        for edge in edges.iter().filter(|edge| usable(node, edge.to)) {
            let cost = cost + u64::from(edge.cost);
            if cost < costs[edge.to as usize] {
                costs[edge.to as usize] = cost;
                queue.push(cost, edge.to);
            }
        }
    }
    costs
}

/// What is connected to the node that the paths were found from, over the same edges, by node
/// number, whether or not the nodes between grant transit: the lease of records, on which all nodes
/// must agree.
pub(crate) fn connected(
    graph: &Graph,
    paths: &Paths,
    usable: impl Fn(u32, u32) -> bool,
) -> Vec<bool> {
    let mut seen: Vec<bool> = paths.ways.iter().map(|way| way.cost != Paths::UNREACHABLE).collect();
    // The search went on from all but these.
    let ends = graph.csr().ends_only().iter().copied();
    let mut stack: Vec<u32> = ends.filter(|&node| seen[node as usize]).collect();
    while let Some(node) = stack.pop() {
        for edge in graph.vertex(node).edges.iter().filter(|edge| usable(node, edge.to)) {
            if !std::mem::replace(&mut seen[edge.to as usize], true) {
                stack.push(edge.to);
            }
        }
    }
    seen
}

/// What a stub's route takes, in a table of a thousand: made, compared with the one before, and
/// thrown away.
const STUB_ROUTE: Duration = Duration::from_nanos(300);

/// When paths are computed: at once if the processor had nine times as long to rest as the last run
/// took, else then.
///
/// A pure router cannot measure how long a run takes, so the duration is estimated from the size of
/// the graph: 20 ns a node, and 5 ps a directed edge times the cube of log2(nodes), for the less of
/// a graph fits into the caches, the more each edge takes. That gives 0.06 ms at 1,000 nodes of
/// degree eight, 1.3 ms at 10,000 and 22 ms at 100,000, within a third of what an optimised build
/// was measured to take. With the factor of ten, path finding takes about a tenth of one core at
/// most, and small meshes react at once.
#[derive(Debug)]
pub(crate) struct Schedule {
    wanted: Effect,
    not_before: Instant,
    runs: u64,
}

impl Schedule {
    pub(crate) fn new(now: Instant) -> Self {
        Self { wanted: Effect::None, not_before: now, runs: 0 }
    }

    /// Something changed that paths depend on.
    pub(crate) fn on_change(&mut self) {
        self.on_effect(Effect::Paths);
    }

    pub(crate) fn on_effect(&mut self, effect: Effect) {
        self.wanted = self.wanted.max(effect);
    }

    /// What to do now. If anything, the next run is put off by what the search of paths is thought
    /// to take. So it is by what the routes to `stubs` take.
    pub(crate) fn take(&mut self, graph: &Graph, stubs: usize, now: Instant) -> Effect {
        if now < self.not_before || !self.is_wanted() {
            return Effect::None;
        }
        self.not_before =
            now + Self::rest(graph) + 10 * STUB_ROUTE * u32::try_from(stubs).unwrap_or(u32::MAX);
        self.runs += 1;
        std::mem::take(&mut self.wanted)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted != Effect::None
    }

    /// How many times something was to be done.
    pub(crate) fn runs(&self) -> u64 {
        self.runs
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.is_wanted().then_some(self.not_before)
    }

    /// A run over this graph, and nine times as long to rest.
    pub(crate) fn rest(graph: &Graph) -> Duration {
        10 * estimate(graph.node_count(), graph.edge_count())
    }
}

fn estimate(nodes: usize, directed_edges: usize) -> Duration {
    let log = u64::from(nodes.max(2).ilog2()) + 1;
    Duration::from_nanos(20 * nodes as u64 + log.pow(3) * directed_edges as u64 / 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::database::graph::tests::{id, record};

    #[test]
    fn equal_cost_paths_share_the_traffic_and_hops_count_the_shortest() {
        let mut graph = Graph::default();
        for record in [
            record("s", &[("b", 1), ("a", 1)]),
            record("a", &[("s", 1), ("m", 2)]),
            record("b", &[("s", 1), ("x", 1)]),
            record("x", &[("b", 1), ("m", 1)]),
            record("m", &[("a", 2), ("x", 1)]),
        ] {
            graph.insert(record);
        }
        let number = |name| graph.number(&id(name)).unwrap();
        let paths = Paths::find(&graph, number("s"), |_, _| true);
        let m = paths.way(number("m")).unwrap();
        assert_eq!((m.cost, m.hops), (3, 2));
        let next: Vec<_> =
            m.next.as_slice().iter().map(|&place| paths.first[place as usize]).collect();
        assert_eq!(next, [number("a"), number("b")]);
    }

    #[test]
    fn the_first_links_of_the_source_are_those_it_can_use() {
        let mut graph = Graph::default();
        graph.insert(record("s", &[("a", 1), ("b", 9)]));
        graph.insert(record("a", &[("s", 1), ("b", 1)]));
        graph.insert(record("b", &[("a", 1), ("s", 9)]));
        let (s, a, b) = (
            graph.number(&id("s")).unwrap(),
            graph.number(&id("a")).unwrap(),
            graph.number(&id("b")).unwrap(),
        );
        assert_eq!(Paths::find(&graph, s, |_, _| true).cost(b), 2);
        assert_eq!(Paths::find(&graph, s, |from, to| (from, to) != (s, a)).cost(a), 10);
        assert!(Paths::find(&graph, s, |_, _| false).way(b).is_none());
    }

    #[test]
    fn more_equal_paths_than_are_kept_leave_the_lowest_names() {
        let mut graph = Graph::default();
        let names: Vec<String> = (0..12).map(|n| format!("n{n:02}")).collect();
        let links: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        for name in &names {
            graph.insert(record(name, &[("s", 1), ("t", 1)]));
        }
        graph.insert(record("t", &links));
        graph.insert(record("s", &links));
        let paths = Paths::find(&graph, graph.number(&id("s")).unwrap(), |_, _| true);
        let t = paths.way(graph.number(&id("t")).unwrap()).unwrap();
        assert_eq!(t.next.as_slice(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn the_union_of_next_hops_is_the_lowest_of_both_once_each() {
        let hops = |places: &[u16]| {
            places.iter().fold(NextHops::default(), |hops, &place| hops.union(NextHops::one(place)))
        };
        let union = |a: &[u16], b: &[u16]| hops(a).union(hops(b)).as_slice().to_vec();
        assert_eq!(union(&[3, 1, 2], &[2, 0]), [0, 1, 2, 3]);
        assert_eq!(union(&[], &[7]), [7]);
        assert_eq!(union(&[7], &[7]), [7]);
        assert_eq!(union(&[0, 2, 4, 6, 8, 10, 12, 14], &[1, 3, 5]), [0, 1, 2, 3, 4, 5, 6, 8]);
        assert_eq!(union(&[1], &[0, 2, 4, 6, 8, 10, 12, 14]), [0, 1, 2, 4, 6, 8, 10, 12]);
    }

    #[test]
    fn the_budget_puts_off_runs_and_drops_none() {
        let mut graph = Graph::default();
        graph.insert(record("a", &[]));
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        assert_eq!(schedule.take(&graph, 0, now), Effect::None);
        schedule.on_change();
        assert_eq!(schedule.take(&graph, 1_000, now), Effect::Paths);
        schedule.on_effect(Effect::Stubs);
        schedule.on_change();
        assert_eq!(schedule.take(&graph, 0, now), Effect::None);
        let at = schedule.next_timeout().unwrap();
        assert!(at > now + Duration::from_millis(3));
        assert_eq!(
            schedule.take(&graph, 0, at),
            Effect::Paths,
            "which the stubs' routes are made of, too"
        );
        assert_eq!(estimate(1_000, 8_000), Duration::from_micros(60));
        assert_eq!(estimate(100_000, 800_000), Duration::from_micros(21_652));
    }
}
