//! The `receptor` binary: parse, run, say how it went.

use std::process::ExitCode;

use clap::Parser;
use receptor_quic::cli;

fn main() -> ExitCode {
    cli::run(cli::Args::parse())
}
