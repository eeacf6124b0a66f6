//! What honest nodes do during an attack.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::harness::finish;
use crate::stage::Stage;

/// New connections, and calls.
pub(crate) const ATTEMPTS: u32 = 20;
/// A connection or call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds from one ping to the next.
const PING_INTERVAL: &str = "0.05";

/// How many of [`ATTEMPTS`] succeeded.
pub(crate) struct Work {
    pub(crate) newcomers: usize,
    pub(crate) calls: usize,
}

/// Starts newcomers and calls at regular times within `window`, and waits for all of them.
pub(crate) fn work(stage: &Stage, window: Duration) -> Work {
    let began = Instant::now();
    let newcomer = |number: u32| {
        let mut command = stage.world.command(&["send", "b", "quick:work", "--timeout", "5s"]);
        command.args(stage.join(&format!("guest~{number}"), &stage.relay));
        command
    };
    thread::scope(|scope| {
        let mut newcomers = Vec::new();
        let mut calls = Vec::new();
        for number in 0..ATTEMPTS {
            let (mut newcomer, mut call) = (newcomer(number), stage.call("quick:work"));
            let at = window * number / ATTEMPTS;
            thread::sleep(at.saturating_sub(began.elapsed()));
            newcomers.push(scope.spawn(move || succeeds(&mut newcomer)));
            calls.push(scope.spawn(move || succeeds(&mut call)));
        }
        thread::sleep(window.saturating_sub(began.elapsed()));
        // One that hangs panics, and has failed.
        let succeeded = |threads: Vec<thread::ScopedJoinHandle<'_, bool>>| {
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(false))
                .filter(|ok| *ok)
                .count()
        };
        Work { newcomers: succeeded(newcomers), calls: succeeded(calls) }
    })
}

fn succeeds(command: &mut Command) -> bool {
    let began = Instant::now();
    let done = finish(command);
    let in_time = began.elapsed() <= PATIENCE;
    if done.code != Some(0) || !in_time {
        eprintln!("{:?} after {:.1?}: {}", done.code, began.elapsed(), done.stderr.trim_end());
    }
    done.code == Some(0) && in_time
}

/// A process that pings without end.
pub(crate) struct Pinger {
    child: Child,
    reader: JoinHandle<Vec<Reply>>,
}

struct Reply {
    serial: u64,
    /// When the ping was sent, in milliseconds since 1970.
    sent_at: f64,
    rtt: f64,
}

/// What came of the pings of a window, in milliseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pings {
    pub(crate) sent: usize,
    pub(crate) answered: usize,
    pub(crate) median: f64,
    /// Lost pings count as infinitely long.
    pub(crate) p99: f64,
    /// The longest time between two answers.
    pub(crate) gap: f64,
}

impl Pinger {
    /// `from` has the arguments that choose where the pings come from.
    pub(crate) fn start(stage: &Stage, from: &[String]) -> Self {
        let args = ["ping", "b", "--count", "1000000", "--interval", PING_INTERVAL, "--json"];
        let mut command = stage.world.command(&args);
        let mut child =
            command.args(from).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The attack must not begin before the pair is connected.
        lines.next().expect("b answers before the attack");
        let reader = thread::spawn(move || lines.filter_map(|line| Reply::parse(&line)).collect());
        Self { child, reader }
    }

    /// Ends the pings, and sums up those that were sent since then.
    pub(crate) fn stop(mut self, since: SystemTime) -> Pings {
        let now = millis(SystemTime::now());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let replies = self.reader.join().expect("replies are read");
        Pings::of(&replies, millis(since), now)
    }
}

impl Reply {
    fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let (serial, sent_at) = (line["serial"].as_u64()?, line["initial_time"].as_f64()?);
        Some(Self { serial, sent_at, rtt: line["rtt_ms"].as_f64()? })
    }
}

impl Pings {
    fn of(replies: &[Reply], since: f64, until: f64) -> Self {
        let within: Vec<&Reply> = replies.iter().filter(|reply| reply.sent_at >= since).collect();
        let (Some(first), Some(last)) = (within.first(), within.last()) else {
            return Self {
                p99: f64::INFINITY,
                median: f64::INFINITY,
                gap: until - since,
                ..Self::default()
            };
        };
        let answered = within.len();
        let sent = (last.serial - first.serial + 1) as usize;
        let mut rtts: Vec<f64> = within.iter().map(|reply| reply.rtt).collect();
        rtts.resize(sent.max(answered), f64::INFINITY);
        rtts.sort_by(f64::total_cmp);
        let quantile = |part: f64| rtts[((rtts.len() as f64 * part) as usize).min(rtts.len() - 1)];
        let mut gap: f64 = 0.0;
        let mut before = since;
        for at in within.iter().map(|reply| reply.sent_at + reply.rtt).chain([until]) {
            gap = gap.max(at - before);
            before = at;
        }
        Self { sent, answered, median: quantile(0.5), p99: quantile(0.99), gap }
    }
}

fn millis(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() * 1_000.0
}
