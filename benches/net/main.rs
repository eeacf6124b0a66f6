//! What links, peer connections and relays carry, against raw quinn in the same run.
//!
//! `cargo bench --bench net`, `-- --help` for more. Without `--bench`, as `cargo test --bench net`
//! runs it, everything is done once at the smallest sizes, and nothing is measured.
//!
//! ```text
//!   harness ──stdin/stdout──▶ client ══▶ relay ══▶ … ══▶ server        ours: nodes of this crate
//!      │                      client ══▶ splice ══▶ … ══▶ server       baseline: raw quinn
//!      └─ /proc: CPU and memory of each
//! ```
//!
//! **Fair.** The harness starts itself as one process for each node. Both sides are measured in
//! turn, ours, baseline, ours, baseline, on connections that stay up, after one run each that does
//! not count. Each process has a current-thread runtime, which is the stronger one for quinn. Both
//! bind 127.0.0.1 with the same socket buffers, use the same provider of cryptography with the same
//! cipher suites, certificates with P-256 keys on both sides, no resumption, and the transport
//! settings that this crate has for its links (`transport::bench`). The baseline's socket caps its
//! batches at 64 KiB, as the crate's does. `link-stream-default` alone has quinn as it comes.
//!
//! **Sizes.** Links, calls over them, and cases with `jumbo` in their names use datagrams as large
//! as the crate finds loopback to carry, 8,952 bytes. All others stop at 1,452, as quinn does by
//! itself and the Internet mostly does; with the switch's header.
//!
//! **The baseline's relay** accepts a connection, opens one to the next, opens a stream there for
//! each that comes in, and copies chunk by chunk without joining them. It sees everything in the
//! clear; ours sees nothing.
//!
//! **Columns.** Medians, with the smallest and the largest. The ratio is the median of the pairs'
//! ratios. CPU is that of all processes of a side: seconds for a GiB, or for a million calls, links
//! or datagrams.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::print_stderr, reason = "so is what went wrong")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod case;
mod certificates;
mod options;
mod plots;
mod process;
mod report;
mod role;
mod row;
mod side;
mod svg;

use std::process::ExitCode;

use options::{Options, Parsed};
use report::Report;

/// What a bench does when something fails: it says so, and ends.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let done = if args.next_if(|arg| arg == role::FLAG).is_some() {
        role::run(args)
    } else {
        match Options::parse(args) {
            Ok(Parsed::Run(options)) => run(&options),
            Ok(Parsed::Help) => {
                println!("{}", options::HELP);
                Ok(())
            }
            Err(error) => Err(error),
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let bench = case::Bench::new(options)?;
    let mut report = Report::new(options.measured);
    for case in case::CASES {
        if !options.selects_any(case.rows) {
            continue;
        }
        let rows = (case.run)(&bench).map_err(|error| format!("{}: {error}", case.rows[0]))?;
        rows.into_iter().filter(|row| options.selects(row.case)).for_each(|row| report.add(row));
    }
    report.finish(options.json.as_deref())?;
    match &options.svg {
        Some(dir) => plots::write(dir, report.rows(), &bench.distributions.borrow()),
        None => Ok(()),
    }
}
