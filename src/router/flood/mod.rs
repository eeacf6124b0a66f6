//! Which neighbours get an update in full, and which only its id.

pub(in crate::router) mod audit;
pub(in crate::router) mod quiet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{Config, FloodMode};
use super::database::graph::Graph;
use super::neighbour::Neighbours;
use super::neighbour::throttle::Jitter;
use super::record::Record;
use crate::id::NodeId;

/// Trees kept, one per origin. More are searched for again when they are needed.
const MAX_TREES: usize = 1_024;

/// Updates that wait at every neighbour, above which all go along one tree.
const BURST_BACKLOG: usize = 64;

/// How long the tree for bursts is used although the mesh has changed.
const SHARED_TREE_AGE: Duration = Duration::from_millis(100);

/// Which neighbours get an update in full. Nothing depends on the choice but the load: all others
/// get the id, and pull what does not come.
///
/// Every node searches its own graph breadth first from the origin, with ties to the lowest name,
/// and sends to those that hang below it. As long as all have the same graph, that is one tree. A
/// search takes about 3 ns a node and directed edge; it is done once per origin and topology, and
/// with a budget of a tenth of one core. Beyond the budget, and while many updates wait, one tree
/// serves all origins: the one from the lowest name.
#[derive(Debug)]
pub(crate) struct Flood {
    me: NodeId,
    mode: FloodMode,
    /// By the number of the root.
    trees: BTreeMap<u32, Tree>,
    /// The topology that `trees` are of.
    generation: u64,
    shared: Option<Shared>,
    budget: Budget,
    search: Search,
    delay: Duration,
    jitter: Jitter,
}

/// What trees are made from.
#[derive(Debug)]
pub(crate) struct Ways<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) neighbours: &'a Neighbours,
    pub(crate) now: Instant,
}

/// Who gets the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Eager {
    All,
    Only(Arc<BTreeSet<NodeId>>),
}

#[derive(Debug)]
struct Tree {
    links: Vec<u32>,
    eager: Eager,
}

#[derive(Debug)]
struct Shared {
    generation: u64,
    found_at: Instant,
    eager: Eager,
}

impl Flood {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self {
            me: config.id.clone(),
            mode: config.flood,
            trees: BTreeMap::new(),
            generation: 0,
            shared: None,
            budget: Budget { paid_at: now },
            search: Search::default(),
            delay: config.timers.announce_delay,
            jitter: Jitter::new(config.seed.rotate_left(32)),
        }
    }

    /// Who gets the record of `origin` that was just stored. `withdrawn` is the one before, if the
    /// new one lists no link: the tree then hangs on what the origin had.
    pub(crate) fn eager(
        &mut self,
        ways: &Ways<'_>,
        origin: &NodeId,
        withdrawn: Option<&Record>,
    ) -> Eager {
        if self.mode == FloodMode::Full {
            return Eager::All;
        }
        let graph = ways.graph;
        if self.generation != graph.generation() {
            self.generation = graph.generation();
            self.trees.clear();
        }
        let Some(root) = graph.number(origin) else { return Eager::All };
        let record = withdrawn.unwrap_or_else(|| &graph.vertex(root).record);
        // The origin's word alone counts: the other end of a new link may not have spoken yet.
        let links: Vec<u32> = record.active_peers().filter_map(|peer| graph.number(peer)).collect();
        if let Some(tree) = self.trees.get(&root).filter(|tree| tree.links == links) {
            return tree.eager.clone();
        }
        if ways.neighbours.backlog() > BURST_BACKLOG || !self.budget.take(graph, ways.now) {
            return self.shared(ways);
        }
        self.search.start(graph, root, &links);
        let eager = self.search.below(ways, &self.me);
        if withdrawn.is_none() {
            if self.trees.len() >= MAX_TREES && !self.trees.contains_key(&root) {
                self.trees.pop_first();
            }
            self.trees.insert(root, Tree { links, eager: eager.clone() });
        }
        eager
    }

    /// When ids that are owed from now on are to be announced.
    pub(crate) fn announce_at(&mut self, now: Instant) -> Instant {
        now + self.delay + self.jitter.up_to(2 * self.delay)
    }

    /// Trees of origins that are gone are of no use any more.
    pub(crate) fn on_forgotten(&mut self) {
        self.trees.clear();
        self.shared = None;
    }

    /// How many trees are kept.
    pub(crate) fn kept_trees(&self) -> usize {
        self.trees.len() + usize::from(self.shared.is_some())
    }

    /// Trees know the neighbours of this node.
    pub(crate) fn on_sessions_changed(&mut self) {
        self.trees.clear();
        self.shared = None;
    }

    /// Along the tree from the lowest name of this part of the mesh, up and down.
    fn shared(&mut self, ways: &Ways<'_>) -> Eager {
        let (graph, now) = (ways.graph, ways.now);
        let fresh = |shared: &&Shared| {
            shared.generation == graph.generation()
                || now.saturating_duration_since(shared.found_at) < SHARED_TREE_AGE
        };
        if let Some(shared) = self.shared.as_ref().filter(fresh) {
            return shared.eager.clone();
        }
        let eager = self.find_shared(ways);
        self.shared =
            Some(Shared { generation: graph.generation(), found_at: now, eager: eager.clone() });
        eager
    }

    fn find_shared(&mut self, ways: &Ways<'_>) -> Eager {
        let graph = ways.graph;
        let Some(me) = graph.number(&self.me) else { return Eager::All };
        self.search.start(graph, me, &linked(graph, me));
        self.search.finish(graph);
        let root = graph
            .nodes()
            .map(|(_, node)| node)
            .find(|&node| self.search.reaches(node))
            .unwrap_or(me);
        self.search.start(graph, root, &linked(graph, root));
        let below = self.search.below(ways, &self.me);
        let parent = self.search.parent(graph, me).map(|parent| graph.id(parent).clone());
        match below {
            Eager::Only(below) => {
                Eager::Only(Arc::new(below.iter().cloned().chain(parent).collect()))
            }
            Eager::All => Eager::All,
        }
    }
}

impl Eager {
    pub(crate) fn contains(&self, neighbour: &NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Only(some) => some.contains(neighbour),
        }
    }
}

fn linked(graph: &Graph, node: u32) -> Vec<u32> {
    graph.vertex(node).edges.iter().map(|edge| edge.to).collect()
}

/// A breadth-first search, in memory that is used again. It goes as far as it must.
#[derive(Debug, Default)]
struct Search {
    root: u32,
    /// Links from the root, by node number.
    depth: Vec<u32>,
    queue: Vec<u32>,
    /// How many of the queue have been looked at.
    done: usize,
}

impl Search {
    const NOT_REACHED: u32 = u32::MAX;

    /// Begins at `root`, whose links are `links`, whatever the graph says of them.
    fn start(&mut self, graph: &Graph, root: u32, links: &[u32]) {
        self.root = root;
        self.depth.clear();
        self.depth.resize(graph.bound(), Self::NOT_REACHED);
        self.depth[root as usize] = 0;
        self.queue.clear();
        self.done = 0;
        for &to in links {
            self.reach(to, 1);
        }
    }

    /// Goes on until all nodes are known that are not further from the root than `node`.
    fn go_to(&mut self, graph: &Graph, node: u32) {
        self.run(graph, |depth, nearest| nearest >= depth[node as usize]);
    }

    /// Goes on to the end.
    fn finish(&mut self, graph: &Graph) {
        self.run(graph, |_, _| false);
    }

    fn run(&mut self, graph: &Graph, enough: impl Fn(&[u32], u32) -> bool) {
        while let Some(&node) = self.queue.get(self.done) {
            let depth = self.depth[node as usize];
            if enough(&self.depth, depth) {
                return;
            }
            self.done += 1;
            for edge in &graph.vertex(node).edges {
                self.reach(edge.to, depth + 1);
            }
        }
    }

    fn reach(&mut self, node: u32, depth: u32) {
        let at = &mut self.depth[node as usize];
        if *at == Self::NOT_REACHED {
            *at = depth;
            self.queue.push(node);
        }
    }

    fn reaches(&self, node: u32) -> bool {
        self.depth[node as usize] != Self::NOT_REACHED
    }

    /// The neighbours that hang below `me`, and those that hang nowhere; all, if `me` hangs
    /// nowhere.
    fn below(&mut self, ways: &Ways<'_>, me: &NodeId) -> Eager {
        let graph = ways.graph;
        let Some(me) = graph.number(me) else { return Eager::All };
        self.go_to(graph, me);
        if !self.reaches(me) {
            return Eager::All;
        }
        let full = ways.neighbours.full().into_iter();
        Eager::Only(Arc::new(
            full.filter(|neighbour| self.is_eager(graph, me, neighbour)).collect(),
        ))
    }

    fn is_eager(&mut self, graph: &Graph, me: u32, neighbour: &NodeId) -> bool {
        let Some(node) = graph.number(neighbour) else { return true };
        let depth = self.depth[me as usize];
        if !self.reaches(node) {
            let linked = graph.vertex(me).edges.iter().any(|edge| edge.to == node);
            if linked && me != self.root {
                return self.lowest_at(graph, node, depth) == Some(me);
            }
            // The link is not advertised by both: the neighbour hangs elsewhere, or nowhere.
            self.finish(graph);
        }
        !self.reaches(node)
            || (self.depth[node as usize] == depth + 1 && self.parent(graph, node) == Some(me))
    }

    /// Of those one link nearer to the root, the one with the lowest name.
    fn parent(&self, graph: &Graph, node: u32) -> Option<u32> {
        match self.depth[node as usize] {
            0 | Self::NOT_REACHED => None,
            1 => Some(self.root),
            depth => self.lowest_at(graph, node, depth - 1),
        }
    }

    /// Of those at this depth that are linked to a node, the one with the lowest name.
    fn lowest_at(&self, graph: &Graph, node: u32, depth: u32) -> Option<u32> {
        let at = graph.vertex(node).edges.iter().map(|edge| edge.to);
        at.filter(|&to| self.depth[to as usize] == depth).min_by_key(|&to| graph.id(to))
    }
}

/// A tenth of one core for searches, of which up to [`Budget::SAVED`] can be saved up. Like the
/// time that paths take, that of a search is estimated, so that the same inputs give the same
/// outputs.
#[derive(Debug)]
struct Budget {
    /// When all searches so far have been made up for.
    paid_at: Instant,
}

impl Budget {
    /// Three milliseconds of searches, at a tenth of the time: more than what a node that dies sets
    /// off at 10,000 nodes, little of what a cold start is.
    const SAVED: Duration = Duration::from_millis(30);

    fn take(&mut self, graph: &Graph, now: Instant) -> bool {
        let allowed = self.paid_at <= now + Self::SAVED;
        if allowed {
            let work = (graph.node_count() + graph.edge_count()) as u64 * 3;
            self.paid_at = self.paid_at.max(now) + 10 * Duration::from_nanos(work);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Limits, Timers};
    use super::super::database::graph::tests::{id, record};
    use super::super::neighbour::outbox::Owed;
    use super::super::neighbour::{Neighbour, NeighbourKind, SessionUp};
    use super::super::record::wire::Digest;
    use super::*;
    use crate::id::Cost;

    #[test]
    fn a_payload_goes_to_those_below_in_the_tree_of_its_origin() {
        // a - b - d and a - c - d: d hangs below b.
        let graph = square();
        assert_eq!(eager("a", &graph, "a", &["b", "c"]), only(&["b", "c"]));
        assert_eq!(eager("b", &graph, "a", &["a", "d"]), only(&["d"]));
        assert_eq!(eager("c", &graph, "a", &["a", "d"]), only(&[]));
        assert_eq!(eager("d", &graph, "a", &["b", "c"]), only(&[]));
    }

    #[test]
    fn a_neighbour_that_is_not_in_the_tree_gets_the_payload_and_so_do_all_from_a_node_outside() {
        let graph = square();
        assert_eq!(eager("c", &graph, "a", &["a", "d", "joiner"]), only(&["joiner"]));
        assert_eq!(eager("joiner", &graph, "a", &["c", "d"]), Eager::All);
        assert_eq!(eager("a", &graph, "stranger", &["b", "c"]), Eager::All);
    }

    #[test]
    fn a_neighbour_that_the_origin_alone_lists_is_below_the_origin() {
        let mut graph = square();
        graph.insert(record("new", &[("d", 1)]));
        graph.insert(record("a", &[("b", 1), ("c", 1), ("new", 1)]));
        assert_eq!(eager("a", &graph, "a", &["b", "c", "new"]), only(&["b", "c", "new"]));
        // A session that no record lists yet, with a node that others reach.
        assert_eq!(eager("b", &graph, "a", &["a", "c", "d"]), only(&["d"]));
    }

    #[test]
    fn the_tree_of_a_withdrawal_hangs_on_the_links_before() {
        let mut graph = square();
        let before = record("a", &[("b", 1), ("c", 1)]);
        graph.insert(record("a", &[]));
        let (neighbours, now) = neighbours(&["a", "d"]);
        let ways = Ways { graph: &graph, neighbours: &neighbours, now };
        assert_eq!(flood("b", now).eager(&ways, &id("a"), Some(&before)), only(&["d"]));
        assert_eq!(flood("b", now).eager(&ways, &id("a"), None), Eager::All);
    }

    #[test]
    fn beyond_the_budget_all_origins_share_the_tree_from_the_lowest_name() {
        let graph = square();
        let (neighbours, now) = neighbours(&["b", "c"]);
        let ways = Ways { graph: &graph, neighbours: &neighbours, now };
        let mut flood = flood("d", now);
        flood.budget.paid_at = now + 2 * Budget::SAVED;
        assert_eq!(flood.eager(&ways, &id("d"), None), only(&["b"]));
        let later = Ways { now: now + Budget::SAVED, ..ways };
        assert_eq!(flood.eager(&later, &id("d"), None), only(&["b", "c"]));
    }

    #[test]
    fn while_many_updates_wait_at_every_neighbour_all_origins_share_a_tree() {
        let graph = square();
        let (mut neighbours, now) = neighbours(&["b", "c"]);
        for (name, waiting) in [("b", 64), ("c", 65), ("b", 65)] {
            let session = neighbours.get_mut(&id(name)).unwrap();
            (session.got_end, session.ends_sync) = (true, true);
            for n in 0..waiting {
                neighbours.outbox(&id(name)).unwrap().owe(id(&format!("n{n}")), Owed::Payload);
            }
            let ways = Ways { graph: &graph, neighbours: &neighbours, now };
            let burst = (name, waiting) == ("b", 65);
            let expected = if burst { only(&["b"]) } else { only(&["b", "c"]) };
            assert_eq!(flood("d", now).eager(&ways, &id("d"), None), expected, "{name} {waiting}");
        }
    }

    #[test]
    fn the_memory_for_trees_is_bounded() {
        let mut graph = Graph::default();
        for n in 0..MAX_TREES + 10 {
            graph.insert(record(&format!("n{n}"), &[]));
        }
        let (neighbours, now) = neighbours(&["n0"]);
        let mut flood = flood("me", now);
        for n in 0..MAX_TREES + 10 {
            let now = now + Budget::SAVED * n as u32;
            flood.eager(
                &Ways { graph: &graph, neighbours: &neighbours, now },
                &id(&format!("n{n}")),
                None,
            );
        }
        assert_eq!(flood.trees.len(), MAX_TREES);
    }

    fn square() -> Graph {
        let mut graph = Graph::default();
        for (origin, links) in
            [("d", ["b", "c"]), ("a", ["b", "c"]), ("c", ["a", "d"]), ("b", ["a", "d"])]
        {
            graph.insert(record(origin, &links.map(|to| (to, 1))));
        }
        graph
    }

    fn eager(me: &str, graph: &Graph, origin: &str, of: &[&str]) -> Eager {
        let (neighbours, now) = neighbours(of);
        flood(me, now).eager(&Ways { graph, neighbours: &neighbours, now }, &id(origin), None)
    }

    fn only(names: &[&str]) -> Eager {
        Eager::Only(Arc::new(names.iter().map(|name| id(name)).collect()))
    }

    fn flood(me: &str, now: Instant) -> Flood {
        Flood::new(&Config::new(id(me), 1, 1, 1), now)
    }

    fn neighbours(names: &[&str]) -> (Neighbours, Instant) {
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let now = Instant::now();
        let mut neighbours = Neighbours::new(Limits::default(), Timers::default());
        for name in names {
            let kind = NeighbourKind::Full;
            let up = SessionUp { neighbour: id(name), instance: 1, cost: Cost::DEFAULT, kind };
            let session =
                Neighbour::new(&up, super::super::NeighbourState::Up, Digest::default(), now);
            neighbours.insert(id(name), session);
        }
        (neighbours, now)
    }
}
