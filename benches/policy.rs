//! What a decision costs with 1,000 rules, and what compiling them for a peer does.
//!
//! `cargo bench --no-default-features --bench policy`. Exits with 1 if a decision takes more than
//! 1 µs at the 99th percentile.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench reads the clock and prints"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use receptor_quic::policy::{Action, Policy, PolicySpec, RuleSpec, Subject};
use receptor_quic::{Directive, NodeId, ServiceName};

const RULES: usize = 1_000;
/// Decisions that are timed one by one.
const SAMPLES: usize = 1_000_000;
const MAX_P99_NS: u128 = 1_000;

fn main() -> ExitCode {
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let samples = if is_bench { SAMPLES } else { 1_000 };
    let mut failed = false;
    for (name, spec) in [("one rule a peer", each_its_own()), ("all rules a peer", all_of_all())] {
        let policy = Policy::new(&spec).expect("the rules are valid");
        let peer: NodeId = "node-7".parse().expect("it is an id");
        let subject = Subject::new(&peer);
        let begin = Instant::now();
        let compiled = policy.compile(&subject, None);
        let compiling = begin.elapsed();
        let directives: Vec<Directive> = (0..2 * RULES)
            .map(|nth| format!("app-{nth}:run").parse().expect("it is a directive"))
            .collect();
        let services: Vec<ServiceName> = (0..2 * RULES)
            .map(|nth| format!("app-{nth}-x").parse().expect("it is a service"))
            .collect();
        let mut times: Vec<u128> = (0..samples)
            .map(|nth| {
                // Spread over the names: neighbours would find their entries in the cache.
                let nth = (nth * 7_919) % (2 * RULES);
                let action = match nth % 2 {
                    0 => Action::call(&directives[nth]),
                    _ => Action::open(&services[nth]),
                };
                let begin = Instant::now();
                let decision = black_box(&compiled).decide(black_box(&action));
                let took = begin.elapsed();
                black_box(decision.is_allowed());
                took.as_nanos()
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{name}: p50 {} ns, p99 {} ns, the clock included; compiled in {compiling:?}",
            at(50),
            at(99)
        );
        failed |= is_bench && at(99) > MAX_P99_NS;
    }
    ExitCode::from(u8::from(failed))
}

/// Each rule is for one peer.
fn each_its_own() -> PolicySpec {
    let rule = |nth: usize| RuleSpec {
        from: vec![format!("node-{nth}")],
        to: vec!["work".to_owned()],
        directives: Some(vec![format!("app-{nth}:*")]),
        ..RuleSpec::default()
    };
    PolicySpec { allow: (0..RULES).map(rule).collect(), ..PolicySpec::default() }
}

/// Each rule is for all peers, with a name or a pattern of its own.
fn all_of_all() -> PolicySpec {
    let rule = |nth: usize| {
        let directives = match nth % 3 {
            0 => format!("app-{nth}:run"),
            1 => format!("app-{nth}:*"),
            _ => format!("*-{nth}:run"),
        };
        let rule = RuleSpec { from: vec!["*".to_owned()], ..RuleSpec::default() };
        match nth % 2 {
            0 => {
                RuleSpec { to: vec!["work".to_owned()], directives: Some(vec![directives]), ..rule }
            }
            _ => RuleSpec { to: vec![format!("app-{nth}*")], ..rule },
        }
    };
    PolicySpec { allow: (0..RULES).map(rule).collect(), ..PolicySpec::default() }
}
