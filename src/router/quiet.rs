//! When to compare digests with the neighbours.

use std::time::{Duration, Instant};

use super::throttle::Jitter;

/// When to compare digests with the neighbours: after a quiet time, and now and then while there is none.
#[derive(Debug)]
pub(crate) struct Quiet {
    quiet: Duration,
    max: Duration,
    /// None: everything was said.
    armed: Option<Armed>,
    jitter: Jitter,
}

#[derive(Debug)]
struct Armed {
    quiet_at: Instant,
    at_latest: Instant,
}

impl Quiet {
    pub(crate) fn new(quiet: Duration, max: Duration, seed: u64) -> Self {
        Self { quiet, max, armed: None, jitter: Jitter::new(seed) }
    }

    /// Something changed, or somebody is to be told.
    pub(crate) fn on_change(&mut self, now: Instant) {
        let quiet_at = now + self.quiet + self.jitter.up_to(self.quiet / 4);
        let at_latest = self.armed.as_ref().map_or(now + self.max, |armed| armed.at_latest);
        self.armed = Some(Armed { quiet_at, at_latest });
    }

    /// Whether nothing changed for a while.
    pub(crate) fn is_quiet(&self) -> bool {
        self.armed.is_none()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.armed.as_ref().map(|armed| armed.quiet_at.min(armed.at_latest))
    }

    /// Whether the time has come.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let due = self.next_timeout().is_some_and(|at| at <= now);
        if due {
            self.armed = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_put_the_comparison_off_but_not_for_ever() {
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut quiet = Quiet::new(second, 60 * second, 7);
        assert!(quiet.is_quiet() && !quiet.poll(start));
        let compared = (0..125u32).filter(|&n| {
            let now = start + second * n / 2;
            let due = quiet.poll(now);
            quiet.on_change(now);
            due
        });
        assert_eq!(compared.collect::<Vec<_>>(), [120]);
        let at = quiet.next_timeout().unwrap();
        assert!(at >= start + 63 * second && at <= start + 63 * second + second / 4);
        assert!(quiet.poll(at) && quiet.is_quiet());
    }
}
