//! When to compare digests with the neighbours.

use std::time::{Duration, Instant};

use crate::router::neighbour::throttle::Jitter;

/// When to compare digests with the neighbours: after a quiet time, and now and then while there is
/// none.
#[derive(Debug)]
pub(crate) struct Quiet {
    quiet: Duration,
    max: Duration,
    /// None: everything was said.
    armed: Option<Armed>,
    /// When all are compared again, because something was given up that a neighbour holds.
    again: Option<Instant>,
    jitter: Jitter,
}

/// What is to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// With those neighbours that do not know the digest yet.
    News,
    /// With all neighbours.
    All,
}

#[derive(Debug)]
struct Armed {
    quiet_at: Instant,
    at_latest: Instant,
}

impl Quiet {
    pub(crate) fn new(quiet: Duration, max: Duration, seed: u64) -> Self {
        Self { quiet, max, armed: None, again: None, jitter: Jitter::new(seed) }
    }

    /// Something changed, or a neighbour is to be sent something.
    pub(crate) fn on_change(&mut self, now: Instant) {
        let quiet_at = now + self.quiet + self.jitter.up_to(self.quiet / 4);
        let at_latest = self.armed.as_ref().map_or(now + self.max, |armed| armed.at_latest);
        self.armed = Some(Armed { quiet_at, at_latest });
    }

    /// Something that a neighbour holds was given up: it is looked for again, but not at once,
    /// since it may be kept back.
    pub(crate) fn on_given_up(&mut self, now: Instant) {
        self.again.get_or_insert(now + self.max);
    }

    /// Whether nothing changed for a while.
    pub(crate) fn is_quiet(&self) -> bool {
        self.armed.is_none()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let armed = self.armed.as_ref().map(|armed| armed.quiet_at.min(armed.at_latest));
        armed.into_iter().chain(self.again).min()
    }

    /// Whether the time has come, and for what.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Compare> {
        self.next_timeout().filter(|&at| at <= now)?;
        if self.armed.as_ref().is_some_and(|armed| armed.quiet_at.min(armed.at_latest) <= now) {
            self.armed = None;
        }
        let again = self.again.take_if(|at| *at <= now);
        Some(if again.is_some() { Compare::All } else { Compare::News })
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
        assert!(quiet.is_quiet() && quiet.poll(start).is_none());
        let compared = (0..125u32).filter(|&n| {
            let now = start + second * n / 2;
            let due = quiet.poll(now);
            quiet.on_change(now);
            due == Some(Compare::News)
        });
        assert_eq!(compared.collect::<Vec<_>>(), [120]);
        let at = quiet.next_timeout().unwrap();
        assert!(at >= start + 63 * second && at <= start + 63 * second + second / 4);
        assert!(quiet.poll(at).is_some() && quiet.is_quiet());
    }

    #[test]
    fn what_was_given_up_is_looked_for_again_after_the_longest_time() {
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut quiet = Quiet::new(second, 60 * second, 7);
        quiet.on_given_up(start);
        quiet.on_given_up(start + 30 * second);
        assert!(quiet.is_quiet());
        assert_eq!(quiet.next_timeout(), Some(start + 60 * second));
        assert_eq!(quiet.poll(start + 59 * second), None);
        assert_eq!(quiet.poll(start + 60 * second), Some(Compare::All));
        assert_eq!(quiet.next_timeout(), None);
    }
}
