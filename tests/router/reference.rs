//! What every router should say once nothing changes any more, computed the naive way from the true
//! links.

use std::collections::{BTreeMap, BTreeSet};

use receptor_quic::NodeId;
use receptor_quic::router::{DeadlineReason, LinkClass, NeighbourState, Route};

use crate::sim::Sim;

/// The true links between living nodes.
pub(crate) struct Reference {
    nodes: Vec<NodeId>,
    /// Both directions of every link, at the larger cost of its ends.
    edges: BTreeMap<NodeId, BTreeMap<NodeId, u64>>,
    transit: BTreeMap<NodeId, bool>,
}

impl Reference {
    pub(crate) fn of(sim: &Sim) -> Self {
        let nodes = sim.living();
        let mut edges: BTreeMap<NodeId, BTreeMap<NodeId, u64>> =
            nodes.iter().map(|id| (id.clone(), BTreeMap::new())).collect();
        for connection in sim.connections.values().filter(|connection| !connection.broken) {
            let cost = u64::from(connection.costs[0].max(connection.costs[1]));
            let [a, b] = &connection.ends;
            edges.get_mut(a).unwrap().insert(b.clone(), cost);
            edges.get_mut(b).unwrap().insert(a.clone(), cost);
        }
        let transit = nodes.iter().map(|id| (id.clone(), sim.nodes[id].transit)).collect();
        Self { nodes, edges, transit }
    }

    /// How many links a node has.
    pub(crate) fn links(&self, of: &NodeId) -> usize {
        self.edges[of].len()
    }

    pub(crate) fn component(&self, of: &NodeId) -> BTreeSet<NodeId> {
        let mut component = BTreeSet::from([of.clone()]);
        loop {
            let next: BTreeSet<NodeId> = component
                .iter()
                .flat_map(|id| self.edges[id].keys())
                .filter(|id| !component.contains(*id))
                .cloned()
                .collect();
            if next.is_empty() {
                return component;
            }
            component.extend(next);
        }
    }

    /// Cost and fewest hops from `source` to all that traffic reaches, by Bellman and Ford.
    pub(crate) fn costs(&self, source: &NodeId) -> BTreeMap<NodeId, (u64, u32)> {
        let mut best = BTreeMap::from([(source.clone(), (0, 0))]);
        loop {
            let mut better = best.clone();
            for (from, (cost, hops)) in
                best.iter().filter(|(id, _)| *id == source || self.transit[*id])
            {
                for (to, edge) in &self.edges[from] {
                    let offer = (cost + edge, hops + 1);
                    let held = better.entry(to.clone()).or_insert(offer);
                    *held = offer.min(*held);
                }
            }
            if better == best {
                return best;
            }
            best = better;
        }
    }

    /// The neighbours of `source` that lie on cheapest paths to `target`.
    fn next_hops(
        &self,
        source: &NodeId,
        target: &NodeId,
        all: &BTreeMap<NodeId, BTreeMap<NodeId, (u64, u32)>>,
    ) -> Vec<NodeId> {
        let total = all[source][target].0;
        let on_path = self.edges[source].iter().filter(|(next, edge)| {
            let rest = if *next == target {
                Some(0)
            } else {
                all[*next].get(target).map(|(cost, _)| *cost)
            };
            (*next == target || self.transit[*next])
                && rest.is_some_and(|rest| **edge + rest == total)
        });
        on_path.map(|(next, _)| next.clone()).take(8).collect()
    }

    /// The alternates of `source` to `target`, by the definition; unlike the router, among all
    /// neighbours.
    fn alternates(
        &self,
        source: &NodeId,
        target: &NodeId,
        all: &BTreeMap<NodeId, BTreeMap<NodeId, (u64, u32)>>,
    ) -> Vec<NodeId> {
        let dist = |from: &NodeId, to: &NodeId| {
            if from == to { Some(0) } else { all[from].get(to).map(|d| d.0) }
        };
        let next_hops = self.next_hops(source, target, all);
        let through = |from: &NodeId, by: &NodeId| {
            if *by != *target && !self.transit[by] {
                return u64::MAX;
            }
            dist(from, by).zip(dist(by, target)).map_or(u64::MAX, |(a, b)| a + b)
        };
        let mut ranked: Vec<(bool, u64, &NodeId)> = Vec::new();
        for (m, edge) in self.edges[source].iter().filter(|(m, _)| !next_hops.contains(m)) {
            let Some(rest) = dist(m, target) else { continue };
            if rest >= through(m, source) || !(self.transit[m] || m == target) {
                continue;
            }
            let shares =
                next_hops.iter().any(|n| n != target && m != target && rest >= through(m, n));
            ranked.push((shares, edge + rest, m));
        }
        ranked.sort();
        ranked.into_iter().map(|(_, _, m)| m.clone()).take(2).collect()
    }
}

/// Asserts that every router says what it should.
pub(crate) fn assert_converged(sim: &Sim) {
    let reference = Reference::of(sim);
    let all: BTreeMap<NodeId, BTreeMap<NodeId, (u64, u32)>> =
        reference.nodes.iter().map(|id| (id.clone(), reference.costs(id))).collect();
    for id in &reference.nodes {
        assert_links(sim, &reference, id);
        assert_databases(sim, &reference, id);
        assert_routes(sim, &reference, &all, id);
        assert_walks(sim, id);
        assert_idle(sim, id);
    }
}

/// Each record says what its origin is truly linked to, and is of a living process.
fn assert_links(sim: &Sim, reference: &Reference, id: &NodeId) {
    let node = &sim.nodes[id];
    let record = node.router.database().find(|record| record.origin == *id);
    let links = |class| {
        let links =
            record.iter().flat_map(|record| &record.links).filter(move |link| link.class == class);
        links.map(|link| link.peer.clone()).collect::<Vec<_>>()
    };
    let edges: Vec<NodeId> = reference.edges[id].keys().cloned().collect();
    assert_eq!(links(LinkClass::Active), edges, "active links of {id}");
    assert_eq!(
        links(LinkClass::Stub),
        node.stubs.keys().cloned().collect::<Vec<_>>(),
        "stubs of {id}"
    );
    if let Some(record) = record {
        assert_eq!(record.capabilities, node.capabilities, "capabilities of {id}");
        assert_eq!(record.version, node.router.version());
    }
}

/// Each node holds the very records that the origins hold, of all that it is connected to.
fn assert_databases(sim: &Sim, reference: &Reference, id: &NodeId) {
    let router = &sim.nodes[id].router;
    for origin in reference.component(id) {
        let held = router.database().find(|record| record.origin == origin);
        let original = sim.nodes[&origin].router.database().find(|record| record.origin == origin);
        assert_eq!(
            held.map(|r| r.advertisement()),
            original.map(|r| r.advertisement()),
            "{origin} at {id}"
        );
    }
}

fn assert_routes(
    sim: &Sim,
    reference: &Reference,
    all: &BTreeMap<NodeId, BTreeMap<NodeId, (u64, u32)>>,
    id: &NodeId,
) {
    let table = sim.nodes[id].router.table();
    let reached: Vec<&NodeId> = all[id].keys().filter(|other| *other != id).collect();
    let routed: Vec<&NodeId> =
        table.iter().filter(|route| !route.stub).map(|route| &route.id).collect();
    assert_eq!(routed, reached, "what {id} reaches");
    for route in table.iter().filter(|route| !route.stub) {
        let (cost, hops) = all[id][&route.id];
        assert_eq!((route.cost, route.hops), (cost, hops), "{id} to {}", route.id);
        assert_eq!(
            route.next_hops.to_vec(),
            reference.next_hops(id, &route.id, all),
            "{id} to {}",
            route.id
        );
        if reference.edges[id].len() <= 8 {
            assert_eq!(
                route.alternates.to_vec(),
                reference.alternates(id, &route.id, all),
                "{id} to {}",
                route.id
            );
        }
    }
    let mut stubs: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (owner, (cost, _)) in &all[id] {
        for (stub, edge) in
            sim.nodes[owner].stubs.iter().filter(|(stub, _)| !all[id].contains_key(*stub))
        {
            let offer = cost + u64::from(edge.get());
            let held = stubs.entry(stub.clone()).or_insert(offer);
            *held = offer.min(*held);
        }
    }
    let routed: BTreeMap<NodeId, u64> = table
        .iter()
        .filter(|route| route.stub)
        .map(|route| (route.id.clone(), route.cost))
        .collect();
    if !sim.nodes[id].signed {
        assert_eq!(routed, stubs, "stubs that {id} reaches");
        return;
    }
    // Where stubs have to prove themselves, those that nobody uses are known and have no route.
    for (stub, least) in &stubs {
        let known = table.is_claimed(stub) || routed.get(stub).is_some_and(|cost| cost >= least);
        assert!(known, "{stub} at {id}");
    }
    assert!(routed.keys().all(|stub| stubs.contains_key(stub)), "{id}: {routed:?}, {stubs:?}");
}

/// Every choice of next hops leads to the target, and visits no node twice; so does the path that
/// the router tells.
fn assert_walks(sim: &Sim, from: &NodeId) {
    for route in sim.nodes[from].router.table().iter() {
        for choice in 0..2 {
            let (mut at, mut visited) = (from.clone(), vec![from.clone()]);
            while at != route.id {
                let table = sim.nodes[&at].router.table();
                if route.stub && table.is_claimed(&route.id) {
                    // Packets wait there until the proof is fetched, because the stub has not been
                    // used from there yet.
                    break;
                }
                let hops = &table
                    .route(&route.id)
                    .unwrap_or_else(|| panic!("{at} lost {}", route.id))
                    .next_hops;
                at = hops[choice % hops.len()].clone();
                assert!(
                    !visited.contains(&at),
                    "a loop on the way from {from} to {}: {visited:?}",
                    route.id
                );
                visited.push(at.clone());
            }
            if choice == 0 && at == route.id {
                assert_path(sim, from, route, &visited);
            }
        }
    }
}

fn assert_path(sim: &Sim, from: &NodeId, route: &Route, visited: &[NodeId]) {
    let path = sim.nodes[from].router.path(&route.id).unwrap();
    // A stub with several owners may be handed over by another one of equal cost on the way.
    assert!(route.stub || path == visited, "{path:?}, {visited:?}");
    assert_eq!((&path[0], &path[path.len() - 1]), (from, &route.id));
}

/// Nothing is left to be done but to forget.
fn assert_idle(sim: &Sim, id: &NodeId) {
    let router = &sim.nodes[id].router;
    for view in router.neighbours() {
        assert_eq!((view.state, view.backlog), (NeighbourState::Up, 0), "{id} to {}", view.id);
    }
    let deadline = router.poll_timeout();
    assert!(
        deadline.is_none_or(|d| matches!(
            d.reason,
            DeadlineReason::Expire | DeadlineReason::Audit | DeadlineReason::Attachment
        )),
        "{id}: {deadline:?}"
    );
}
