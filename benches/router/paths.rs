//! Paths and tables, after one link somewhere changed its cost.

use std::cell::{Cell, RefCell};
use std::hint::black_box;

use criterion::{BatchSize, Criterion, SamplingMode};

use crate::mesh::{Bench, Costs, Mesh};

pub(crate) fn bench(criterion: &mut Criterion, largest: usize) {
    let mut group = criterion.benchmark_group("paths");
    for nodes in [1_000, 10_000, 100_000].into_iter().filter(|&nodes| nodes <= largest) {
        if nodes > 10_000 {
            group.sample_size(20).sampling_mode(SamplingMode::Flat);
        }
        for (name, costs) in [("equal costs", Costs::Default), ("drawn costs", Costs::Drawn)] {
            let mesh = Mesh::new(nodes, costs);
            let bench = RefCell::new(Bench::linked(&mesh));
            group.bench_function(format!("search/{nodes}, {name}"), |b| {
                let bench = bench.borrow();
                b.iter(|| black_box(&bench.router).search_paths());
            });
            let sequence = Cell::new(0);
            group.bench_function(format!("search and table/{nodes}, {name}"), |b| {
                let change = || {
                    sequence.set(sequence.get() + 1);
                    bench.borrow_mut().change_cost(&mesh, sequence.get());
                };
                b.iter_batched(change, |()| bench.borrow_mut().find(), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}
