//! What must hold once the mesh is at rest, computed the naive way from the true links.

use std::collections::{BTreeSet, VecDeque};

use receptor_quic::id::Cost;
use receptor_quic::router::{DeadlineReason, Digest, LinkClass, NeighbourState, Record, Router};

use crate::world::World;

/// Complaints that are told.
const TOLD: usize = 12;
const FAR: u32 = u32::MAX;

/// What was found wrong.
#[derive(Default)]
pub(crate) struct Findings {
    complaints: Vec<String>,
    divergent: BTreeSet<usize>,
    more: usize,
    /// Ordered pairs of living nodes of which the first has a route to the second.
    pub(crate) reachable: u64,
    /// Those that the true links connect.
    pub(crate) expected: u64,
}

impl Findings {
    pub(crate) fn is_fine(&self) -> bool {
        self.complaints.is_empty()
    }

    pub(crate) fn divergent_nodes(&self) -> usize {
        self.divergent.len()
    }

    pub(crate) fn complaints(&self) -> impl Iterator<Item = &str> {
        self.complaints.iter().map(String::as_str)
    }

    /// Complaints beyond those that are told.
    pub(crate) fn more(&self) -> usize {
        self.more
    }

    fn complain(&mut self, node: usize, complaint: impl FnOnce() -> String) {
        self.divergent.insert(node);
        if self.complaints.len() < TOLD {
            self.complaints.push(complaint());
        } else {
            self.more += 1;
        }
    }
}

/// Checks everything.
pub(crate) fn check(world: &World) -> Findings {
    let mut findings = Findings::default();
    let truth = Truth::of(world);
    for node in world.living() {
        own_record(world, &truth, node, &mut findings);
        database(world, &truth, node, &mut findings);
        routes(world, &truth, node, &mut findings);
        idle(&world.nodes[node].router, node, &mut findings);
    }
    if let Some(failure) = world.journal.failure() {
        findings.complaints.insert(0, failure.to_owned());
    }
    findings
}

/// The `count` nodes that are nearest to one, by number of node.
pub(crate) fn near(
    nodes: usize,
    links: &[(usize, usize)],
    start: usize,
    count: usize,
) -> Vec<bool> {
    let far = distances(&adjacency(nodes, links.iter().copied()), start);
    let mut order: Vec<usize> = (0..nodes).collect();
    order.sort_by_key(|node| far[*node]);
    let mut near = vec![false; nodes];
    order[..count].iter().for_each(|node| near[*node] = true);
    near
}

/// Links to the nearest of `starts`, by number of node; [`u32::MAX`]: none leads there.
pub(crate) fn distances_from(nodes: usize, links: &[(usize, usize)], starts: &[usize]) -> Vec<u32> {
    let adjacency = adjacency(nodes, links.iter().copied());
    starts.iter().fold(vec![FAR; nodes], |best, start| {
        best.into_iter().zip(distances(&adjacency, *start)).map(|(a, b)| a.min(b)).collect()
    })
}

/// The true links, and what follows from them. All links cost one.
struct Truth<'a> {
    links: Vec<Vec<usize>>,
    /// Links between any two nodes.
    distance: Vec<Vec<u32>>,
    /// What each living node last said.
    records: Vec<Option<&'a Record>>,
}

impl<'a> Truth<'a> {
    fn of(world: &'a World) -> Self {
        let links = adjacency(world.nodes.len(), world.links());
        let distance = (0..links.len()).map(|source| distances(&links, source)).collect();
        let own = |node: usize| {
            world.nodes[node].router.database().find(|r| r.origin == world.nodes[node].id)
        };
        let records =
            world.nodes.iter().zip(0..).map(|(node, at)| if node.alive { own(at) } else { None });
        Self { links, distance, records: records.collect() }
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        self.distance[a][b] != FAR
    }
}

/// The record of a node says what it is truly linked to, and is of the process that runs.
fn own_record(world: &World, truth: &Truth<'_>, node: usize, findings: &mut Findings) {
    let me = &world.nodes[node];
    let Some(record) = truth.records[node] else {
        if !truth.links[node].is_empty() {
            findings.complain(node, || format!("{} has links and no record of its own", me.id));
        }
        return;
    };
    let said: Vec<usize> = record.links.iter().map(|link| World::number_of(&link.peer)).collect();
    let plain = record
        .links
        .iter()
        .all(|link| link.class == LinkClass::Active && link.cost == Cost::DEFAULT);
    if said != truth.links[node] || !plain {
        findings.complain(node, || {
            format!("{} says links {said:?}, in truth {:?}", me.id, truth.links[node])
        });
    }
    if record.version != me.router.version() {
        findings.complain(node, || {
            format!("{} holds {} of itself, not its newest", me.id, record.version)
        });
    }
}

/// A node holds the very records that the origins hold, of all that it is connected to.
fn database(world: &World, truth: &Truth<'_>, node: usize, findings: &mut Findings) {
    let me = &world.nodes[node];
    let mut held: Vec<Option<&Record>> = vec![None; world.nodes.len()];
    for record in me.router.database() {
        held[World::number_of(&record.origin)] = Some(record);
    }
    let (mut digest, mut expected) = (Digest::default(), Digest::default());
    for origin in (0..held.len()).filter(|origin| truth.connected(node, *origin)) {
        digest = held[origin].map_or(digest, |record| digest.with(record.advertisement()));
        expected =
            truth.records[origin].map_or(expected, |record| expected.with(record.advertisement()));
        if held[origin] != truth.records[origin] {
            let versions = [held[origin], truth.records[origin]].map(|record| {
                record.map_or_else(|| "nothing".to_owned(), |record| record.version.to_string())
            });
            let origin = &world.nodes[origin].id;
            findings.complain(node, || {
                format!("{} holds {} of {origin}, which says {}", me.id, versions[0], versions[1])
            });
        }
    }
    if digest != expected {
        findings.complain(node, || format!("{} has digest {digest:?}, not {expected:?}", me.id));
    }
}

/// Every route is as short as the true links allow, and each of its next hops is one link nearer to
/// the target: so no walk visits a node twice, whichever next hops it takes. All of equal cost are
/// there, up to eight, lowest names first.
fn routes(world: &World, truth: &Truth<'_>, node: usize, findings: &mut Findings) {
    let me = &world.nodes[node].id;
    let table = world.nodes[node].router.table();
    let connected =
        (0..world.nodes.len()).filter(|other| truth.connected(node, *other)).count() - 1;
    findings.expected += connected as u64;
    let mut found = 0;
    for route in table.iter() {
        let target = World::number_of(&route.id);
        if !truth.connected(node, target) {
            findings.complain(node, || {
                format!("{me} has a route to {}, which is not connected", route.id)
            });
            continue;
        }
        found += 1;
        let distance = truth.distance[node][target];
        if route.cost != u64::from(distance) || route.hops != distance {
            findings.complain(node, || {
                format!("{me} to {} costs {}, in truth {distance}", route.id, route.cost)
            });
        }
        let nearer = truth.links[node]
            .iter()
            .copied()
            .filter(|hop| truth.distance[*hop][target] < distance)
            .take(8);
        if !route.next_hops.iter().map(World::number_of).eq(nearer.clone()) {
            let (hops, nearer) = (&route.next_hops, nearer.collect::<Vec<_>>());
            findings.complain(node, || {
                format!("{me} to {} goes over {hops:?}, should over {nearer:?}", route.id)
            });
        }
    }
    findings.reachable += found;
    if found != connected as u64 {
        findings.complain(node, || format!("{me} has routes to {found} of {connected} nodes"));
    }
}

/// Nothing is left to be done but to forget.
fn idle(router: &Router, node: usize, findings: &mut Findings) {
    let me = router.id();
    for view in
        router.neighbours().filter(|view| view.state != NeighbourState::Up || view.backlog > 0)
    {
        findings.complain(node, || {
            format!("{me} to {}: {:?}, {} to be sent", view.id, view.state, view.backlog)
        });
    }
    if let Some(deadline) = router.poll_timeout().filter(|deadline| {
        !matches!(deadline.reason, DeadlineReason::Expire | DeadlineReason::Audit)
    }) {
        findings.complain(node, || format!("{me} is not at rest: {:?}", deadline.reason));
    }
}

fn adjacency(nodes: usize, links: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut adjacency = vec![Vec::new(); nodes];
    for (a, b) in links {
        adjacency[a].push(b);
        adjacency[b].push(a);
    }
    adjacency.iter_mut().for_each(|peers| peers.sort_unstable());
    adjacency
}

/// Links from `source` to every other node, level by level.
fn distances(adjacency: &[Vec<usize>], source: usize) -> Vec<u32> {
    let mut distance = vec![FAR; adjacency.len()];
    distance[source] = 0;
    let mut queue = VecDeque::from([source]);
    while let Some(at) = queue.pop_front() {
        for &next in &adjacency[at] {
            if distance[next] == FAR {
                distance[next] = distance[at] + 1;
                queue.push_back(next);
            }
        }
    }
    distance
}
