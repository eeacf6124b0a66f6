//! Whether a record is let in: its proof, and the credential that the proof needs.
//!
//! ```text
//!   newer than stored, within limits ─▶ refused before? ─▶ credential known? ──yes─▶ verify ─▶ valid: store, repeat
//!                                                               │ no                   ├─▶ forged: the session ends
//!                                                               ▼                      └─▶ untrusted: not taken
//!                                         the record waits; CREDENTIAL-WANT to who sent it ─▶ CREDENTIAL ─▶ verify
//! ```
//!
//! What a node sends it has verified, so it has the credential, too. Where the sender's session
//! ends or it refuses, others that sent the same copy are asked; a record that stays without is
//! dropped, and pulled again when it is announced again.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::id::NodeId;
use crate::router::Router;
use crate::router::database::graph::Effect;
use crate::router::event::{Event, PeerError};
use crate::router::proof::credentials::{Ask, Key, Park, Waiting};
use crate::router::proof::notary::{Notary, Verdict};
use crate::router::proof::signature::{CredentialName, Distrust, Proof};
use crate::router::record::{Record, Stamp};

/// What became of a record that is newer than what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Admission {
    /// It was stored, or is useless from any neighbour.
    Done,
    /// It was not taken, or waits: another neighbour's copy may do.
    NotThisCopy,
    /// There was no room for it to wait: it is pulled again.
    Later,
}

/// What was found about a record.
enum Finding {
    Good,
    Untrusted(Untrusted),
    Needs(CredentialName),
}

struct Untrusted {
    reason: Distrust,
    /// It was refused before, and reported.
    known: bool,
}

impl Router {
    /// Verifies a record that is newer than what is held and within the limits, then stores it.
    pub(in crate::router) fn admit(
        &mut self,
        from: &NodeId,
        record: Record,
        now: Instant,
    ) -> Result<Admission, PeerError> {
        if !self.distrust.allows(from, now) {
            return Ok(self.later(from, &record, now));
        }
        Ok(match self.examine(&record, None, now)? {
            Finding::Good => {
                let origin = record.origin.clone();
                self.take(record, from, now);
                self.watch_expiry(&origin, now);
                Admission::Done
            }
            Finding::Untrusted(why) => {
                self.refuse(from, &record, &why, now);
                Admission::NotThisCopy
            }
            Finding::Needs(name) => self.park(record, name, from, now),
        })
    }

    /// As [`admit`](Self::admit), for what was taken from the neighbour's stream before.
    pub(in crate::router) fn admit_later(&mut self, from: &NodeId, record: Record, now: Instant) {
        if let Err(error) = self.admit(from, record, now) {
            self.event(Event::Violation { neighbour: from.clone(), error });
        }
    }

    /// A stamp of this node's own id. Where records are signed, a stamp proves nothing: the record
    /// itself is asked for.
    pub(in crate::router) fn on_own_stamp(&mut self, from: &NodeId, stamp: Stamp, now: Instant) {
        if self.config.notary.is_none() || !self.is_ahead(stamp) {
            return self.on_own(from, stamp, None, now);
        }
        self.want_own(from, stamp, now);
    }

    /// Asks for a record of this node's own id.
    pub(in crate::router) fn want_own(&mut self, from: &NodeId, stamp: Stamp, now: Instant) {
        let id = self.id().clone();
        if !self.pulls.on_announced(from, &id, stamp, now) {
            self.counters.requests_dropped += 1;
        } else if self.neighbours.get(from).is_some_and(|session| session.got_end) {
            // No neighbour sends it unrequested, and without it this node may not be heard.
            self.pulls.hasten(&id, now);
        }
    }

    /// A copy of this node's own record came back.
    pub(in crate::router) fn on_own_record(
        &mut self,
        from: &NodeId,
        record: Record,
        now: Instant,
    ) -> Result<(), PeerError> {
        let (id, stamp) = (self.id().clone(), record.stamp());
        if self.config.notary.is_none() {
            self.on_own(from, stamp, Some(&record), now);
        } else if !self.is_ahead(stamp) && !self.tells_of_twin(&record) {
            self.on_own(from, stamp, None, now);
        } else if self.admit(from, record, now)? == Admission::Later {
            return Ok(());
        }
        self.pulls.on_not_taken(from, &id);
        Ok(())
    }

    pub(in crate::router) fn on_credential_want(&mut self, from: &NodeId, wanted: Vec<Key>) {
        for (origin, name) in wanted {
            let credential = self.credentials.get(&origin, name).cloned();
            let given = u64::from(credential.is_some());
            let Some(outbox) = self.neighbours.outbox(from) else { return };
            if outbox.give_credential((origin, name), credential, self.config.limits.origins) {
                self.counters.credentials_sent += given;
            } else {
                self.counters.requests_dropped += 1;
            }
        }
    }

    pub(in crate::router) fn on_credential(
        &mut self,
        from: &NodeId,
        key: &Key,
        credential: Option<Bytes>,
        now: Instant,
    ) -> Result<(), PeerError> {
        let Some(credential) = credential else {
            let ask = self.credentials.on_refused(from, key, now);
            self.ask_for_credentials(ask);
            self.end_syncs(now);
            return Ok(());
        };
        if credential.len() > Proof::MAX_CREDENTIAL || CredentialName::of(&credential) != key.1 {
            return Err(PeerError::BadCredential(key.0.clone()));
        }
        if !self.credentials.wants(key) {
            // It was given up, or came from another neighbour first.
            self.counters.requests_dropped += 1;
            return Ok(());
        }
        self.counters.credentials_pulled += 1;
        for waiting in self.credentials.take(key) {
            self.admit_waiting(waiting, &credential, now);
        }
        self.end_syncs(now);
        Ok(())
    }

    /// Ends the sync with neighbours whose records all have their credentials now, or never will.
    pub(in crate::router) fn end_syncs(&mut self, now: Instant) {
        for neighbour in self.credentials.take_ended() {
            self.end_sync(&neighbour, now);
        }
    }

    pub(in crate::router) fn ask_for_credentials(&mut self, asks: impl IntoIterator<Item = Ask>) {
        for Ask { neighbour, key } in asks {
            if let Some(outbox) = self.neighbours.outbox(&neighbour) {
                outbox.want_credential(key);
            }
        }
    }

    /// Asks others where a neighbour did not answer, and gives up in the end.
    pub(in crate::router) fn poll_credentials(&mut self, now: Instant) {
        let (asks, dropped) = self.credentials.poll(now);
        self.counters.records_unproven += dropped as u64;
        if dropped > 0 {
            self.quiet.on_given_up(now);
        }
        self.ask_for_credentials(asks);
        self.end_syncs(now);
    }

    /// Forgets the credentials of records that are gone.
    pub(in crate::router) fn forget_credentials(&mut self) {
        let (id, database) = (&self.config.id, &self.database);
        let holds = |origin: &NodeId| origin == id || database.get(origin).is_some();
        self.credentials.retain(holds);
        self.expiries.retain(holds);
        self.claims.retain(|claimer| database.get(claimer).is_some());
    }

    /// Changes who signs and verifies from now on. A node whose credential is another one speaks
    /// anew.
    pub(in crate::router) fn change_notary(&mut self, notary: Arc<dyn Notary>, now: Instant) {
        let name = CredentialName::of(&notary.credential());
        let known = self.credentials.get(&self.config.id, name).is_some();
        self.credentials.keep(self.config.id.clone(), notary.credential());
        self.config.notary = Some(notary);
        self.refusals.clear();
        self.claims.clear();
        self.schedule.on_effect(Effect::Stubs);
        let origins: Vec<NodeId> =
            self.database.iter().map(|record| record.origin.clone()).collect();
        origins.iter().for_each(|origin| self.judge_transit(origin));
        if !known && self.origin.has_spoken() {
            self.origin.again(now);
        }
    }

    /// The proof of a record of this node's own. None: the notary cannot sign now.
    pub(in crate::router) fn prove(&self, record: &Record) -> Option<Bytes> {
        let Some(notary) = &self.config.notary else { return Some(Bytes::new()) };
        let signature = notary.sign(record.advertisement().bytes())?;
        Some(Proof { credential: CredentialName::of(&notary.credential()), signature }.encode())
    }

    /// Whether paths may lead through another node, by the credential of its record.
    pub(in crate::router) fn judge_transit(&mut self, origin: &NodeId) {
        if origin == self.id() {
            return;
        }
        let (Some(notary), Some(record)) = (&self.config.notary, self.database.get(origin)) else {
            return;
        };
        let proof = Proof::decode(record.advertisement().proof());
        let credential = proof.and_then(|proof| self.credentials.get(origin, proof.credential));
        let permitted = notary.permits_transit(origin, credential.map(|bytes| &bytes[..]));
        let effect = self.database.permit(origin, permitted);
        self.schedule.on_effect(effect);
    }

    /// Whether this node permits transit through a neighbour. One whose record is not here yet is
    /// not permitted if that depends on its certificate.
    #[must_use]
    pub fn permits_transit(&self, neighbour: &NodeId) -> bool {
        let Some(notary) = &self.config.notary else { return true };
        let known = self.database.graph().is_permitted(neighbour);
        known.unwrap_or_else(|| notary.permits_transit(neighbour, None))
    }

    fn examine(
        &mut self,
        record: &Record,
        given: Option<&Bytes>,
        now: Instant,
    ) -> Result<Finding, PeerError> {
        let Some(notary) = self.config.notary.clone() else { return Ok(Finding::Good) };
        let (origin, advertisement) = (&record.origin, record.advertisement());
        let forged = || PeerError::Forged(origin.clone());
        if advertisement.proof().is_empty() {
            self.counters.records_forged += 1;
            return Err(PeerError::Unsigned(origin.clone()));
        }
        let Some(proof) = Proof::decode(advertisement.proof()) else {
            self.counters.records_forged += 1;
            return Err(forged());
        };
        let copy = advertisement.copy_id();
        let refused = self.refusals.get(copy, now);
        let verdict = refused.unwrap_or_else(|| {
            let credential = given.or_else(|| self.credentials.get(origin, proof.credential));
            notary.verify(origin, advertisement.bytes(), &proof, credential.map(|bytes| &bytes[..]))
        });
        match verdict {
            Verdict::Valid => {
                self.counters.records_verified += 1;
                Ok(Finding::Good)
            }
            Verdict::Forged => {
                self.refusals.insert(copy, verdict, now);
                self.counters.records_forged += 1;
                Err(forged())
            }
            Verdict::Untrusted(reason) => {
                self.refusals.insert(copy, verdict, now);
                Ok(Finding::Untrusted(Untrusted { reason, known: refused.is_some() }))
            }
            Verdict::NeedsCredential => Ok(Finding::Needs(proof.credential)),
        }
    }

    /// The record is of its origin, and newer than what is held.
    fn take(&mut self, record: Record, from: &NodeId, now: Instant) {
        if record.origin == *self.id() {
            return self.on_own(from, record.stamp(), Some(&record), now);
        }
        if self.has_room(&record.origin) {
            self.counters.updates_accepted += 1;
            self.store(record, Some(from), now);
        } else {
            self.counters.updates_refused += 1;
        }
    }

    /// The record is not taken. If it is of this node itself, and genuine but for its time, its
    /// version counts all the same: others may hold it.
    fn refuse(&mut self, from: &NodeId, record: &Record, why: &Untrusted, now: Instant) {
        self.counters.records_untrusted += 1;
        if !why.known {
            self.distrust.spend(from, now);
        }
        if record.origin == *self.id() && why.reason.is_genuine() {
            self.on_own(from, record.stamp(), Some(record), now);
        } else if !why.known {
            let (origin, version) = (record.origin.clone(), record.version);
            self.event(Event::Untrusted { origin, version, reason: why.reason });
        }
    }

    fn park(
        &mut self,
        record: Record,
        name: CredentialName,
        from: &NodeId,
        now: Instant,
    ) -> Admission {
        let parked = record.clone();
        match self.credentials.park(record, name, from, now) {
            Park::Ask(ask) => self.ask_for_credentials([ask]),
            Park::Waits => {}
            Park::Full => return self.later(from, &parked, now),
        }
        Admission::NotThisCopy
    }

    /// There is no room, or no time, to look at it now.
    fn later(&mut self, from: &NodeId, record: &Record, now: Instant) -> Admission {
        self.counters.requests_dropped += 1;
        self.pulls.on_announced(from, &record.origin, record.stamp(), now);
        Admission::Later
    }

    /// The credential that a record waited for is here.
    fn admit_waiting(&mut self, waiting: Waiting, credential: &Bytes, now: Instant) {
        let Waiting { record, senders } = waiting;
        // Another neighbour that sent the same copy may have budget left.
        let allowed = senders.iter().find(|sender| self.distrust.allows(sender, now));
        let Some(from) = allowed else {
            for sender in &senders {
                self.later(sender, &record, now);
            }
            return;
        };
        let own = record.origin == *self.id();
        let newer = if own {
            self.is_ahead(record.stamp()) || self.tells_of_twin(&record)
        } else {
            self.database.stamp(&record.origin).is_none_or(|held| held < record.stamp())
        };
        if !newer {
            return;
        }
        match self.examine(&record, Some(credential), now) {
            Ok(Finding::Good) => {
                let origin = record.origin.clone();
                self.take(record, from, now);
                if !own && self.database.get(&origin).is_some() {
                    self.credentials.keep(origin.clone(), credential.clone());
                    self.watch_expiry(&origin, now);
                    self.judge_transit(&origin);
                }
                senders.iter().for_each(|sender| self.settle_shown(sender, &origin));
            }
            Ok(Finding::Untrusted(why)) => self.refuse(from, &record, &why, now),
            // A notary that wants what it has been given.
            Ok(Finding::Needs(_)) => self.counters.records_unproven += 1,
            Err(error) => {
                for neighbour in senders {
                    self.event(Event::Violation { neighbour, error: error.clone() });
                }
            }
        }
    }

    /// Whether this stamp of this node's own id stands above all that this node has said, or is
    /// about to.
    fn is_ahead(&mut self, stamp: Stamp) -> bool {
        let held = self.database.stamp(self.id());
        held != Some(stamp)
            && held.is_none_or(|held| held.version <= stamp.version)
            && !self.origin.overtakes(stamp.version)
            && !self.is_too_far_ahead(stamp.version)
    }
}
