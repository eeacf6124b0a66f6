//! The same work through receptor-quic and through what one would use instead, on one machine, over
//! loopback.
//!
//! ```text
//! run ──▶ for each repetition, for each contender: relay, server, client as processes of their own
//!          client: bulk, calls one at a time, calls 64 at a time ──▶ a row
//! ```
//!
//! `cargo run --release` compares all; `-- --only receptor-quic,iroh` some; `-- --runs 5` says how
//! often. Every contender runs on a multi-threaded tokio runtime with two workers, with its own
//! transport settings but for the streams that it permits at a time. Nothing leaves the machine: no
//! discovery, no lookups, no relays of anyone's.

mod child;
mod contender;
mod systems;
mod table;
mod work;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use contender::{Contender, Place, Role};

const USAGE: &str = "\
Compares receptor-quic with what one would use instead, on this machine, over loopback.

Usage: cargo run --release [-- OPTIONS]

  --only NAME[,NAME]  contenders, by name or the beginning of one (default: all)
  --runs N            repetitions, interleaved (default: 3)
  --bulk MIB          bytes of the bulk transfer, in MiB (default: 1024 direct, 256 relayed)
  --secs SECONDS      how long calls are made (default: 2)
  --list              names the contenders
  --help              this
";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if args.peek().is_some_and(|first| first == "role") {
        return runtime.block_on(play(args.skip(1).collect()));
    }
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--runs" => options.runs = value()?.parse().context("--runs takes a number from 1")?,
            "--bulk" => {
                options.bulk = Some(value()?.parse::<u64>().context("--bulk takes MiB")? << 20)
            }
            "--secs" => options.secs = value()?.parse().context("--secs takes seconds")?,
            "--list" => {
                Contender::all().iter().for_each(|contender| println!("{contender}"));
                return Ok(());
            }
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(());
            }
            _ => bail!("unknown option {arg}\n\n{USAGE}"),
        }
    }
    compare(&options)
}

struct Options {
    only: Vec<String>,
    runs: usize,
    bulk: Option<u64>,
    secs: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { only: Vec::new(), runs: 3, bulk: None, secs: 2.0 }
    }
}

/// Runs all contenders in turn, as often as asked, and prints the table.
fn compare(options: &Options) -> Result<()> {
    let wanted = |contender: &&Contender| {
        options.only.is_empty()
            || options.only.iter().any(|only| contender.to_string().starts_with(only))
    };
    let contenders: Vec<_> = Contender::all().iter().filter(wanted).collect();
    if contenders.is_empty() {
        bail!("no contender has such a name; --list names them");
    }
    let mut table = table::Table::default();
    for run in 1..=options.runs {
        for contender in &contenders {
            eprint!("run {run} of {}: {contender} ", options.runs);
            match work::measure(contender, options.bulk, options.secs) {
                Ok(figures) => {
                    eprintln!("{figures}");
                    table.add(contender, figures);
                }
                // One that does not run here (a server that is not installed) leaves the others
                // alone.
                Err(why) => {
                    eprintln!("left out: {why:#}");
                    table.leave_out(contender, format!("{why:#}"));
                }
            }
        }
    }
    print!("{table}");
    Ok(())
}

/// A process of a contender: says READY, and does what its standard input says until that is
/// closed.
async fn play(args: Vec<String>) -> Result<()> {
    let [contender, role, dir, at @ ..] = args.as_slice() else {
        bail!("role needs a contender, a role and a directory")
    };
    let contender = contender.parse::<Contender>()?;
    let place = Place {
        dir: PathBuf::from(dir),
        relayed: contender.relayed,
        variant: contender.variant,
        at: at.to_vec(),
    };
    systems::play(contender.system, role.parse::<Role>()?, &place).await
}
