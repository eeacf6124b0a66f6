//! The rounds of a peer whose probes are accepted, and their keys.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::window::Window;
use crate::punch::role::Role;
use crate::punch::wire::probe::{Content, Probe};
use crate::punch::wire::secret::ProbeKey;

/// How long probes of an earlier round are accepted after the newest round known to both ends, or
/// after the last of its probes.
const RETIRED: Duration = Duration::from_secs(10);

/// What the probes of one round are sealed with.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) round: u64,
    pub(crate) key: ProbeKey,
    /// Probes sent.
    sent: u32,
    /// Probes received.
    pub(crate) window: Window,
}

impl Keys {
    pub(crate) fn new(round: u64, key: ProbeKey) -> Self {
        Self { round, key, sent: 0, window: Window::default() }
    }

    /// The next probe, and its counter.
    pub(crate) fn probe(&mut self, sender: Role) -> (u32, [u8; Probe::LEN]) {
        self.sent = self.sent.saturating_add(1);
        let content = Content { sender, round: self.round, counter: self.sent, seen: None };
        (self.sent, content.seal(&self.key))
    }

    /// The answer to the probe with that counter, received from that address.
    pub(crate) fn answer(&self, sender: Role, counter: u32, seen: SocketAddr) -> [u8; Probe::LEN] {
        Content { sender, round: self.round, counter, seen: Some(seen) }.seal(&self.key)
    }
}

/// Up to three rounds.
///
/// ```text
///   offered ──(the peer is known to have it)──▶ agreed ──(the next one is agreed)──▶ retired ──(unused for 10 s)──▶ forgotten
/// ```
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    /// Of an offer that the peer may not have yet.
    offered: Option<Keys>,
    /// Of the newest round that both ends know.
    agreed: Option<Keys>,
    /// Of the one before, and until when: the peer may send by it until it hears of the newer one.
    retired: Option<(Keys, Instant)>,
}

impl KeyRing {
    pub(crate) fn offer(&mut self, keys: Keys) {
        self.offered = Some(keys);
    }

    /// The peer has the offer.
    pub(crate) fn agree(&mut self, now: Instant) {
        if let Some(keys) = self.offered.take()
            && let Some(before) = self.agreed.replace(keys)
        {
            self.retired = Some((before, now + RETIRED));
        }
    }

    pub(crate) fn is_offered(&self, round: u64) -> bool {
        self.offered.as_ref().is_some_and(|keys| keys.round == round)
    }

    /// Of the newest round, to look for new paths.
    pub(crate) fn newest(&mut self) -> Option<&mut Keys> {
        self.offered.as_mut().or(self.agreed.as_mut())
    }

    /// Of the newest round that both ends know, to watch paths.
    pub(crate) fn agreed(&mut self) -> Option<&mut Keys> {
        self.agreed.as_mut()
    }

    pub(crate) fn find(&mut self, round: u64) -> Option<&mut Keys> {
        let retired = self.retired.as_mut().map(|(keys, _)| keys);
        [self.offered.as_mut(), self.agreed.as_mut(), retired]
            .into_iter()
            .flatten()
            .find(|keys| keys.round == round)
    }

    /// Records an authentic probe of the round that was not seen before.
    pub(crate) fn used(&mut self, round: u64, now: Instant) {
        if self.is_offered(round) {
            self.agree(now);
        }
        if let Some((keys, until)) = &mut self.retired
            && keys.round == round
        {
            *until = now + RETIRED;
        }
    }

    pub(crate) fn rounds(&self) -> impl Iterator<Item = u64> {
        let retired = self.retired.as_ref().map(|(keys, _)| keys);
        [self.offered.as_ref(), self.agreed.as_ref(), retired]
            .into_iter()
            .flatten()
            .map(|keys| keys.round)
    }

    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.retired.as_ref().map(|(_, until)| *until)
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.retired.take_if(|(_, until)| *until <= now);
    }
}
