//! The drain rule: events and messages are polled until none is left.

use receptor_quic::router::{DeadlineReason, Event, Router, Transmit};

/// What the router has to report and to send. Honest nodes violate nothing, and a drained router
/// does not ask to be drained.
pub(crate) fn drained(router: &mut Router) -> (Vec<Event>, Vec<Transmit>) {
    let events: Vec<_> = std::iter::from_fn(|| router.poll_event()).collect();
    for event in &events {
        assert!(!matches!(event, Event::Violation { .. }), "{event:?}");
    }
    let transmits = std::iter::from_fn(|| router.poll_transmit()).collect();
    let deadline = router.poll_timeout();
    assert!(deadline.is_none_or(|deadline| deadline.reason != DeadlineReason::Output));
    (events, transmits)
}
