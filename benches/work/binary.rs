//! The `receptor` binary on directories with many units.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::baseline::median;
use crate::harness::{Node, World, finish};
use crate::report::{Bar, Report};
use crate::resident;

/// Starts both ends again, with and without their units, and lists them.
pub(crate) fn measure(report: &mut Report, dir: &Path, measured: bool) {
    let world = World::of(&["submitter", "executor"]);
    for (id, here, name) in
        [("submitter", &[][..], "submitted units"), ("executor", &["--here"][..], "executed units")]
    {
        let start = |units: &Path| {
            let file = format!("{id}.toml");
            world.write(&file, &format!("[units]\ndir = \"{}\"\n", units.display()));
            let node = world.command(&[
                "node",
                "--id",
                id,
                "--certs",
                "certs",
                "--config",
                &file,
                "--listen",
                "127.0.0.1:0",
            ]);
            let started = Instant::now();
            let node = Node::start(node);
            (node, started.elapsed())
        };
        let (node, empty_start) = start(&dir.join(format!("{id}-empty")));
        let empty = resident(&node.pid().to_string());
        let list_empty = list(&world, &node, here, measured).1;
        drop(node);
        let (node, full_start) = start(&dir.join(id));
        let full = resident(&node.pid().to_string());
        let (count, list_full) = list(&world, &node, here, measured);
        let each = full.saturating_sub(empty) as f64 / count as f64;
        report.row(
            &format!("memory after restart, {name}"),
            "B",
            each,
            1_024.0,
            "goal",
            Bar::AtMost(1_024.0),
        );
        let (full_start, empty_start) =
            (full_start.as_secs_f64() * 1e3, empty_start.as_secs_f64() * 1e3);
        report.row(
            &format!("start, {name}"),
            "ms",
            full_start,
            empty_start,
            "no units",
            Bar::AtMost(empty_start + 1_000.0),
        );
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        report.row(
            &format!("list {count}, {name}"),
            "ms",
            ms(list_full),
            ms(list_empty),
            "no units",
            Bar::AtMost(50.0),
        );
    }
}

/// Lists the units. Returns how many there are, and the median time.
fn list(world: &World, node: &Node, here: &[&str], measured: bool) -> (usize, Duration) {
    let control = node.control().to_str().unwrap();
    let args = [&["work", "list", "--control", control], here].concat();
    let mut count = 0;
    let mut times = Vec::new();
    for _ in 0..if measured { 15 } else { 1 } {
        let mut command = world.command(&args);
        let started = Instant::now();
        let listed = finish(&mut command).ok();
        times.push(started.elapsed());
        // One line has the heads.
        count = listed.lines().count().saturating_sub(1);
    }
    (count, median(&mut times))
}
