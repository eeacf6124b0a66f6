//! What each message does.

use std::time::Instant;

use super::Router;
use super::config::FloodMode;
use super::database::buckets::BucketSet;
use super::event::{Event, Limit, PeerError};
use super::flood::{Eager, Ways};
use super::neighbour::outbox::Owed;
use super::neighbour::{NeighbourKind, Owes};
use super::origin::Urgency;
use super::proof::admission::Admission;
use super::proof::signature::Proof;
use super::record::advertisement::Advertisement;
use super::record::compact::DecodeError;
use super::record::wire::{Digest, Entry, Message};
use super::record::{Record, Stamp};
use crate::id::{NodeId, Version};

/// Lost stubs that count as one more update. Without that, an origin whose thousands of stubs
/// alternate would have every node make and unmake thousands of routes at each of its updates.
/// Stubs that appear cost nothing: a burst of updates is enough for the loss of 4,000 stubs at
/// once, and what follows is accepted as soon as ever.
const STUBS_LOST_IN_AN_UPDATE: usize = 250;

/// Digests that differ one after the other, before one is believed although changes go on.
const MISMATCHES_BELIEVED: u8 = 3;

impl Router {
    pub(super) fn receive(
        &mut self,
        from: &NodeId,
        message: Message,
        now: Instant,
    ) -> Result<(), PeerError> {
        let session =
            self.neighbours.get_mut(from).ok_or_else(|| PeerError::NoSession(from.clone()))?;
        if session.kind == NeighbourKind::Stub {
            return Err(PeerError::StubSpoke);
        }
        session.on_heard(now);
        if !session.got_digest && !matches!(message, Message::Digest { .. }) {
            return Err(PeerError::DigestMissing);
        }
        match message {
            Message::Digest { digest, count } => self.on_digest(from, digest, count, now),
            Message::Buckets(buckets) => self.on_buckets(from, &buckets, now),
            Message::Summary { after, entries, last, buckets } => {
                self.on_summary(from, after.as_ref(), &entries, (last, buckets), now)
            }
            Message::Update(advertisement) => self.on_update(from, &advertisement, now)?,
            Message::Delta(delta) => self.on_delta(from, &delta, now)?,
            Message::Have(entries) => self.on_have(from, &entries, now),
            Message::Offer(entries) => self.on_offer(from, &entries, now),
            Message::Want(origins) => self.on_want(from, origins),
            Message::Nack(origins) => {
                origins.iter().for_each(|origin| self.pulls.on_refused(from, origin, now))
            }
            Message::Echo(echo) => self.on_echo(from, &echo),
            Message::SyncEnd => self.on_sync_end(from, now)?,
            Message::Rekeyed { key, digest } => self.on_rekeyed(from, key, digest, now),
            Message::CredentialWant(wanted) => self.on_credential_want(from, wanted),
            Message::Credential { origin, name, credential } => {
                self.on_credential(from, &(origin, name), credential, now)?
            }
            Message::AttachmentWant(wanted) => self.on_attachment_want(from, wanted, now),
            Message::Attachment { stub, neighbour, attachment } => {
                self.on_attachment(from, &(stub, neighbour), attachment, now);
            }
        }
        Ok(())
    }

    fn on_digest(&mut self, from: &NodeId, digest: Digest, count: u64, now: Instant) {
        let Some(session) = self.neighbours.get_mut(from) else { return };
        if std::mem::replace(&mut session.got_digest, true) {
            return self.on_quiet_digest(from, digest, count, now);
        }
        let equal = session.opened_with == digest;
        session.ends_sync = equal;
        if !equal {
            self.compare_at_start(from, digest, count);
        } else if let Some(outbox) = self.neighbours.outbox(from) {
            outbox.end_sync();
        }
    }

    /// The neighbour was quiet and said what it can reach. If this node is quiet too, both should
    /// agree.
    fn on_quiet_digest(&mut self, from: &NodeId, digest: Digest, count: u64, now: Instant) {
        let (mine, _) = self.database.reachable_digest();
        let quiet = self.quiet.is_quiet();
        let Some(session) = self.neighbours.get_mut(from) else { return };
        if mine == digest {
            session.told = Some(mine);
            session.owes_digest = false;
            session.mismatches = 0;
            return;
        }
        session.mismatches += 1;
        session.owes_digest = !quiet;
        if quiet || session.mismatches >= MISMATCHES_BELIEVED {
            session.mismatches = 0;
            self.counters.digest_mismatches += 1;
            self.compare_again(from, count);
        } else {
            self.quiet.on_change(now);
        }
    }

    /// Owes what the neighbour lacks, and pulls what it has newer.
    fn on_summary(
        &mut self,
        from: &NodeId,
        after: Option<&NodeId>,
        entries: &[Entry],
        (last, buckets): (bool, Option<BucketSet>),
        now: Instant,
    ) {
        let lacking = self.database.lacking(after, entries, last, buckets.as_ref(), now);
        if let Some(outbox) = self.neighbours.outbox(from) {
            lacking.into_iter().for_each(|origin| outbox.owe(origin, Owed::Payload));
        }
        for entry in entries {
            if self.database.stamp(&entry.origin).is_none_or(|held| held <= entry.stamp) {
                self.on_id(from, entry, now);
            }
        }
        let Some(session) = self.neighbours.get_mut(from) else { return };
        if last && !std::mem::replace(&mut session.ends_sync, true) {
            if buckets.is_none() {
                self.list_in_return(from);
            }
            if let Some(outbox) = self.neighbours.outbox(from) {
                outbox.end_sync();
            }
        }
    }

    fn on_have(&mut self, from: &NodeId, entries: &[Entry], now: Instant) {
        entries.iter().for_each(|entry| self.on_id(from, entry, now));
    }

    /// The neighbour holds these copies, and sends them only on request.
    fn on_offer(&mut self, from: &NodeId, entries: &[Entry], now: Instant) {
        for entry in entries {
            self.on_id(from, entry, now);
            self.pulls.hurry(&entry.origin, now);
        }
    }

    /// The neighbour holds this copy.
    fn on_id(&mut self, from: &NodeId, Entry { origin, stamp }: &Entry, now: Instant) {
        self.echoes.on_shown(origin, *stamp, from);
        if origin == self.id() {
            return self.on_own_stamp(from, *stamp, now);
        }
        match self.database.stamp(origin) {
            Some(held) if held == *stamp => self.settle_shown(from, origin),
            Some(held) if held > *stamp => self.owe(from, origin, Owed::Id),
            _ if self.is_too_far_ahead(stamp.version) => {}
            _ => {
                self.settle_with(from, origin);
                if !self.pulls.on_announced(from, origin, *stamp, now) {
                    self.counters.requests_dropped += 1;
                }
            }
        }
    }

    fn on_want(&mut self, from: &NodeId, origins: Vec<NodeId>) {
        for origin in origins {
            let held = self.database.get(&origin).is_some();
            let Some(outbox) = self.neighbours.outbox(from) else { return };
            if held {
                outbox.owe(origin, Owed::Payload);
            } else if !outbox.nack(origin, self.config.limits.origins) {
                self.counters.requests_dropped += 1;
            }
        }
    }

    fn on_sync_end(&mut self, from: &NodeId, now: Instant) -> Result<(), PeerError> {
        if self.neighbours.get(from).is_none_or(|session| session.got_end)
            || self.credentials.ends(from)
        {
            return Err(PeerError::SyncEndedTwice);
        }
        if !self.credentials.holds_end(from) {
            self.end_sync(from, now);
        }
        Ok(())
    }

    pub(super) fn end_sync(&mut self, from: &NodeId, now: Instant) {
        let held = self.neighbours.on_synced(from, now);
        self.first_synced.get_or_insert(now);
        self.audits.on_synced(from, now);
        self.database.restart_deletion_clock(now);
        self.schedule.on_change();
        self.origin.on_change(Urgency::Now, now);
        self.quiet.on_change(now);
        self.counters.syncs += 1;
        self.event(Event::Synced(from.clone()));
        if held {
            self.on_held(from, now);
        }
    }

    pub(super) fn on_update(
        &mut self,
        from: &NodeId,
        advertisement: &Advertisement,
        now: Instant,
    ) -> Result<(), PeerError> {
        if advertisement.proof().len() > Proof::MAX {
            return Err(PeerError::ProofTooLong { len: advertisement.proof().len() });
        }
        let (origin, stamp, record) = match self.seen.get(advertisement.id()) {
            Some((origin, stamp)) => {
                self.counters.seen_hits += 1;
                (origin, stamp, None)
            }
            None => {
                let record = self.decode(advertisement)?;
                self.seen.insert(advertisement.id(), record.origin.clone(), record.stamp());
                (record.origin.clone(), record.stamp(), Some(record))
            }
        };
        self.echoes.on_shown(&origin, stamp, from);
        if origin == *self.id() {
            let record = record.map_or_else(|| Record::decode(advertisement), Ok)?;
            return self.on_own_record(from, record, now);
        }
        match self.database.stamp(&origin) {
            Some(held) if held == stamp => {
                self.counters.updates_duplicate += 1;
                self.settle_shown(from, &origin);
            }
            Some(held) if held > stamp => {
                self.counters.updates_stale += 1;
                self.owe(from, &origin, Owed::Id);
            }
            _ => {
                let record = record.map_or_else(|| self.decode(advertisement), Ok)?;
                if record.echo {
                    self.echoes.on_coming(&origin, stamp, from, now);
                }
                match self.on_newer(from, record, now)? {
                    Admission::Done => {}
                    Admission::NotThisCopy => {
                        self.pulls.on_not_taken(from, &origin);
                        return Ok(());
                    }
                    Admission::Later => return Ok(()),
                }
            }
        }
        // What a neighbour sends is what it has: no announcement of its own stands above it.
        self.pulls.on_copy(Some(from), &origin, stamp);
        Ok(())
    }

    fn decode(&self, advertisement: &Advertisement) -> Result<Record, DecodeError> {
        let graph = self.database.graph();
        Record::decode_sharing(advertisement, |name| graph.held(name))
    }

    /// A copy of this node's own record, or its stamp alone, came back. One of a process before
    /// this one is overtaken.
    ///
    /// Once this process has spoken, another process's record is needed for that, not only its
    /// stamp: it may prove that the other one is alive, and two that overtake each other's stamps
    /// would never see. `record` is one that is verified, where records are signed.
    pub(super) fn on_own(
        &mut self,
        from: &NodeId,
        stamp: Stamp,
        record: Option<&Record>,
        now: Instant,
    ) {
        let (id, held) = (self.id().clone(), self.database.stamp(self.id()));
        let other = stamp.version.instance != self.config.instance;
        let certain = record.is_some() || self.config.notary.is_none();
        if other && certain && !self.origin.has_spoken() {
            self.twins.on_seen_first(stamp.version, now);
        }
        if held == Some(stamp) || (other && self.is_done_speaking()) {
            self.settle_shown(from, &id);
        } else if self.is_too_far_ahead(stamp.version) {
            self.counters.updates_refused += 1;
        } else if let Some(twin) = record.filter(|record| self.twins.is_proof(record)) {
            self.on_twin(from, twin, now);
        } else if held.is_some_and(|held| held.version > stamp.version) {
            self.owe(from, &id, Owed::Id);
        } else if self.origin.overtakes(stamp.version) {
            // The next record stands above it anyway.
        } else if other && self.origin.has_spoken() && record.is_none() {
            self.want_own(from, stamp, now);
        } else {
            self.overtake(stamp.version, now);
        }
    }

    fn on_newer(
        &mut self,
        from: &NodeId,
        record: Record,
        now: Instant,
    ) -> Result<Admission, PeerError> {
        if self.is_too_far_ahead(record.version) {
            self.counters.updates_refused += 1;
            return Ok(Admission::Done);
        }
        if record.leaving && self.database.get(&record.origin).is_none() {
            // There is nothing to take back. Kept and repeated, it could go round in the mesh for
            // ever, forgotten at each node before it comes again.
            self.counters.updates_stale += 1;
            return Ok(Admission::Done);
        }
        if let Some(known) = self.holder_of(record.addr()).filter(|known| *known != record.origin) {
            self.counters.updates_refused += 1;
            self.event(Event::AddressCollision { known, refused: record.origin.clone() });
            return Ok(Admission::Done);
        }
        let ready_at = self.database.accepts_at(&record.origin, now);
        match ready_at {
            Some(at) if at > now && !self.is_farewell(&record) => {
                self.counters.updates_delayed += 1;
                self.parked.park(record, from.clone(), at);
                self.note_limit(Limit::AcceptRate, true);
                // It has not been verified yet.
                let signed = self.config.notary.is_some();
                Ok(if signed { Admission::NotThisCopy } else { Admission::Done })
            }
            _ => self.admit(from, record, now),
        }
    }

    pub(super) fn has_room(&mut self, origin: &NodeId) -> bool {
        let room = self.database.make_room(origin);
        self.note_limit(Limit::Origins, room != Ok(false));
        if room == Ok(true) {
            self.counters.records_evicted += 1;
            self.forget_credentials();
        }
        room.is_ok()
    }

    /// Stores a record that is newer than what is held, and sees that all neighbours get it but the
    /// one it came from.
    pub(super) fn store(&mut self, record: Record, from: Option<&NodeId>, now: Instant) {
        let (origin, stamp) = (record.origin.clone(), record.stamp());
        let farewell = self.is_farewell(&record);
        if farewell {
            self.on_leaving(&record, now);
        }
        let instance = record.version.instance;
        if self.database.get(&origin).is_some_and(|held| held.version.instance != instance) {
            self.event(Event::NodeRestarted(origin.clone()));
        }
        let withdrawn = self.withdrawn_by(&record);
        let echo = record.echo;
        let mut shown = self.echoes.take_coming(&origin, stamp);
        shown.extend(self.pulls.announcers(&origin, stamp).cloned());
        let lost_stubs = self.database.get(&origin).map_or(0, |held| held.stubs_lost_in(&record));
        let effect = self.database.store(record, now);
        self.schedule.on_effect(effect);
        self.forget_claims_of(&origin);
        self.judge_transit(&origin);
        self.database.on_accepted(&origin, cost_of_update(farewell, lost_stubs), now);
        self.quiet.on_change(now);
        self.pulls.on_copy(from, &origin, stamp);
        let ways = Ways { graph: self.database.graph(), neighbours: &self.neighbours, now };
        let eager = self.flood.eager(&ways, &origin, withdrawn.as_ref());
        let announce_at = self.flood.announce_at(now);
        // Without a tree, all would send it to all: who lacks it asks instead.
        let treeless =
            from.is_some() && eager == Eager::All && self.config.flood == FloodMode::Tree;
        // Neighbours that have not spoken yet, as far as this node knows, but that the origin names
        // as its own, get the record from the origin itself. In a dense mesh that starts all at
        // once, all other neighbours would send it, too.
        let graph = self.database.graph();
        let record = withdrawn.as_ref().or_else(|| self.database.get(&origin));
        let tells = record.filter(|_| from.is_some() && self.config.flood == FloodMode::Tree);
        let told = |neighbour: &NodeId| {
            tells.is_some_and(|record| record.active(neighbour).is_some())
                && graph.number(neighbour).is_none()
        };
        self.neighbours.owe_all(announce_at, |neighbour, session| {
            let synced = session.is_synced();
            if Some(neighbour) == from {
                session.outbox.settle(&origin);
                return Owes::Now;
            }
            let payload = !treeless && (!synced || eager.contains(neighbour));
            let told = synced && (treeless || payload) && told(neighbour);
            let id = if treeless && !told { Owed::Offer } else { Owed::Id };
            if payload && !told {
                session.outbox.owe_newer(&origin, synced);
            } else if echo {
                // At once, and even if the neighbour shows that it holds the record: it waits for
                // this.
                session.outbox.tell(origin.clone(), id);
            } else {
                return if session.outbox.announce(origin.clone(), id) {
                    Owes::Later
                } else {
                    Owes::Nothing
                };
            }
            Owes::Now
        });
        if echo {
            self.begin_wave(&origin, stamp, from, &shown, now);
        } else {
            self.echoes.forget(&origin);
        }
    }

    /// The record that a withdrawal, one without links, is about to replace.
    fn withdrawn_by(&self, record: &Record) -> Option<Record> {
        let withdraws = record.active_peers().next().is_none();
        withdraws.then(|| self.database.get(&record.origin).cloned()).flatten()
    }

    /// Whether a newer record takes back one that is held: the origin leaves. It is accepted at
    /// once and does not count against the pace of the origin. Each one needs a paced record before
    /// it, so the rate at most doubles.
    fn is_farewell(&self, record: &Record) -> bool {
        record.leaving && self.database.get(&record.origin).is_some_and(|held| !held.leaving)
    }

    /// A node said that it leaves. If it is a neighbour, its link goes at once.
    fn on_leaving(&mut self, record: &Record, now: Instant) {
        if record.origin == *self.id() {
            return;
        }
        self.event(Event::NodeLeft(record.origin.clone()));
        let session = self.neighbours.get(&record.origin);
        if session.is_some_and(|session| session.instance == record.version.instance) {
            self.on_neighbour_leaving(&record.origin, now);
        }
    }

    /// Whether nothing that is seen of this node's own id makes it speak again.
    pub(super) fn is_done_speaking(&self) -> bool {
        self.twins.has_yielded() || self.origin.is_leaving()
    }

    pub(super) fn is_too_far_ahead(&mut self, version: Version) -> bool {
        let ahead =
            version.epoch > self.config.epoch.saturating_add(self.config.limits.epoch_ahead);
        self.note_limit(Limit::EpochAhead, ahead);
        ahead
    }

    pub(super) fn owe(&mut self, neighbour: &NodeId, origin: &NodeId, owed: Owed) {
        if let Some(outbox) = self.neighbours.outbox(neighbour) {
            outbox.owe(origin.clone(), owed);
        }
    }

    pub(super) fn settle_with(&mut self, neighbour: &NodeId, origin: &NodeId) {
        if let Some(outbox) = self.neighbours.outbox(neighbour) {
            outbox.settle(origin);
        }
    }
}

/// What an update counts for in the pace of its origin. The record of a node that leaves is
/// accepted at any time, but what it takes away counts all the same.
fn cost_of_update(farewell: bool, lost_stubs: usize) -> u32 {
    let lost = u32::try_from(lost_stubs / STUBS_LOST_IN_AN_UPDATE).unwrap_or(u32::MAX);
    lost.saturating_add(u32::from(!farewell))
}

#[cfg(test)]
mod tests {
    use super::super::database::graph::tests::{id, record};
    use super::super::{Config, NeighbourKind, SessionError, SessionUp};
    use super::*;
    use crate::id::Cost;

    #[test]
    fn an_id_whose_address_is_taken_is_refused_and_reported() {
        let (mut router, now) = router();
        router.on_newer(&id("n"), record("known", &[]), now).unwrap();
        router.on_newer(&id("n"), record("twin", &[]).with_addr(id("known").addr()), now).unwrap();
        assert!(router.database.get(&id("twin")).is_none());
        let (known, refused) = (id("known"), id("twin"));
        assert_eq!(router.poll_event(), Some(Event::AddressCollision { known, refused }));

        router.on_newer(&id("n"), record("mine", &[]).with_addr(id("me").addr()), now).unwrap();
        let (known, refused) = (id("me"), id("mine"));
        assert_eq!(router.poll_event(), Some(Event::AddressCollision { known, refused }));
    }

    #[test]
    fn a_session_whose_address_is_taken_is_refused() {
        let (mut router, now) = router();
        router.on_newer(&id("n"), record("known", &[]).with_addr(id("twin").addr()), now).unwrap();
        let up = SessionUp {
            neighbour: id("twin"),
            instance: 1,
            cost: Cost::DEFAULT,
            kind: NeighbourKind::Stub,
        };
        let (known, refused) = (id("known"), id("twin"));
        let refusal = SessionError::AddressCollision { known, refused };
        assert_eq!(router.handle_session_up(up, now), Err(refusal));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
    fn router() -> (Router, Instant) {
        let now = Instant::now();
        (Router::new(Config::new(id("me"), 1, 1, 1), now), now)
    }
}
