//! Progress of a call, as one line on a terminal that is rewritten in place.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::flow::{Sink, Source};
use super::text::span;
use crate::cli::process::exit::Failure;
use crate::sync::lock;

/// A call that ends sooner shows nothing.
const FIRST: Duration = Duration::from_secs(1);
/// Refresh interval of the progress line.
const PERIOD: Duration = Duration::from_millis(500);
/// The weight of the newest measurement in the rate that is shown.
const NEWEST: f64 = 0.3;
/// Moves to the start of the line and erases it.
pub(in crate::cli) const ERASE: &str = "\r\x1b[K";

/// The progress of one call. Clones share it; the last one that is dropped leaves the terminal
/// without the line.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    on: bool,
    /// Whether responses go to the same terminal.
    beside_output: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    total: Option<u64>,
    queued: bool,
    shown: bool,
    /// Output that ended within a line: the progress must not continue it.
    mid_line: bool,
}

/// Bytes since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    sent: u64,
    received: u64,
}

impl Progress {
    /// Shows progress if standard error is a terminal, unless `quiet`. `total` is the size of the
    /// payload, if it is known.
    pub(in crate::cli) fn new(total: Option<u64>, quiet: bool) -> Self {
        let state = Mutex::new(State { total, ..State::default() });
        let on = !quiet && io::stderr().is_terminal();
        Self(Arc::new(Shared { on, beside_output: io::stdout().is_terminal(), state }))
    }

    /// Rewrites the line for ever. Dropped, it leaves the line as it is.
    pub(in crate::cli) async fn show<T>(&self) -> T {
        if !self.0.on {
            return std::future::pending().await;
        }
        let mut ticks = interval_at(Instant::now() + FIRST, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rate = Rate::new(Instant::now());
        loop {
            let now = ticks.tick().await;
            let mut state = self.0.state();
            let rate = rate.update(state.counts, now);
            if state.mid_line {
                continue;
            }
            state.shown = true;
            say(&format!("{ERASE}{}", state.line(rate)));
        }
    }

    /// The call waits for others.
    pub(in crate::cli) fn queued(&self) {
        let mut state = self.0.state();
        state.queued = true;
        if self.0.on && !state.mid_line {
            state.shown = true;
            say(&format!("{ERASE}{}", state.line(0.0)));
        }
    }

    /// Counts what is read from `payload`.
    pub(in crate::cli) fn sending<S: Source>(&self, payload: S) -> impl Source {
        Counted { inner: payload, progress: self.clone() }
    }

    /// Counts what is written to `responses`, and keeps the line out of its way.
    pub(in crate::cli) fn receiving<S: Sink>(&self, responses: S) -> impl Sink {
        Counted { inner: responses, progress: self.clone() }
    }

    fn sent(&self, len: usize) {
        let mut state = self.0.state();
        state.queued = false;
        state.counts.sent += len as u64;
    }

    fn received(&self, body: &[u8]) {
        let mut state = self.0.state();
        state.queued = false;
        state.counts.received += body.len() as u64;
        if self.0.beside_output {
            state.erase();
            state.mid_line = body.last().is_some_and(|byte| *byte != b'\n');
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.state().erase();
    }
}

impl State {
    fn erase(&mut self) {
        if std::mem::take(&mut self.shown) {
            say(ERASE);
        }
    }

    fn line(&self, rate: f64) -> String {
        let Counts { sent, received } = self.counts;
        if self.queued {
            return "waiting: the node runs as many calls as it may".to_owned();
        }
        let mut line = format!("sent {}", bytes(sent as f64));
        if let Some(total) = self.total {
            let _ = write!(line, " of {}", bytes(total as f64));
        }
        let _ = write!(line, ", received {}, {}/s", bytes(received as f64), bytes(rate));
        if let Some(left) = self.total.and_then(|total| time_left(total.saturating_sub(sent), rate))
        {
            let _ = write!(line, ", {} left", span(left));
        }
        line
    }
}

/// In milliseconds; `None` if nothing is left to send or nothing moves.
fn time_left(bytes: u64, rate: f64) -> Option<u64> {
    let left = bytes as f64 / rate * 1000.0;
    (bytes > 0 && left.is_finite()).then_some(left as u64)
}

/// Bytes per second in both directions together, smoothed.
#[derive(Debug)]
struct Rate {
    at: Instant,
    bytes: u64,
    smoothed: Option<f64>,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { at: now, bytes: 0, smoothed: None }
    }

    fn update(&mut self, counts: Counts, now: Instant) -> f64 {
        let bytes = counts.sent.max(counts.received);
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds > 0.0 {
            let newest = (bytes - self.bytes) as f64 / seconds;
            let before = self.smoothed.unwrap_or(newest);
            self.smoothed = Some(before + NEWEST * (newest - before));
            (self.at, self.bytes) = (now, bytes);
        }
        self.smoothed.unwrap_or_default()
    }
}

/// A number of bytes in decimal units.
pub(in crate::cli) fn bytes(n: f64) -> String {
    match n {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

/// Writes to standard error, as it is.
pub(in crate::cli) fn say(text: &str) {
    let mut terminal = io::stderr();
    // A terminal that is gone needs no progress.
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

/// A source or a sink whose bytes are counted.
struct Counted<T> {
    inner: T,
    progress: Progress,
}

impl<S: Source> Source for Counted<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let piece = self.inner.next().await?;
        self.progress.sent(piece.as_ref().map_or(0, Bytes::len));
        Ok(piece)
    }

    async fn gone(&mut self) -> Failure {
        self.inner.gone().await
    }
}

impl<S: Sink> Sink for Counted<S> {
    async fn put(&mut self, body: Bytes) -> Result<(), Failure> {
        self.progress.received(&body);
        self.inner.put(body).await
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.inner.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sent: u64, received: u64, total: Option<u64>) -> State {
        State { counts: Counts { sent, received }, total, ..State::default() }
    }

    #[test]
    fn the_line_has_bytes_rate_and_the_time_left() {
        let line = state(12_000_000, 500, Some(64_000_000)).line(5_200_000.0);
        assert_eq!(line, "sent 12.0 MB of 64.0 MB, received 500 B, 5.2 MB/s, 10 s left");
        assert_eq!(state(1_500, 0, None).line(0.0), "sent 1.5 kB, received 0 B, 0 B/s");
        assert_eq!(state(9, 9, Some(9)).line(1.0), "sent 9 B of 9 B, received 9 B, 1 B/s");
        let queued = State { queued: true, ..State::default() };
        assert!(queued.line(0.0).starts_with("waiting"));
    }

    #[test]
    fn the_rate_follows_the_newest_measurements() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let counts = |sent| Counts { sent, received: 0 };
        assert_eq!(rate.update(counts(1_000), start + Duration::from_secs(1)), 1_000.0);
        let slower = rate.update(counts(1_000), start + Duration::from_secs(2));
        assert!(slower < 1_000.0 && slower > 0.0, "{slower}");
        assert_eq!(
            rate.update(counts(1_000), start + Duration::from_secs(2)),
            slower,
            "no time has passed"
        );
    }
}
