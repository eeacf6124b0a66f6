//! When to look, and whether the machine has slept. Pure.

use std::time::{Duration, Instant};

/// How long it must be quiet before the machine is looked at: interfaces come up in many small
/// steps.
pub(crate) const QUIET: Duration = Duration::from_millis(200);
/// How long it is put off at most, if it is never quiet.
pub(crate) const AT_MOST: Duration = Duration::from_millis(800);
/// How much longer than expected a wait must have been to have been sleep. A busy machine is late
/// as well, and being wrong costs a ping a link.
const OVERSLEPT: Duration = Duration::from_secs(4);

/// Waits for the end of a burst of changes: [`QUIET`] after the last, [`AT_MOST`] after the first.
#[derive(Debug, Default)]
pub(crate) struct Settle(Option<Burst>);

#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Settle {
    /// Something happened.
    pub(crate) fn disturbed(&mut self, now: Instant) {
        self.0.get_or_insert(Burst { first: now, last: now }).last = now;
    }

    /// When to look, if there is anything to look for.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.as_ref().map(|burst| (burst.last + QUIET).min(burst.first + AT_MOST))
    }

    /// Somebody has looked.
    pub(crate) fn settled(&mut self) {
        self.0 = None;
    }
}

/// Whether the machine, or this process, stood still in a wait that was to take `expected`: by the
/// one clock, which stops in sleep on some systems, or by the other, which does not, but may be
/// set. A clock that was set back says nothing.
pub(crate) fn slept(expected: Duration, monotonic: Duration, wall: Duration) -> bool {
    monotonic.max(wall) > expected + OVERSLEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_single_change_is_looked_at_when_it_has_been_quiet() {
        let (mut settle, start) = (Settle::default(), crate::mesh::clock::now());
        assert_eq!(settle.due(), None);
        settle.disturbed(start);
        assert_eq!(settle.due(), Some(start + QUIET));
        settle.settled();
        assert_eq!(settle.due(), None);
    }

    #[test]
    fn a_burst_puts_it_off_and_an_endless_one_not_for_ever() {
        let (mut settle, start) = (Settle::default(), crate::mesh::clock::now());
        settle.disturbed(start);
        settle.disturbed(start + 150 * MS);
        assert_eq!(settle.due(), Some(start + 350 * MS));
        for n in 0..100 {
            settle.disturbed(start + n * 10 * MS);
        }
        assert_eq!(settle.due(), Some(start + AT_MOST));
    }

    #[test]
    fn sleep_shows_in_either_clock_and_lateness_is_no_sleep() {
        let second = Duration::from_secs(1);
        assert!(!slept(2 * second, 2 * second, 2 * second));
        assert!(!slept(2 * second, 5 * second, 5 * second), "a busy machine");
        assert!(!slept(2 * second, 2 * second, Duration::ZERO), "the clock was set back");
        assert!(slept(2 * second, 2 * second, 3_600 * second), "the monotonic clock stood still");
        assert!(slept(2 * second, 60 * second, 60 * second), "the process was stopped");
    }
}
