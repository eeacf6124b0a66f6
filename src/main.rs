//! The `receptor` binary: parse, run, say how it went.

use std::process::ExitCode;

use clap::Parser;
use receptor_quic::{cli, work};

fn main() -> ExitCode {
    // A supervisor of a unit has neither arguments to parse nor a runtime.
    work::supervise();
    cli::run(cli::Args::parse())
}
