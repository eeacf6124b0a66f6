//! What durable units cost: latency, rate, memory, and listing them.
//!
//! `cargo bench --all-features --bench work`, `-- --help` for more. Without `--bench`, as
//! `cargo test --bench work` runs it, everything is done a few times and nothing is judged.
//!
//! ```text
//!   submitter ══▶ relay ══▶ executor     three nodes of this process, on loopback
//!       │                       └─ a supervisor (this program again) and /bin/true for each command
//!       └─ 16 tasks that submit and wait
//! ```
//!
//! Each figure stands beside what the machine takes for the same without units: an `fdatasync` of
//! the same disk, or two processes one after the other. Then the `receptor` binary is started on
//! the directories that are left, and asked for a list.
//!
//! The exit status is 1 if a row misses its bar. A bench that cannot go on panics.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../../tests/cli/harness.rs"]
#[expect(dead_code, reason = "the tests do more with processes")]
mod harness;

mod baseline;
mod binary;
mod report;
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use receptor_quic::work;

use report::{Bar, Report};
use stage::Stage;

const HELP: &str = "\
cargo bench --all-features --bench work -- [OPTIONS]

Measures durable units: latency and rate through a relay, memory and listing of many.

  --units N     finished units for rate, memory and list, 10000 by default
  --dir DIR     where units are kept, the temporary directory by default
  --help        this";

/// How many tasks submit at a time.
const SUBMITTERS: usize = 16;

/// How long a node may take to put units away that have ended.
const SETTLE: Duration = Duration::from_secs(4);

struct Options {
    measured: bool,
    units: usize,
    dir: std::path::PathBuf,
}

/// Not an async function: a process that is to supervise a job must not have a runtime.
fn main() -> ExitCode {
    work::supervise();
    let Some(options) = options() else {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    };
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let mut report = Report::new(options.measured);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(&options, dir.path(), &mut report));
    drop(runtime);
    binary::measure(&mut report, dir.path(), options.measured);
    report.finish()
}

fn options() -> Option<Options> {
    let mut options = Options { measured: false, units: 0, dir: std::env::temp_dir() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => options.measured = true,
            "--units" => options.units = args.next().and_then(|n| n.parse().ok())?,
            "--dir" => options.dir = args.next()?.into(),
            "--help" | "-h" => return None,
            // `cargo test` hands every target what is meant for the test harness.
            _ => {}
        }
    }
    if options.units == 0 {
        options.units = if options.measured { 10_000 } else { 20 };
    }
    Some(options)
}

async fn run(options: &Options, dir: &std::path::Path, report: &mut Report) {
    let some = if options.measured { 200 } else { 3 };
    let sync = baseline::sync(dir, some);
    let process = baseline::two_processes(some);
    let processes = baseline::two_processes_at_a_time(some * 5, SUBMITTERS);

    let stage = Stage::start(dir).await;
    // The first unit opens connections.
    stage.run("fn:nop").await;
    stage.run("sh:true").await;

    let mut submits = Vec::new();
    let begun = Instant::now();
    for _ in 0..some {
        let started = Instant::now();
        stage.submit("fn:nop").await;
        submits.push(started.elapsed());
    }
    let rate = some as f64 / begun.elapsed().as_secs_f64();
    report.row(
        "submit, one after another",
        "1/s",
        rate,
        1.0 / sync,
        "fdatasync",
        Bar::AtLeast(300.0),
    );
    stage.settle().await;

    for (name, directive, base, base_name) in [
        ("handler, submit to end, p50", "fn:nop", sync, "fdatasync"),
        ("command, submit to end, p50", "sh:true", process, "2 processes"),
    ] {
        let mut times = Vec::new();
        for _ in 0..some {
            let started = Instant::now();
            stage.run(directive).await;
            times.push(started.elapsed());
        }
        let p50 = baseline::median(&mut times).as_secs_f64() * 1e3;
        report.row(name, "ms", p50, base * 1e3, base_name, Bar::AtMost(15.0));
    }

    let rate = stage.many("sh:true", some * 10, SUBMITTERS).await;
    report.row(
        "commands, 16 submitters",
        "1/s",
        rate,
        processes,
        "2 processes",
        Bar::AtLeast(300.0),
    );

    tokio::time::sleep(if options.measured { SETTLE } else { Duration::ZERO }).await;
    let (before, held) = (resident("self"), stage.held());
    let rate = stage.many("fn:nop", options.units, SUBMITTERS).await;
    report.row(
        "handlers, 16 submitters",
        "1/s",
        rate,
        1.0 / sync,
        "fdatasync",
        Bar::AtLeast(2_000.0),
    );
    tokio::time::sleep(if options.measured { SETTLE } else { Duration::ZERO }).await;
    let grown = resident("self").saturating_sub(before) as f64 / (stage.held() - held) as f64;
    report.row("memory of a unit and end", "B", grown, 1_024.0, "goal", Bar::AtMost(1_024.0));

    stage.stop().await;
}

/// Resident memory of a process, in bytes.
fn resident(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1_024
}
