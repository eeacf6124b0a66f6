//! What happened last, for when a check fails; and signs of life on long runs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Lines that are kept.
const KEPT: usize = 24;
/// Steps between two looks at the machine's clock.
const STEPS: u64 = 4_096;

pub(crate) struct Journal {
    start: Instant,
    lines: VecDeque<String>,
    failure: Option<String>,
    steps: u64,
    wall: Instant,
    reported: Instant,
}

impl Journal {
    /// Starts at this virtual time.
    pub(crate) fn new(start: Instant) -> Self {
        let wall = wall();
        Self { start, lines: VecDeque::new(), failure: None, steps: 0, wall, reported: wall }
    }

    /// Since the virtual start.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now - self.start
    }

    /// Since the start, on the machine's clock.
    pub(crate) fn wall(&self) -> Duration {
        wall() - self.wall
    }

    pub(crate) fn note(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        let age = self.age(now).as_secs_f64();
        self.lines.push_back(format!("{age:10.4} s  {}", line()));
    }

    /// A router or a message did what it never may. The first one counts.
    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The last lines, oldest first.
    pub(crate) fn trace(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// A line on standard error every other second.
    #[expect(clippy::print_stderr, reason = "progress of a long run")]
    pub(crate) fn progress(&mut self, now: Instant, messages: u64, nodes: usize) {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS) && self.reported.elapsed() > Duration::from_secs(2) {
            self.reported = wall();
            let (wall, age) = (self.wall().as_secs(), self.age(now).as_secs_f64());
            eprintln!(
                "  {wall:4} s: {nodes} nodes, {age:.3} s of virtual time, {messages} messages"
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tells how long the run took, decides nothing")]
fn wall() -> Instant {
    Instant::now()
}
