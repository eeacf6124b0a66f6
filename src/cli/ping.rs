//! `receptor ping`: the round trip to a node.

use std::io::Write;

use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::args::PingArgs;
use super::local::PingReply;
use super::place::Place;
use crate::cli::output::text::{escape, millis};
use crate::cli::process::exit::{Failure, complain};
use crate::cli::setup::env::Env;

/// Pings, prints each reply, and fails like the last failed ping.
pub(super) async fn run(args: PingArgs, env: &Env) -> Result<(), Failure> {
    Place::with(args.place.clone(), env, async |place| ping_all(&args, place).await).await
}

async fn ping_all(args: &PingArgs, place: &Place) -> Result<(), Failure> {
    let mut rtts = Vec::new();
    let mut failed = None;
    let start = Instant::now();
    for serial in 1..=args.count {
        match place.ping(&args.node, args.timeout).await {
            Ok(reply) => {
                rtts.push(reply.rtt_ms);
                print_reply(args, serial, &reply)?;
            }
            Err(failure) if serial == args.count => failed = Some(failure),
            Err(failure) => {
                complain(&failure.text);
                failed = Some(failure);
            }
        }
        if serial < args.count {
            let periods = u32::try_from(serial).unwrap_or(u32::MAX);
            sleep_until(start + args.interval.saturating_mul(periods)).await;
        }
    }
    if args.count > 1 && !args.json {
        print_summary(args.count, &rtts)?;
    }
    match failed {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn print_reply(args: &PingArgs, serial: u64, reply: &PingReply) -> Result<(), Failure> {
    let line = if args.json {
        let mut object = json!(reply);
        object["serial"] = serial.into();
        object.to_string()
    } else {
        format!("{}: serial {serial}, {}", escape(reply.node.as_str()), millis(reply.rtt_ms))
    };
    print(&line)
}

fn print_summary(count: u64, rtts: &[f64]) -> Result<(), Failure> {
    let mut line = format!("{} of {count} answered", rtts.len());
    if !rtts.is_empty() {
        let min = rtts.iter().copied().fold(f64::INFINITY, f64::min);
        let max = rtts.iter().copied().fold(0.0, f64::max);
        let mean = rtts.iter().sum::<f64>() / rtts.len() as f64;
        line += &format!("; min/avg/max {min:.2}/{mean:.2}/{max:.2} ms");
    }
    print(&line)
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
