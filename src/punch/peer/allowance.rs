//! The anti-amplification limit: how much a peer can make this node send to addresses that have not
//! answered.
//!
//! A member can announce any address as its own. As in RFC 9000, section 8.1, traffic to an
//! unvalidated address is bounded by what was received: [`FACTOR`] times the bytes of the peer's
//! messages and authentic probes. QUIC's factor is 3; here it is 4, of which answers to probes take
//! one part. Both ends pad their messages to a fourth of the probes that they expect, so that the
//! round of an honest peer is not cut short.

use crate::punch::wire::message::{FACTOR, Message};
use crate::punch::wire::probe::Probe;

/// Maximum allowance: what the longest message permits.
const MAX: usize = FACTOR * Message::MAX_LEN;

/// Bytes that may still be sent to addresses that have not answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    bytes: usize,
}

impl Allowance {
    /// A message of this length starts a round: the rest of earlier allowances is forfeited.
    pub(crate) fn renew(&mut self, len: usize) {
        self.bytes = 0;
        self.add(FACTOR * len);
    }

    /// Another message of the peer arrived.
    pub(crate) fn on_message(&mut self, len: usize) {
        self.add(FACTOR * len);
    }

    /// An authentic probe of the peer arrived; its answer takes one of the four parts.
    pub(crate) fn on_probe(&mut self) {
        self.add((FACTOR - 1) * Probe::LEN);
    }

    /// Takes the bytes of one probe, if they are permitted.
    pub(crate) fn take_probe(&mut self) -> bool {
        let left = self.bytes.checked_sub(Probe::LEN);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    fn add(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes).min(MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(allowance: &mut Allowance) -> usize {
        (0..1_000).take_while(|_| allowance.take_probe()).count()
    }

    #[test]
    fn probes_have_at_most_four_times_the_bytes_of_the_offer() {
        let mut allowance = Allowance::default();
        assert_eq!(probes(&mut allowance), 0);
        allowance.renew(590);
        assert_eq!(probes(&mut allowance), 4 * 590 / 64);
        allowance.renew(16);
        assert_eq!(probes(&mut allowance), 1);
    }

    #[test]
    fn what_an_offer_left_is_not_added_to_the_next() {
        let mut allowance = Allowance::default();
        for _ in 0..10 {
            allowance.renew(640);
        }
        assert_eq!(probes(&mut allowance), 40);
    }

    #[test]
    fn messages_and_probes_of_the_peer_add_to_it_up_to_a_bound() {
        let mut allowance = Allowance::default();
        allowance.renew(0);
        allowance.on_message(32);
        assert_eq!(probes(&mut allowance), 2);
        allowance.on_probe();
        assert_eq!(probes(&mut allowance), 3);
        (0..1_000).for_each(|_| allowance.on_message(Message::MAX_LEN));
        assert_eq!(probes(&mut allowance), 4 * 4_096 / 64);
    }
}
