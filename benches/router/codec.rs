//! Bytes to messages and back.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use receptor_quic::router::{Advertisement, Entry, Message, Record};

use crate::mesh::{Costs, Mesh, decode, sealed};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mesh = Mesh::new(1_000, Costs::Default);
    let draft = mesh.draft(1, 1, 0);
    let record = sealed(draft.clone());
    let bytes = record.advertisement().bytes().clone();
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("encode/record of 8 links", |b| {
        b.iter_batched(|| draft.clone(), sealed, BatchSize::SmallInput);
    });
    // The hash that names it is made with it.
    group.bench_function("decode/record of 8 links", |b| {
        b.iter(|| Record::decode(&Advertisement::new(black_box(bytes.clone()))));
    });
    let entries = (1..=256).map(|n| {
        let record = sealed(mesh.draft(n, 1, 0));
        Entry { origin: record.origin.clone(), stamp: record.stamp() }
    });
    let have = Message::Have(entries.collect());
    let frame = have.encode();
    group.bench_function("encode/HAVE of 256", |b| b.iter(|| black_box(&have).encode()));
    group.bench_function("decode/HAVE of 256", |b| b.iter(|| decode(black_box(&frame))));
    group.finish();
}
