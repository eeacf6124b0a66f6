//! What attacks of hostile members and outsiders cost real `receptor node` processes on loopback.
//!
//! `cargo bench --all-features --bench attacks`, `-- --help` for more. Without `--bench`, as
//! `cargo test --bench attacks` runs it, every attack runs for a second and nothing is judged.
//!
//! ```text
//!   attacker (a thread of this process, the wire protocol of tests/hostile)
//!      │  floods, false claims, junk chains, endless calls
//!      ▼
//!   a ══▶ relay ══▶ b        three `receptor node` processes; /proc says what the victim uses
//!   ▲       ▲
//!   │       └─ newcomers: 20 one-shot `receptor send` processes, each with a link and a call
//!   └─ `receptor ping` every 50 ms, and 20 calls through the control socket of a
//! ```
//!
//! The first row is the same load without an attack. The CPU that an attack causes is the victim's
//! share of a core minus that of the first row.
//!
//! The exit status is 1 if a row misses a bar, and 2 if the arguments are wrong or the row without
//! an attack misses one: such a machine is too busy to judge anything. A bench that cannot go on
//! panics.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::print_stderr, reason = "so is what went wrong")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../../tests/hostile/carrier.rs"]
#[expect(dead_code, reason = "the tests look at what came in")]
mod carrier;
#[path = "../../tests/hostile/chains.rs"]
mod chains;
#[path = "../../tests/cli/harness.rs"]
#[expect(dead_code, reason = "the tests do more with processes")]
mod harness;
#[path = "../../tests/hostile/initials.rs"]
mod initials;
#[path = "../../tests/hostile/member.rs"]
#[expect(dead_code, reason = "the tests have more to say")]
mod member;
#[path = "../../tests/hostile/puppet.rs"]
mod puppet;
#[path = "../../tests/hostile/tls.rs"]
mod tls;

mod attack;
mod case;
mod honest;
mod meter;
mod options;
mod report;
mod stage;
mod udp;

use std::process::ExitCode;

use options::{Options, Parsed};
use report::Row;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => run(&options),
        Ok(Parsed::Help) => {
            println!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("attacks: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> ExitCode {
    println!("{}", Row::HEADER);
    let idle = case::run(&case::NONE, options, None);
    println!("{idle}");
    let busy = idle.missed(&case::NONE);
    let mut missed = Vec::new();
    for case in case::ATTACKS.iter().filter(|case| options.selects(case.name)) {
        let row = case::run(case, options, Some(&idle));
        println!("{row}");
        missed.extend(row.missed(case).into_iter().map(|bar| format!("{}: {bar}", case.name)));
    }
    if !options.judged {
        return ExitCode::SUCCESS;
    }
    if !busy.is_empty() {
        busy.iter().for_each(|bar| println!("missed without an attack: {bar}"));
        println!("this machine is too busy to judge attacks");
        return ExitCode::from(2);
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    missed.iter().for_each(|bar| println!("missed: {bar}"));
    ExitCode::FAILURE
}
