//! What a mesh goes through: all nodes start at once, one restarts with its clock off, a part is
//! cut off and comes back. After each step everybody reaches everybody, for a hundred seeds a
//! shape.

use std::time::Duration;

use crate::cold_start::cold;
use crate::fuzz::PrintSeed;
use crate::reference::assert_converged;
use crate::restart::assert_converged_apart;
use crate::rng::Rng;
use crate::sim::{Seen, Sim, in_both_modes};
use crate::topologies::{self, Edges};

#[test]
fn a_ring_of_six_with_a_chord_starts_cold_restarts_and_heals() {
    in_both_modes(|| {
        (0..100).for_each(|seed| live(seed, &topologies::ring_with_chord()));
    });
}

#[test]
fn a_tree_of_thirteen_starts_cold_restarts_and_heals() {
    in_both_modes(|| {
        (0..100).for_each(|seed| live(seed, &topologies::tree_of_13()));
    });
}

#[test]
fn a_random_mesh_of_sixteen_starts_cold_restarts_and_heals() {
    in_both_modes(|| {
        (0..100).for_each(|seed| live(seed, &topologies::random_mesh(16, &mut Rng::new(seed))));
    });
}

fn live(seed: u64, edges: &Edges) {
    let _seed = PrintSeed(seed);
    let mut sim = cold(seed, edges);
    assert_converged(&sim);
    restart(&mut sim, seed);
    part(&mut sim);
}

/// Another node for each seed, with the clock off by up to a minute either way.
fn restart(sim: &mut Sim, seed: u64) {
    let nodes = sim.living();
    let victim = nodes[seed as usize % nodes.len()].clone();
    let clock = sim.rng.below(120_001) as i64 - 60_000;
    let seen = [Seen::Now, Seen::Within(300), Seen::Within(5_000)][seed as usize % 3];
    sim.restart(&victim, clock, seen);
    sim.run_for(Duration::from_secs(1));
    for node in sim.nodes.values() {
        assert_eq!(
            node.router.table().len(),
            sim.nodes.len() - 1,
            "{} a second later",
            node.router.id()
        );
    }
    sim.settle();
    assert_converged(sim);
}

fn part(sim: &mut Sim) {
    let nodes = sim.living();
    let cut = 1 + sim.rng.below(nodes.len() as u64 - 1) as usize;
    let far: Vec<_> = nodes[cut..].to_vec();
    let healing = sim.partition(|node| far.contains(node), Seen::Within(300));
    // Shorter than the coalescing of news, longer than withholding, longer than deletion.
    let apart = [5, 1_000, 70_000, 1_000_000][sim.rng.below(4) as usize];
    sim.run_for(Duration::from_millis(apart));
    if apart >= 1_000 {
        assert_converged_apart(sim);
    }
    sim.heal(healing);
    sim.settle();
    assert_converged(sim);
}
