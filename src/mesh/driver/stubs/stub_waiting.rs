//! Who waits at a stub for its neighbour's verdicts on convergence, each until a deadline of its
//! own.
//!
//! The neighbour answers one request at a time. So the stub asks until the earliest deadline, and
//! again for the others.

use std::time::{Duration, Instant};

use crate::mesh::driver::converge::Asker;
use crate::mesh::report::convergence::Convergence;

/// How much longer than its deadline a waiter waits for the neighbour's answer, which has a way to
/// go.
const GRACE: Duration = Duration::from_secs(1);
/// How long after a verdict that came too early, since the neighbour had no room, the stub asks
/// again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Who waits at a stub, and when it asks again. As many as a router takes requests.
#[derive(Default)]
pub(crate) struct StubWaiting {
    waiters: Vec<(Instant, Asker)>,
    ask_again: Option<Instant>,
}

impl StubWaiting {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn add(&mut self, deadline: Instant, asker: Asker) {
        self.waiters.push((deadline, asker));
    }

    /// Until when the neighbour is to be asked; `None` if no caller waits.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.waiters.iter().map(|(deadline, _)| *deadline).min()
    }

    /// The neighbour's verdict. `true` if it is to be asked at once for those that wait longer.
    pub(crate) fn answer(&mut self, verdict: Convergence, now: Instant) -> bool {
        let is_over = |deadline: Instant| match verdict {
            Convergence::Converged { .. } => true,
            Convergence::Partial { .. } => deadline <= now,
        };
        let before = self.waiters.len();
        for (_, asker) in self.waiters.extract_if(.., |(deadline, _)| is_over(*deadline)) {
            // The waiter may have been dropped.
            let _ = asker.send(Ok(verdict));
        }
        let due = self.waiters.len() < before;
        self.ask_again = (!due).then_some(now + ASK_AGAIN);
        due && !self.waiters.is_empty()
    }

    /// Forgets those that have gone, and answers those that the neighbour has left without an
    /// answer, with how many nodes there were. `true` if the neighbour is to be asked again.
    pub(crate) fn expire(&mut self, expected: u64, now: Instant) -> bool {
        self.waiters.retain(|(_, asker)| !asker.is_closed());
        for (_, asker) in self.waiters.extract_if(.., |(deadline, _)| *deadline + GRACE <= now) {
            let _ = asker.send(Ok(Convergence::Partial { count: 0, expected }));
        }
        let asks = self.ask_again.take_if(|at| *at <= now).is_some();
        asks && !self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::mesh::clock;
    use crate::mesh::report::convergence::ConvergeError;

    const PARTIAL: Convergence = Convergence::Partial { count: 2, expected: 3 };

    type Answer = oneshot::Receiver<Result<Convergence, ConvergeError>>;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn waiting(start: Instant, deadlines: [u64; 2]) -> (StubWaiting, [Answer; 2]) {
        let mut waiting = StubWaiting::default();
        let answers = deadlines.map(|deadline| {
            let (asker, answer) = oneshot::channel();
            waiting.add(at(start, deadline), asker);
            answer
        });
        (waiting, answers)
    }

    #[test]
    fn a_short_wait_does_not_end_a_long_one() {
        let start = clock::now();
        let (mut waiting, [mut long, mut short]) = waiting(start, [60, 2]);
        assert_eq!(waiting.earliest(), Some(at(start, 2)));
        assert!(waiting.answer(PARTIAL, at(start, 2)), "the long one goes on");
        assert_eq!(short.try_recv(), Ok(Ok(PARTIAL)));
        assert!(long.try_recv().is_err());
        assert_eq!(waiting.earliest(), Some(at(start, 60)));
        let verdict = Convergence::Converged { count: 3 };
        assert!(!waiting.answer(verdict, at(start, 5)));
        assert_eq!(long.try_recv(), Ok(Ok(verdict)));
    }

    #[test]
    fn a_neighbour_without_room_is_asked_again_a_second_later() {
        let start = clock::now();
        let (mut waiting, [_long, _short]) = waiting(start, [60, 2]);
        assert!(!waiting.answer(PARTIAL, start));
        assert!(!waiting.expire(3, start));
        assert!(waiting.expire(3, at(start, 1)));
        assert!(!waiting.expire(3, at(start, 1)), "once");
    }

    #[test]
    fn each_waiter_is_answered_a_second_after_its_own_deadline() {
        let start = clock::now();
        let (mut waiting, [mut long, mut short]) = waiting(start, [60, 2]);
        waiting.expire(3, at(start, 2));
        assert!(short.try_recv().is_err());
        waiting.expire(3, at(start, 3));
        assert_eq!(short.try_recv(), Ok(Ok(Convergence::Partial { count: 0, expected: 3 })));
        assert!(long.try_recv().is_err());
        drop(long);
        waiting.expire(3, at(start, 4));
        assert_eq!(waiting.len(), 0);
    }
}
