//! A link that comes up between two routers with large databases, until both have synced.

use criterion::{BatchSize, Criterion, SamplingMode};
use receptor_quic::Cost;
use receptor_quic::router::{NeighbourKind, SessionUp};

use crate::mesh::{Bench, Costs, Mesh, decode};

pub(crate) fn bench(criterion: &mut Criterion, largest: usize) {
    let nodes = largest.min(10_000);
    let mesh = Mesh::new(nodes, Costs::Default);
    let frames: Vec<Vec<u8>> = (3..nodes).map(|n| mesh.frame(n, 1)).collect();
    let mut group = criterion.benchmark_group("sync");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for differences in [0, 10] {
        let newer: Vec<Vec<u8>> = (3..3 + differences).map(|n| mesh.changed(n, 2)).collect();
        group.bench_function(format!("{nodes}, {differences} differences"), |b| {
            b.iter_batched(|| pair(&frames, &newer), sync, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Nodes 0 and 1 with the same records from node 2, which has gone, but for some that node 0 has in
/// a newer version.
fn pair(frames: &[Vec<u8>], newer: &[Vec<u8>]) -> [Bench; 2] {
    let mut pair = [Bench::alone(0), Bench::alone(1)];
    for (bench, newer) in pair.iter_mut().zip([newer, &[]]) {
        bench.fill(2, newer.iter().chain(&frames[newer.len()..]).cloned());
        bench.router.handle_session_down(&crate::mesh::id(2), bench.now);
    }
    pair
}

/// Carries the bytes of all messages, in order.
fn sync(mut pair: [Bench; 2]) -> [Bench; 2] {
    let now = pair[0].now.max(pair[1].now);
    let ids = [crate::mesh::id(0), crate::mesh::id(1)];
    for (bench, peer) in pair.iter_mut().zip([1, 0]) {
        let (neighbour, kind) = (ids[peer].clone(), NeighbourKind::Full);
        let up = SessionUp { neighbour, instance: peer as u64, cost: Cost::DEFAULT, kind };
        bench.router.handle_session_up(up, now).expect("there is room");
    }
    while pair.iter().any(|bench| bench.router.counters().syncs == 0) {
        let mut idle = true;
        for from in 0..2 {
            while let Some(transmit) = pair[from].router.poll_transmit() {
                idle = false;
                let message = decode(&transmit.message.encode());
                pair[1 - from]
                    .router
                    .handle_message(&ids[from], message, now)
                    .expect("it keeps the protocol");
            }
            pair[from].router.handle_writable(&ids[1 - from], now);
        }
        assert!(!idle, "the sync ends without waiting");
    }
    assert_eq!(pair[0].router.database().count(), pair[1].router.database().count());
    pair
}
