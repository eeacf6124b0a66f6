//! When a peer is dialled again, and how patiently. Pure: the clock and the random draw come in by
//! argument.

use std::time::{Duration, Instant};

use quinn::ConnectionError;

use super::error::AttemptError;
use crate::mesh::links::dialling::names::LookUpError;
use crate::transport::backoff::{Backoff, LinkEnd};
use crate::transport::code::CloseCode;

/// How long one dial may take while the peer was linked a short while ago: its first packets may go
/// to a process that is not there yet, and the sooner the attempt is given up, the sooner the next
/// one meets the new process.
const FRESH_ATTEMPT: Duration = Duration::from_secs(3);
/// How long one dial may take otherwise.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long a link must have lasted for its peer to count as recently linked.
const LINKED_AFTER: Duration = Duration::from_secs(2);
/// Every so many attempts in a row that ended by such reports, the next one ignores them: a forger
/// can delay a link to a peer that is far, and not prevent it.
const HEEDLESS_EVERY: u32 = 8;
/// For this long after the loss of a link, a port that is reported as closed is that of a process
/// that restarts: it is dialled without growing delays.
const RESTART_WITHIN: Duration = Duration::from_secs(5);
/// Links of a peer that may end in a row by its leave, by its restart, or by this node, without
/// growing delays. A link that lasts resets the count.
const MAX_RESTARTS: u32 = 16;
/// The longest delay before such a dial.
const RESTART_DELAY: Duration = Duration::from_millis(150);

/// How patient one attempt is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Patience {
    /// How long one dial may take.
    pub(super) limit: Duration,
    /// Whether a dial ends early when its address is reported as unreachable.
    pub(super) heeds_reports: bool,
    /// The round trip of the last link to the peer.
    pub(super) rtt: Option<Duration>,
}

/// The next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// How long to wait before it.
    pub(super) delay: Duration,
    pub(super) patience: Patience,
}

/// The attempts at one peer so far, as far as they decide about the next one.
#[derive(Debug)]
pub(super) struct Schedule {
    backoff: Backoff,
    /// When the last link that held was lost.
    lost_at: Option<Instant>,
    /// Attempts in a row that ended by reports that the address is unreachable.
    reported: u32,
    /// Whether the last attempt met a process that is gone, or is about to go.
    closed_port: bool,
    restarts_left: u32,
    /// Whether the peer has just left, so that another process of it probably starts.
    expects_restart: bool,
    /// The round trip of the last link.
    rtt: Option<Duration>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            lost_at: None,
            reported: 0,
            closed_port: false,
            restarts_left: MAX_RESTARTS,
            expects_restart: false,
            rtt: None,
        }
    }
}

impl Schedule {
    /// The next attempt. `draw` is uniform over all u64.
    pub(super) fn next(&mut self, now: Instant, draw: u64) -> Turn {
        let lost_within = |time| self.lost_at.is_some_and(|lost| now < lost + time);
        let fresh = lost_within(Backoff::FRESH_FOR);
        let restarts = self.closed_port && lost_within(RESTART_WITHIN);
        let restarts = restarts || std::mem::take(&mut self.expects_restart);
        let delay = match self.backoff.next(fresh, draw) {
            _ if restarts => Backoff::jittered(RESTART_DELAY, draw),
            delay => delay,
        };
        let limit = if fresh { FRESH_ATTEMPT } else { ATTEMPT };
        let heeds_reports = self.reported % HEEDLESS_EVERY != HEEDLESS_EVERY - 1;
        Turn { delay, patience: Patience { limit, heeds_reports, rtt: self.rtt } }
    }

    /// Attempts since the delays started over.
    pub(super) fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    /// What failed before says nothing about the network of now.
    pub(super) fn network_moved(&mut self) {
        self.backoff.reset();
    }

    /// The attempt led to a link.
    pub(super) fn linked(&mut self) {
        self.reported = 0;
        self.closed_port = false;
    }

    pub(super) fn failed(&mut self, error: &AttemptError) {
        self.reported = match error {
            AttemptError::Unreachable { .. } => self.reported.wrapping_add(1),
            _ => 0,
        };
        self.closed_port = error.may_be_restart();
        if matches!(error, AttemptError::LookUp(LookUpError::Slow(_))) {
            // That says nothing about the peer, and the answer is still awaited.
            self.backoff.undo();
        }
    }

    /// A link ended that had lasted for `up`.
    pub(super) fn link_ended(
        &mut self,
        why: &ConnectionError,
        up: Duration,
        rtt: Duration,
        now: Instant,
    ) {
        self.rtt = Some(rtt);
        if up >= Backoff::STABLE_AFTER {
            self.restarts_left = MAX_RESTARTS;
        }
        // This node closes the link as well when the peer announces that it leaves.
        let left =
            closed_with(why, CloseCode::Leaving) || matches!(why, ConnectionError::LocallyClosed);
        // A stateless reset comes from a process that has the peer's key and listens now.
        let restarted = matches!(why, ConnectionError::Reset);
        let restart = (left || restarted) && self.restarts_left > 0;
        if restart {
            // Not a failure: the delays start over.
            self.restarts_left -= 1;
        }
        let end = match restart {
            true if restarted => LinkEnd::Restarted,
            true => LinkEnd::PeerLeft,
            false if closed_with(why, CloseCode::DuplicateLink) => LinkEnd::Duplicate,
            false => LinkEnd::Lost,
        };
        self.expects_restart |= end == LinkEnd::PeerLeft;
        self.backoff.link_ended(end, up);
        // A link that is refused right after HELLO was never one: a twin is not to knock every
        // other second.
        if restart || up >= LINKED_AFTER {
            self.lost_at = Some(now);
        }
    }
}

fn closed_with(why: &ConnectionError, code: CloseCode) -> bool {
    matches!(why, ConnectionError::ApplicationClosed(close) if CloseCode::from(close.error_code) == code)
}

#[cfg(test)]
mod tests {
    use quinn::ApplicationClose;

    use super::*;
    use crate::mesh::clock;
    use crate::transport::unreachable::Reason;

    const RTT: Duration = Duration::from_millis(20);

    fn closed(code: CloseCode) -> ConnectionError {
        let error_code = code.to_quic();
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason: "".into() })
    }

    fn unreachable() -> AttemptError {
        let addr = ([192, 0, 2, 1], 7400).into();
        AttemptError::Unreachable { addr, why: Reason::Port }
    }

    #[test]
    fn a_peer_that_was_linked_is_dialled_with_less_patience_and_its_round_trip() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        let first = schedule.next(now, u64::MAX);
        let patience = Patience { limit: ATTEMPT, heeds_reports: true, rtt: None };
        assert_eq!(first, Turn { delay: Duration::ZERO, patience });
        schedule.linked();
        schedule.link_ended(&ConnectionError::TimedOut, LINKED_AFTER, RTT, now);
        let patience = Patience { limit: FRESH_ATTEMPT, rtt: Some(RTT), ..patience };
        assert_eq!(schedule.next(now, u64::MAX).patience, patience);
        let later = schedule.next(now + Backoff::FRESH_FOR, u64::MAX);
        assert_eq!(later.patience.limit, ATTEMPT);
    }

    #[test]
    fn a_link_that_was_refused_at_once_was_none() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        schedule.link_ended(&closed(CloseCode::DuplicateId), Duration::ZERO, RTT, now);
        assert_eq!(schedule.next(now, 0).patience.limit, ATTEMPT);
    }

    #[test]
    fn every_eighth_attempt_ignores_reports() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        let heeded: Vec<bool> = (0..16)
            .map(|_| {
                let heeded = schedule.next(now, 0).patience.heeds_reports;
                schedule.failed(&unreachable());
                heeded
            })
            .collect();
        let ignored: Vec<usize> = (0..16).filter(|nth| !heeded[*nth]).collect();
        assert_eq!(ignored, [7, 15]);
        schedule.failed(&AttemptError::NoAddress);
        assert_eq!(schedule.reported, 0, "others interrupt the row");
    }

    #[test]
    fn a_closed_port_right_after_a_loss_is_a_restart_and_later_it_is_not() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        schedule.link_ended(&ConnectionError::TimedOut, LINKED_AFTER, RTT, now);
        for _ in 0..10 {
            schedule.failed(&unreachable());
            assert!(schedule.next(now, u64::MAX).delay < RESTART_DELAY);
        }
        schedule.failed(&unreachable());
        let delay = schedule.next(now + RESTART_WITHIN, u64::MAX).delay;
        assert!(delay > RESTART_DELAY, "{delay:?}");
    }

    #[test]
    fn a_peer_may_leave_so_many_times_in_a_row_and_a_stable_link_resets_the_count() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        let mut leaves = |up| {
            schedule.link_ended(&closed(CloseCode::Leaving), up, RTT, now);
            std::mem::take(&mut schedule.expects_restart)
        };
        for _ in 0..MAX_RESTARTS {
            assert!(leaves(Duration::ZERO));
        }
        assert!(!leaves(Duration::ZERO));
        assert!(leaves(Backoff::STABLE_AFTER));
    }

    #[test]
    fn a_slow_resolver_does_not_lengthen_the_delay() {
        let (mut schedule, now) = (Schedule::default(), clock::now());
        for _ in 0..5 {
            schedule.next(now, 0);
            schedule.failed(&AttemptError::LookUp(LookUpError::Slow("relay".to_owned())));
        }
        assert_eq!(schedule.attempts(), 0);
    }
}
