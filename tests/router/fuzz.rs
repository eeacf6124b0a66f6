//! Random histories, then the check that all is as it should be. `RECEPTOR_SEEDS=10000` runs more
//! of them.

use std::time::Duration;

use receptor_quic::id::Cost;
use receptor_quic::router::{Config, Record};

use crate::reference::assert_converged;
use crate::rng::Rng;
use crate::sim::{Seen, Sim, id, in_both_modes};
use crate::topologies;

/// Tells which seed failed.
pub(crate) struct PrintSeed(pub(crate) u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with seed {}", self.0);
        }
    }
}

#[test]
fn random_histories_end_in_agreement() {
    in_both_modes(|| {
        let seeds =
            std::env::var("RECEPTOR_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
        for seed in 0..seeds {
            history(seed, provoke);
        }
    });
}

#[test]
fn random_histories_end_in_agreement_without_changes_too() {
    in_both_modes(|| {
        for seed in 0..50 {
            let sim = history(seed, provoke_whole);
            assert_eq!(sim.sent.deltas, 0);
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    in_both_modes(|| {
        for seed in [1, 2] {
            let traces = [history(seed, provoke).trace(), history(seed, provoke).trace()];
            assert_eq!(traces[0], traces[1]);
            assert_ne!(traces[0], history(seed + 10, provoke).trace());
        }
    });
}

#[test]
fn the_cache_of_seen_ids_changes_nothing() {
    in_both_modes(|| {
        let mut total = [0; 3];
        for seed in 500..506 {
            let sims = [
                history(seed, |config| cache(config, 0)),
                history(seed, |config| cache(config, 1)),
                history(seed, |config| cache(config, usize::MAX)),
            ];
            assert!(sims.iter().all(|sim| sim.trace() == sims[0].trace()));
            let state = |sim: &Sim| -> Vec<Record> {
                sim.nodes
                    .values()
                    .flat_map(|node| node.router.database().cloned().collect::<Vec<_>>())
                    .collect()
            };
            assert!(sims.iter().all(|sim| state(sim) == state(&sims[0])));
            for (total, sim) in total.iter_mut().zip(&sims) {
                *total +=
                    sim.nodes.values().map(|node| node.router.counters().seen_hits).sum::<u64>();
            }
        }
        assert!(total[0] == 0 && total[0] < total[1] && total[1] < total[2], "{total:?}");
    });
}

/// Half of the nodes send changes instead of records where they can.
fn cache(config: &mut Config, ids: usize) {
    if config.seed.is_multiple_of(2) {
        (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000);
    }
    config.limits.seen_ids = ids;
}

#[test]
fn slow_streams_end_in_agreement_too() {
    in_both_modes(|| {
        for seed in 1_000..1_020 {
            history(seed, |config| {
                config.limits.window_messages = 1;
                provoke(config);
            });
        }
    });
}

#[test]
fn comparisons_in_buckets_end_in_agreement_too() {
    in_both_modes(|| {
        for seed in 3_000..3_030 {
            history(seed, |config| {
                config.limits.whole_summary = 1;
                config.limits.window_messages = 2;
                config.timers.audit = Duration::from_secs(3);
                provoke(config);
            });
            // Ends that differ in when they take to buckets.
            history(seed + 100, |config| {
                config.limits.whole_summary = if config.seed.is_multiple_of(2) { 1 } else { 8 };
                provoke(config);
            });
        }
    });
}

/// Short times, so that deletion and withholding race with everything else, and changes instead of
/// records where that is possible at all.
pub(crate) fn provoke(config: &mut Config) {
    (config.limits.delta_over, config.limits.delta_percent) = (0, 10_000);
    provoke_whole(config);
}

/// The same with whole records.
pub(crate) fn provoke_whole(config: &mut Config) {
    config.timers.withhold = Duration::from_millis(1_500);
    config.timers.delete = Duration::from_millis(4_000);
    config.timers.tombstone = Duration::from_millis(1_500);
}

/// A random history, and its end in agreement.
pub(crate) fn history(seed: u64, tune: fn(&mut Config)) -> Sim {
    history_of(Sim::new(seed), seed, tune)
}

/// The history of this seed, in a world that may have its ways.
pub(crate) fn history_of(mut sim: Sim, seed: u64, tune: fn(&mut Config)) -> Sim {
    let _seed = PrintSeed(seed);
    sim.tune = tune;
    let mut rng = Rng::new(!seed);
    let count = 3 + rng.below(10) as usize;
    sim.latency = [(1, 1), (1, 20), (5, 100)][rng.below(3) as usize];
    sim.boot_all(topologies::names(count));
    for (a, b) in topologies::random_mesh(count, &mut rng) {
        sim.connect_cost(&a, &b, 1 + rng.below(3) as u32, 1 + rng.below(3) as u32);
    }
    let mut healing = Vec::new();
    for _ in 0..5 + rng.below(20) {
        let pause = [0, 5, 50, 500, 5_000][rng.below(5) as usize];
        sim.run_for(rng.millis(0, pause + 1));
        if sim.waves.often
            && let Some(node) = rng.pick(&sim.living()).cloned()
        {
            sim.converge(&node, [100, 1_000, 10_000][rng.below(3) as usize]);
        }
        step(&mut sim, &mut rng, &mut healing);
    }
    sim.heal(healing);
    sim.settle();
    assert_converged(&sim);
    crate::twins::assert_nobody_yielded(&sim);
    sim
}

fn step(sim: &mut Sim, rng: &mut Rng, healing: &mut Vec<([receptor_quic::NodeId; 2], [u32; 2])>) {
    let living = sim.living();
    let (Some(a), Some(b)) = (rng.pick(&living).cloned(), rng.pick(&living).cloned()) else {
        return;
    };
    let seen = if rng.chance(50) { Seen::Now } else { Seen::Within(300) };
    let cost = |rng: &mut Rng| 1 + rng.below(4) as u32;
    match rng.below(100) {
        0..20 => sim.cut(&a, &b, seen),
        20..25 => {
            if let Some(ends) = live_link(sim, rng) {
                sim.cut(&ends[0], &ends[1], seen);
            }
        }
        25..45 if a != b => {
            // On top of one that is up, it is another path to the same process.
            sim.connect_cost(a.as_str(), b.as_str(), cost(rng), cost(rng));
        }
        45..60 => sim.restart(&a, rng.below(120_001) as i64 - 60_000, seen),
        60..63 if living.len() > 2 => sim.kill(&a, seen),
        63..65 if living.len() > 2 => sim.leave(&a),
        65..72 => {
            let far: Vec<_> = living.iter().filter(|_| rng.chance(50)).cloned().collect();
            healing.extend(sim.partition(|node| far.contains(node), seen));
        }
        72..82 => sim.heal(std::mem::take(healing)),
        82..87 => {
            let stub = id(&format!("s{}", rng.below(4)));
            match sim.nodes[&a].stubs.contains_key(&stub) {
                true => sim.detach(&a, &stub),
                false => sim.attach(&a, stub, Cost::try_from(cost(rng)).unwrap()),
            }
        }
        87..91 => {
            let (now, transit) = (sim.now, rng.chance(50));
            sim.nodes.get_mut(&a).unwrap().transit = transit;
            sim.command(&a, |router| router.set_transit(transit, now));
        }
        91..95 => {
            let (now, text) = (sim.now, rng.next().to_be_bytes().to_vec());
            sim.nodes.get_mut(&a).unwrap().capabilities = text.clone();
            sim.command(&a, |router| router.set_capabilities(text.into(), now));
        }
        _ => change_cost(sim, rng),
    }
}

fn live_link(sim: &Sim, rng: &mut Rng) -> Option<[receptor_quic::NodeId; 2]> {
    let live: Vec<_> =
        sim.connections.values().filter(|c| !c.broken).map(|c| c.ends.clone()).collect();
    rng.pick(&live).cloned()
}

fn change_cost(sim: &mut Sim, rng: &mut Rng) {
    let live: Vec<u64> =
        sim.connections.iter().filter(|(_, c)| !c.broken).map(|(number, _)| *number).collect();
    let Some(number) = rng.pick(&live) else { return };
    let (now, cost) = (sim.now, 1 + rng.below(9) as u32);
    let connection = sim.connections.get_mut(number).unwrap();
    connection.costs[0] = cost;
    let [a, b] = connection.ends.clone();
    sim.command(&a, |router| router.set_cost(&b, Cost::try_from(cost).unwrap(), now));
}
