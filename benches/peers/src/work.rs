//! What every contender does, and how it is timed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::child::Child;
use crate::contender::{Client, Contender};

/// What came out of one repetition.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Bulk, in MB (10^6 bytes) a second.
    pub bulk: f64,
    /// CPU time of all processes for the bulk, in seconds per GiB.
    pub bulk_cpu: f64,
    /// The median of calls one at a time, in microseconds.
    pub call_p50: f64,
    /// Calls a second with 64 in flight.
    pub calls_64: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bulk, bulk_cpu, call_p50, calls_64 } = self;
        write!(
            f,
            "{bulk:.0} MB/s, {bulk_cpu:.2} CPU-s/GiB, {call_p50:.0} us, {calls_64:.0} calls/s"
        )
    }
}

/// Runs one contender once, in processes of its own.
pub fn measure(contender: &Contender, bulk: Option<u64>, secs: f64) -> Result<Figures> {
    let dir = tempfile::tempdir()?;
    let mut others = Vec::new();
    let mut at = Vec::new();
    let roles: &[&str] = if contender.relayed { &["relay", "server"] } else { &["server"] };
    for role in roles {
        let child = Child::spawn(contender, role, dir.path(), &at)?;
        at.push(child.ready.clone());
        others.push(child);
    }
    let mut client = Child::spawn(contender, "client", dir.path(), &at)?;
    let bytes = bulk.unwrap_or(if contender.relayed { 256 << 20 } else { 1 << 30 });
    // The first run pays for slow start and page faults.
    client.ask(&format!("bulk {}", bytes / 8))?;
    let cpu = |client: &Child| client.cpu() + others.iter().map(Child::cpu).sum::<f64>();
    let before = cpu(&client);
    let bulk: f64 = client.ask(&format!("bulk {bytes}"))?.parse()?;
    let gib = bytes as f64 / (1_u64 << 30) as f64;
    let bulk_cpu = (cpu(&client) - before) / gib;
    let (_, call_p50) = calls(&mut client, 1, secs)?;
    let (calls_64, _) = calls(&mut client, 64, secs)?;
    Ok(Figures { bulk, bulk_cpu, call_p50, calls_64 })
}

fn calls(client: &mut Child, at_once: usize, secs: f64) -> Result<(f64, f64)> {
    let said = client.ask(&format!("calls {at_once} {secs}"))?;
    let (rate, p50) = said.split_once(' ').context("two figures")?;
    Ok((rate.parse()?, p50.parse()?))
}

/// The client's process: does what its standard input says.
pub async fn obey(client: impl Client) -> Result<()> {
    let client = Arc::new(client);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["bulk", bytes] => {
                let bytes: u64 = bytes.parse()?;
                let began = Instant::now();
                client.bulk(bytes).await?;
                println!("DONE {}", bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
            }
            ["calls", at_once, secs] => {
                let within = Duration::from_secs_f64(secs.parse()?);
                let (rate, p50) = call_for(&client, at_once.parse()?, within).await?;
                println!("DONE {rate} {p50}");
            }
            _ => bail!("not understood: {line}"),
        }
    }
    Ok(())
}

/// Calls a second, and the median of their times in microseconds.
async fn call_for(
    client: &Arc<impl Client>,
    at_once: usize,
    within: Duration,
) -> Result<(f64, f64)> {
    let began = Instant::now();
    let callers: Vec<_> = (0..at_once)
        .map(|_| {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while began.elapsed() < within {
                    let called = Instant::now();
                    client.call().await?;
                    times.push(called.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await??);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_unstable();
    let p50 = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok((rate, p50.as_secs_f64() * 1e6))
}
