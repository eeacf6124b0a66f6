//! One update, from the bytes of the frame that comes to those of the frames that go, without
//! paths.

use std::cell::{Cell, RefCell};

use criterion::{BatchSize, Criterion};

use crate::mesh::{Bench, Costs, Mesh};

/// Origins that change by turns: few enough that their trees are kept.
const FEW: usize = 64;

pub(crate) fn bench(criterion: &mut Criterion, largest: usize) {
    let mut group = criterion.benchmark_group("flood");
    for nodes in [1_000, 10_000].into_iter().filter(|&nodes| nodes <= largest) {
        let mesh = Mesh::new(nodes, Costs::Default);
        let bench = RefCell::new(Bench::linked(&mesh));
        let runs = bench.borrow().router.counters().path_runs;
        let last = Cell::new(0);
        let next = |of: usize| {
            last.set(last.get() + 1);
            mesh.changed(1 + last.get() as usize % of, 1 + last.get())
        };
        group.bench_function(format!("accept/{nodes}, tree kept"), |b| {
            b.iter_batched(
                || next(FEW),
                |frame| bench.borrow_mut().take(&frame),
                BatchSize::SmallInput,
            );
        });
        // More origins than trees are kept: each is searched for anew.
        if nodes >= 10_000 {
            group.bench_function(format!("accept/{nodes}, tree searched"), |b| {
                b.iter_batched(
                    || next(nodes - 1),
                    |frame| bench.borrow_mut().take(&frame),
                    BatchSize::SmallInput,
                );
            });
        }
        let frame = next(FEW);
        bench.borrow_mut().take(&frame);
        group.bench_function(format!("duplicate/{nodes}"), |b| {
            b.iter(|| bench.borrow_mut().take_duplicate(&frame));
        });
        let counters = bench.borrow().router.counters();
        assert_eq!(counters.path_runs, runs, "no paths were computed meanwhile");
        assert_eq!((counters.updates_delayed, counters.updates_stale), (0, 0), "all were accepted");
    }
    group.finish();
}
