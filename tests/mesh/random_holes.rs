//! Random meshes with a relay that forwards nothing: a pair with an honest path uses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use receptor_quic::Event;
use receptor_quic::switch::DropReason;
use receptor_quic::testing::Mesh;
use tokio::time::{Instant, sleep, timeout};

use crate::rng::Rng;
use crate::support::id;

/// The time within which a pair must be connected.
const BACK: Duration = Duration::from_secs(5);
/// Detours that an end may report for one peer, until it has found one that stays.
const MAX_DETOURS: usize = 2;

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

/// A graph of nodes by number, all links of which cost the same.
struct Graph {
    nodes: usize,
    links: BTreeSet<(usize, usize)>,
}

impl Graph {
    /// A ring that all nodes are on, with chords.
    fn random(rng: &mut Rng) -> Self {
        let nodes = 5 + below(rng, 3);
        let mut links: BTreeSet<_> = (1..nodes).map(|n| (n - 1, n)).collect();
        links.insert((0, nodes - 1));
        for _ in 0..below(rng, nodes) {
            let (a, b) = (below(rng, nodes), below(rng, nodes));
            if a < b {
                links.insert((a, b));
            }
        }
        Self { nodes, links }
    }

    fn neighbours(&self, of: usize) -> impl Iterator<Item = usize> {
        let other =
            move |&(a, b): &(usize, usize)| if a == of { Some(b) } else { (b == of).then_some(a) };
        self.links.iter().filter_map(other)
    }

    /// The number of links from each node to `to`.
    fn distances(&self, to: usize) -> BTreeMap<usize, usize> {
        let (mut found, mut queue) = (BTreeMap::from([(to, 0)]), VecDeque::from([to]));
        while let Some(node) = queue.pop_front() {
            for next in self.neighbours(node) {
                if !found.contains_key(&next) {
                    found.insert(next, found[&node] + 1);
                    queue.push_back(next);
                }
            }
        }
        found
    }

    /// Whether some neighbour of `from` has shortest paths to `to` that avoid the hole and do not
    /// lead back: all that an end can choose is its first hop.
    fn leads_around(&self, from: usize, to: usize, hole: usize) -> bool {
        let (to_end, to_hole, to_start) =
            (self.distances(to), self.distances(hole), self.distances(from));
        self.neighbours(from).any(|first| {
            let rest = to_end[&first];
            let avoids = |node: usize, from_node: &BTreeMap<usize, usize>| {
                node == to || rest < from_node[&first] + to_end[&node]
            };
            first != hole && avoids(hole, &to_hole) && avoids(from, &to_start)
        })
    }
}

async fn play(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let graph = Graph::random(&mut rng);
    let name = |node: usize| format!("n{node}");
    let links: Vec<_> =
        graph.links.iter().map(|(a, b)| format!("{}-{}", name(*a), name(*b))).collect();
    let mesh = Mesh::builder(links.iter().map(String::as_str)).start().await;
    let hole = below(&mut rng, graph.nodes);
    mesh.swallow(&name(hole));
    let honest: Vec<usize> = (0..graph.nodes).filter(|node| *node != hole).collect();
    let mut events: BTreeMap<usize, _> =
        honest.iter().map(|node| (*node, mesh.node(&name(*node)).events())).collect();
    let mut pairs = 0;
    for &from in &honest {
        for &to in honest.iter().filter(|to| **to != from) {
            if !graph.leads_around(from, to, hole) || !graph.leads_around(to, from, hole) {
                continue;
            }
            pairs += 1;
            let begun = Instant::now();
            let (node, peer) = (mesh.node(&name(from)), id(&name(to)));
            while !matches!(timeout(Duration::from_secs(1), node.ping(&peer)).await, Ok(Ok(_))) {
                assert!(
                    begun.elapsed() < BACK,
                    "seed {seed}: {links:?} without n{hole}: n{from} to n{to}"
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // In use, the detours stay as they are.
    for round in 0..3 {
        sleep(Duration::from_secs(10)).await;
        for &from in &honest {
            for &to in honest.iter().filter(|to| **to != from) {
                if graph.leads_around(from, to, hole) && graph.leads_around(to, from, hole) {
                    let ping = mesh.node(&name(from)).ping(&id(&name(to))).await;
                    assert!(ping.is_ok(), "seed {seed}, round {round}: n{from} to n{to}: {ping:?}");
                }
            }
        }
    }
    for (node, events) in &mut events {
        let mut detours: BTreeMap<_, usize> = BTreeMap::new();
        while let Ok(event) = events.try_recv() {
            if let Event::NextHopAvoided { peer, .. } = event {
                *detours.entry(peer).or_default() += 1;
            }
        }
        assert!(
            detours.values().all(|count| *count <= MAX_DETOURS),
            "seed {seed}: n{node}: {detours:?}"
        );
        let status = mesh.node(&name(*node)).status().await.unwrap();
        let looped = status.switch.dropped.get(&DropReason::HopLimit).copied().unwrap_or_default();
        assert_eq!(
            looped, 0,
            "seed {seed}: {links:?} without n{hole}: packets loop through n{node}"
        );
    }
    pairs
}

#[tokio::test(start_paused = true)]
async fn pairs_with_an_honest_path_find_it_in_random_meshes() {
    let mut pairs = 0;
    for seed in 0..25 {
        pairs += play(seed).await;
    }
    assert!(pairs > 200, "{pairs} pairs are too few for a result");
}
