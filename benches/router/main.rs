//! What the router costs: in time, by criterion; in memory, printed first; and in instructions, see
//! `benches/instructions.sh`.
//!
//! `cargo bench --no-default-features --bench router`. With `-- --test` everything runs once, at
//! small sizes.

use criterion::Criterion;

mod codec;
mod flood;
mod instructions;
mod memory;
mod mesh;
mod paths;
mod sync;

fn main() {
    if let Some(case) = std::env::var_os("ROUTER_CASE") {
        let case = case.into_string().expect("a case is plain text");
        return instructions::run(&case);
    }
    let measured = std::env::args().any(|arg| arg == "--bench");
    let once = !measured || std::env::args().any(|arg| arg == "--test" || arg == "--list");
    // A thousand nodes are set up in a moment; a hundred thousand are not.
    let largest = if once { 1_000 } else { 100_000 };
    memory::print(largest.min(10_000));
    if once {
        instructions::CASES.iter().for_each(|case| instructions::run(&format!("{case} 2")));
    }
    let mut criterion = Criterion::default().configure_from_args();
    codec::bench(&mut criterion);
    flood::bench(&mut criterion, largest);
    sync::bench(&mut criterion, largest);
    paths::bench(&mut criterion, largest);
    criterion.final_summary();
}
