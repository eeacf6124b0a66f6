//! Every small graph, parted at every cut, and healed.

use std::time::Duration;

use crate::fuzz::provoke;
use crate::reference::assert_converged;
use crate::restart::assert_converged_apart;
use crate::sim::{Seen, Sim, in_both_modes};
use crate::topologies;

#[test]
fn every_connected_graph_of_up_to_four_nodes_heals_at_every_cut() {
    let mut runs = 0;
    in_both_modes(|| {
        for nodes in 2..=4 {
            for graph in connected(nodes) {
                (1..1 << (nodes - 1)).for_each(|side| part_and_heal(nodes, graph, side));
            }
        }
    });
    for nodes in 2..=4 {
        runs += connected(nodes).count() * ((1 << (nodes - 1)) - 1);
    }
    // 1, 4 and 38 connected graphs whose nodes have names.
    assert_eq!(runs, 1 + 4 * 3 + 38 * 7);
}

#[test]
fn every_connected_graph_of_five_nodes_heals_at_every_cut() {
    let shapes = shapes(5);
    assert_eq!(shapes.len(), 21);
    in_both_modes(|| {
        for &graph in &shapes {
            // Both ways round, because the lowest name decides where ways are equal.
            for graph in [graph, reversed(5, graph)] {
                (1..16).for_each(|side| part_and_heal(5, graph, side));
            }
        }
    });
}

/// A graph, one bit per pair of nodes, in the order of [`pairs`].
type Graph = u32;

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..nodes).flat_map(|b| (0..b).map(move |a| (a, b)))
}

fn edges(nodes: usize, graph: Graph) -> impl Iterator<Item = (usize, usize)> {
    pairs(nodes).enumerate().filter(move |(bit, _)| graph >> bit & 1 == 1).map(|(_, pair)| pair)
}

/// All connected graphs on nodes with names.
fn connected(nodes: usize) -> impl Iterator<Item = Graph> {
    (0..1 << pairs(nodes).count()).filter(move |&graph| is_connected(nodes, graph))
}

fn is_connected(nodes: usize, graph: Graph) -> bool {
    let mut reached = 1u32;
    for _ in 0..nodes {
        for (a, b) in edges(nodes, graph) {
            if reached >> a & 1 == 1 || reached >> b & 1 == 1 {
                reached |= 1 << a | 1 << b;
            }
        }
    }
    reached == (1 << nodes) - 1
}

/// One of each shape: the least of all graphs that differ in names alone.
fn shapes(nodes: usize) -> Vec<Graph> {
    let orders = orders(nodes);
    connected(nodes)
        .filter(|&graph| orders.iter().all(|order| renamed(nodes, graph, order) >= graph))
        .collect()
}

fn orders(nodes: usize) -> Vec<Vec<usize>> {
    if nodes == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(nodes - 1);
    let insert = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, nodes - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..nodes).map(move |at| insert(order, at))).collect()
}

fn renamed(nodes: usize, graph: Graph, order: &[usize]) -> Graph {
    let bit = |a: usize, b: usize| {
        pairs(nodes).position(|pair| pair == (a.min(b), a.max(b))).unwrap_or(0)
    };
    edges(nodes, graph).map(|(a, b)| 1 << bit(order[a], order[b])).sum()
}

fn reversed(nodes: usize, graph: Graph) -> Graph {
    renamed(nodes, graph, &(0..nodes).rev().collect::<Vec<_>>())
}

/// Nodes whose bit is set in `side` are cut off from the others; apart for short and for long.
fn part_and_heal(nodes: usize, graph: Graph, side: u32) {
    let seed = u64::from(graph) << 8 | u64::from(side);
    let _case = PrintCase { nodes, graph, side };
    for apart in [3, 100, 20_000] {
        let mut sim = Sim::new(seed);
        sim.tune = provoke;
        let names = topologies::names(nodes);
        sim.boot_all(names.iter().cloned());
        for (a, b) in edges(nodes, graph) {
            sim.connect(&names[a], &names[b]);
        }
        sim.run_for(Duration::from_secs(5));
        assert_converged_apart(&sim);
        let far = |node: &receptor_quic::NodeId| {
            names
                .iter()
                .position(|name| *name == node.as_str())
                .is_some_and(|at| side >> at & 1 == 1)
        };
        let healing = sim.partition(far, Seen::Within(50));
        sim.run_for(Duration::from_millis(apart));
        if apart > 1_000 {
            assert_converged_apart(&sim);
        }
        sim.heal(healing);
        sim.settle();
        assert_converged(&sim);
    }
}

/// Tells which case failed.
struct PrintCase {
    nodes: usize,
    graph: Graph,
    side: u32,
}

impl Drop for PrintCase {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let edges: Vec<_> = edges(self.nodes, self.graph).collect();
            println!("failed with edges {edges:?}, parted at {:b}", self.side);
        }
    }
}
