//! One exchange of candidates, and the connectivity checks that follow.
//!
//! ```text
//!   offer sent ──▶ Awaiting ──(answer)──▶ Checking ──(schedules done)──▶ Over
//!                     │ 5 s, asked twice     ▲
//!                     ▼                      │ offer taken, answer sent
//!                    Over ──(late answer)────┘
//! ```

use std::time::{Duration, Instant};

use super::attempt::{Cause, Outcome};
use super::schedule::Checks;
use super::volley::Volleys;
use crate::punch::gather::nat::NatClass;

/// What the last probe's answer is waited for, at least.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long probes of a peer are waited for where there is nothing to probe.
const LISTEN: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) id: u64,
    pub(crate) began: Instant,
    pub(crate) cause: Cause,
    pub(crate) phase: Phase,
    pub(crate) outcome: Option<Outcome>,
    /// Both ends have announced their candidates.
    pub(crate) answered: bool,
    pub(crate) checks: Checks,
    pub(crate) volleys: Volleys,
    /// Probes to candidates and paths.
    pub(crate) probes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For an answer to the offer, until then.
    Awaiting(Instant),
    /// Candidates are probed, until then at least.
    Checking(Instant),
    Over,
}

impl Round {
    pub(crate) fn new(id: u64, began: Instant, cause: Cause, phase: Phase) -> Self {
        let (checks, volleys) = (Checks::default(), Volleys::default());
        Self { id, began, cause, phase, outcome: None, answered: false, checks, volleys, probes: 0 }
    }

    /// Candidates are probed from now on.
    pub(crate) fn check(&mut self, now: Instant) {
        self.phase = Phase::Checking(now + LISTEN);
        self.outcome = None;
        self.answered = true;
    }

    pub(crate) fn sent(&mut self, now: Instant) {
        self.probes += 1;
        if let Phase::Checking(until) = &mut self.phase {
            *until = (*until).max(now + LAST_ANSWER);
        }
    }

    /// Whether another volley would be of use: no path was found, and candidates are still probed.
    pub(crate) fn wants_volley(&self) -> bool {
        self.outcome.is_none() && self.checks.due_at().is_some()
    }

    /// Whether it is to be seen yet what becomes of it.
    pub(crate) fn is_open(&self) -> bool {
        match self.phase {
            Phase::Awaiting(_) => true,
            Phase::Checking(_) => self.outcome.is_none(),
            Phase::Over => false,
        }
    }

    /// When the phase ends without further input.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Awaiting(until) => Some(until),
            Phase::Checking(until) => self.checks.due_at().is_none().then_some(until),
            Phase::Over => None,
        }
    }
}

/// Why nothing was found.
pub(crate) fn failure(mine: NatClass, theirs: NatClass, probes: u32) -> Outcome {
    use NatClass::EndpointDependent;
    match (mine, theirs) {
        _ if probes == 0 => Outcome::NoCandidates,
        (EndpointDependent, EndpointDependent) => Outcome::BothEndpointDependent,
        (EndpointDependent, _) | (_, EndpointDependent) => Outcome::PortGuessingNeeded,
        _ => Outcome::NoAnswer,
    }
}
