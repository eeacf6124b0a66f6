//! The memory that a record takes, by what the process has resident.

use crate::mesh::{Bench, Costs, DEGREE, Mesh};

/// Prints the bytes for each of `nodes` records, alone and with paths, alternates and table. Only
/// Linux tells.
#[expect(clippy::print_stdout, reason = "it is the result")]
pub(crate) fn print(nodes: usize) {
    let mesh = Mesh::new(nodes, Costs::Default);
    let mut bench = Bench::alone(0);
    let Some(before) = resident() else { return };
    bench.fill(
        mesh.neighbours(0).next().expect("it has links"),
        (1..nodes).map(|n| mesh.frame(n, 1)),
    );
    let filled = resident().unwrap_or(before);
    let linked = Bench::linked(&mesh);
    let all = resident().unwrap_or(filled);
    let each = |bytes: usize| bytes / nodes;
    println!(
        "memory/{nodes} records of {DEGREE} links: {} B a record, {} B with paths, alternates and table",
        each(filled.saturating_sub(before)),
        each(all.saturating_sub(filled)),
    );
    drop((bench, linked));
}

/// What this process has resident, in bytes.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
