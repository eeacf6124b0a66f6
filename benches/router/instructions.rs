//! Cases that `benches/instructions.sh` counts the instructions of: run twice with different
//! numbers of repetitions, so that what is left of the difference is the case alone.

use std::hint::black_box;

use receptor_quic::router::{Advertisement, Record};

use crate::mesh::{Bench, Costs, Mesh, sealed};

pub(crate) const CASES: [&str; 5] = ["decode", "accept", "duplicate", "search", "table"];

const NODES: usize = 1_000;

/// The repetitions that everything is prepared for, so that the preparation is the same for fewer.
const MOST: u64 = 200;

/// Runs a case, `NAME REPETITIONS`.
#[expect(clippy::panic, reason = "the script is wrong")]
pub(crate) fn run(case: &str) {
    let (name, times) = case.split_once(' ').unwrap_or_else(|| panic!("{case}: NAME REPETITIONS"));
    let times: u64 = times.parse().unwrap_or_else(|_| panic!("{case}: not a number"));
    assert!(times <= MOST, "at most {MOST}");
    let mesh = Mesh::new(NODES, Costs::Default);
    if name == "decode" {
        let bytes = sealed(mesh.draft(1, 1, 0)).advertisement().bytes().clone();
        return (0..times).for_each(|_| {
            drop(black_box(Record::decode(&Advertisement::new(black_box(bytes.clone())))))
        });
    }
    let mut bench = Bench::linked(&mesh);
    // The trees of these few are kept after the first round.
    let frames: Vec<_> = (0..MOST + 20).map(|n| mesh.changed(1 + n as usize % 20, 2 + n)).collect();
    let (first, frames) = frames.split_at(20);
    for frame in first {
        bench.take(frame);
    }
    for (n, frame) in (0..times).zip(frames) {
        match name {
            "accept" => {
                bench.take(frame);
            }
            "duplicate" => bench.take_duplicate(&first[19]),
            "search" => {
                black_box(bench.router.search_paths());
            }
            // Two records are taken, and paths and tables made of each.
            "table" => {
                bench.change_cost(&mesh, 1_000 + n);
                bench.find();
            }
            _ => panic!("{name}: one of {CASES:?}"),
        }
    }
}
