//! What a puncher has done since its start.

use std::time::Duration;

use super::peer::attempt::{Attempt, Outcome};
use super::wire::probe::ProbeError;

/// What a puncher has done since its start. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Rounds started: offers sent and offers accepted.
    pub rounds: u64,
    /// Rounds by outcome, in the order of [`Outcome::ALL`](super::Outcome::ALL).
    pub outcomes: [u64; 7],
    /// Rounds that had an outcome other than [`Superseded`](super::Outcome::Superseded), and how
    /// many of them were [`Direct`](super::Outcome::Direct), by this node's class and the peer's,
    /// in the order of [`NatClass::ALL`](super::NatClass::ALL).
    pub pairs: [[Pair; 4]; 4],
    /// Total time from the start of a round to its path, over successful rounds.
    pub time_to_direct: Duration,
    /// Probes sent.
    pub probes_sent: u64,
    /// Probes not sent because of the limit on amplification.
    pub probes_withheld: u64,
    /// Answers sent.
    pub answers_sent: u64,
    /// Authentic probes received.
    pub probes_received: u64,
    /// Answers to this node's probes received.
    pub answers_received: u64,
    /// Datagrams that were no probes.
    pub probes_malformed: u64,
    /// Probes of no known round.
    pub probes_unknown_round: u64,
    /// This node's own probes, sent back by somebody.
    pub probes_reflected: u64,
    /// Probes that were not authentic.
    pub probes_forged: u64,
    /// Duplicate probes.
    pub probes_replayed: u64,
    /// Unsolicited answers.
    pub answers_unasked: u64,
    /// Probes received too fast, or from too many addresses.
    pub probes_refused: u64,
    /// Messages given to peers.
    pub messages_sent: u64,
    /// Messages of peers accepted.
    pub messages_received: u64,
    /// Answers to an offer that is no longer the newest.
    pub messages_stale: u64,
    /// Offers and requests of peers received too fast, which waited or were replaced by newer ones.
    pub messages_delayed: u64,
    /// Volleys sent: first probes that left at the same moment as the peer's, as measured over the
    /// relays.
    pub volleys: u64,
    /// Paths that became valid.
    pub paths_opened: u64,
    /// Paths that died.
    pub paths_died: u64,
    /// Times that packets were moved to another path or to relays.
    pub paths_changed: u64,
    /// Peers refused because of the bound on them.
    pub peers_refused: u64,
}

impl Counters {
    pub(crate) fn ended(&mut self, attempt: &Attempt) {
        self.outcomes[attempt.outcome as usize] += 1;
        let direct = attempt.outcome == Outcome::Direct;
        if direct {
            self.time_to_direct += attempt.took;
        }
        if attempt.outcome != Outcome::Superseded {
            let pair = &mut self.pairs[attempt.mine as usize][attempt.theirs as usize];
            pair.attempts += 1;
            pair.direct += u64::from(direct);
        }
    }

    pub(crate) fn refused(&mut self, error: ProbeError) {
        let counter = match error {
            ProbeError::Malformed => &mut self.probes_malformed,
            ProbeError::UnknownRound => &mut self.probes_unknown_round,
            ProbeError::Reflected => &mut self.probes_reflected,
            ProbeError::Forged => &mut self.probes_forged,
            ProbeError::Replayed => &mut self.probes_replayed,
            ProbeError::Unasked => &mut self.answers_unasked,
            ProbeError::TooMany => &mut self.probes_refused,
        };
        *counter += 1;
    }
}

/// Rounds of one pair of classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Rounds that had an outcome.
    pub attempts: u64,
    /// Those that got a path.
    pub direct: u64,
}
