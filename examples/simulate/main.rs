//! Many routers in virtual time: what an update costs, how long it takes, and whether all agree
//! afterwards.
//!
//! `cargo run --release --no-default-features --example simulate -- --nodes 100 --event restart`;
//! `--help` lists the rest.

mod args;
mod checks;
mod journal;
mod measure;
mod notary;
mod report;
mod rng;
mod scenario;
mod svg;
mod topology;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use args::Args;
use report::Report;
use scenario::Scenario;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)) {
        Ok(args) if args.help => print(args::USAGE),
        Ok(args) => return run(&args),
        Err(error) => return misused(&error),
    }
    ExitCode::SUCCESS
}

fn run(args: &Args) -> ExitCode {
    let mut scenario = Scenario::new(args);
    let outcome = scenario.run();
    let report = Report::new(args, &outcome, &scenario.world);
    print(&if args.json { report.json() } else { report.text() });
    if let Some(file) = &args.svg {
        let drawing = svg::draw(args, &outcome, scenario.world.nodes.len());
        if let Err(error) = std::fs::write(file, drawing) {
            return misused(&format!("--svg: cannot write {}: {error}", file.display()));
        }
    }
    if outcome.findings.is_fine() {
        return ExitCode::SUCCESS;
    }
    complain(&report.failure());
    ExitCode::from(1)
}

fn misused(error: &str) -> ExitCode {
    complain(&format!("simulate: {error}"));
    ExitCode::from(2)
}

/// A reader that goes away early, such as `head`, is no error.
fn print(text: &str) {
    let _gone = writeln!(std::io::stdout(), "{}", text.trim_end());
}

#[expect(clippy::print_stderr, reason = "errors of a program go there")]
fn complain(text: &str) {
    eprintln!("{}", text.trim_end());
}
