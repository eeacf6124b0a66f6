//! How two neighbours find out in which records they differ.
//!
//! ```text
//!   DIGEST ⇄ DIGEST ── equal ──────────────────────────────────▶ nothing to do
//!      │ different
//!      ├─ one side is empty ─────▶ it lists nothing, and gets everything
//!      ├─ fewer than 256 records ▶ SUMMARY ⇄ SUMMARY ──────────▶ each sends what the other lacks
//!      └─ more ─▶ BUCKETS ⇄ BUCKETS ─▶ SUMMARY ⇄ SUMMARY of the buckets that differ ─▶ likewise
//! ```
//!
//! After a quiet period one side alone has received a digest that differs: it sends SUMMARY, or
//! BUCKETS, which the other answers with a SUMMARY. Who reads a SUMMARY sends what is lacking and
//! asks for what is newer.
//!
//! What changes in between does no harm: a session floods from its first message on, so only what
//! both held before has to be found here.

use std::time::Instant;

use crate::id::NodeId;
use crate::router::Router;
use crate::router::database::buckets::{BucketSet, Buckets, bits_for};
use crate::router::flood::audit::{Step, rekeyed};
use crate::router::origin::Urgency;
use crate::router::record::wire::Digest;

/// Comparisons when a session begins, and after a quiet time.
impl Router {
    /// The digests that the session began with differ.
    pub(in crate::router) fn compare_at_start(
        &mut self,
        with: &NodeId,
        theirs: Digest,
        count: u64,
    ) {
        let Some(session) = self.neighbours.get(with) else { return };
        let mine = (session.opened_with, session.opened_count);
        let bits = self.bits(mine.1.max(count));
        let Some(session) = self.neighbours.get_mut(with) else { return };
        let empty = [mine.0, theirs].contains(&Digest::default());
        session.listed = empty || bits.is_none();
        let Some(outbox) = self.neighbours.outbox(with) else { return };
        match bits {
            // It has nothing that this node could lack, and needs no list of what it gets.
            _ if theirs == Digest::default() => outbox.summary(Some(BucketSet::none())),
            Some(bits) if !empty => outbox.buckets(bits),
            _ => outbox.summary(None),
        }
    }

    /// After a quiet time the neighbour reaches something else than this node.
    pub(in crate::router) fn compare_again(&mut self, with: &NodeId, count: u64) {
        let (_, mine) = self.database.reachable_digest();
        let bits = self.bits(mine.max(count));
        let Some(outbox) = self.neighbours.outbox(with) else { return };
        match bits {
            Some(bits) => outbox.buckets(bits),
            None => outbox.summary(None),
        }
    }

    /// The neighbour asks for a summary of what differs.
    pub(in crate::router) fn on_buckets(&mut self, from: &NodeId, theirs: &Buckets, now: Instant) {
        let differing = self.database.buckets(theirs.bits(), now).differing(theirs);
        let Some(session) = self.neighbours.get_mut(from) else { return };
        session.listed = true;
        // At the start, floods may have settled the difference. Later, it hides in a bucket: two
        // sums are the same.
        let hidden = differing.is_empty() && session.ends_sync;
        if let Some(outbox) = self.neighbours.outbox(from) {
            outbox.summary((!hidden).then_some(differing));
        }
    }

    /// The neighbour listed what it offers, and awaits the same, but did not ask for it in buckets.
    pub(in crate::router) fn list_in_return(&mut self, to: &NodeId) {
        let Some(session) = self.neighbours.get_mut(to) else { return };
        if !std::mem::replace(&mut session.listed, true)
            && let Some(outbox) = self.neighbours.outbox(to)
        {
            outbox.summary(None);
        }
    }

    /// The number of buckets in which databases are compared, the larger of `count` records;
    /// `None`: as a whole.
    fn bits(&self, count: u64) -> Option<u32> {
        (count > self.config.limits.whole_summary as u64).then(|| bits_for(count))
    }
}

/// Audits.
impl Router {
    /// Sends the digests whose time has come.
    pub(in crate::router) fn audit(&mut self, now: Instant) {
        while let Some(id) = self.audits.poll(now) {
            let key = self.audits.key();
            let digest = rekeyed(&self.database, &key);
            if let Some(outbox) = self.neighbours.outbox(&id) {
                outbox.rekeyed(key, digest);
            }
        }
    }

    /// The neighbour sent the digest of the records that it reaches.
    pub(in crate::router) fn on_rekeyed(
        &mut self,
        from: &NodeId,
        key: [u8; 16],
        theirs: Digest,
        now: Instant,
    ) {
        if !self.audits.admits(from, now) {
            self.counters.requests_dropped += 1;
            return;
        }
        if rekeyed(&self.database, &key) == theirs {
            return self.audits.on_equal(from);
        }
        if self.audits.on_different(from, now) == Step::Believe {
            self.counters.audit_mismatches += 1;
            self.drop_corrupted(now);
            self.compare_again(from, 0);
        }
    }

    /// Drops records whose bytes no longer match their id. Neighbours still have them; this node
    /// originates its own again.
    fn drop_corrupted(&mut self, now: Instant) {
        let corrupted = self.database.iter().filter(|record| !record.is_intact());
        for origin in corrupted.map(|record| record.origin.clone()).collect::<Vec<_>>() {
            self.counters.records_corrupted += 1;
            self.database.remove(&origin);
            self.schedule.on_change();
            if origin == *self.id() {
                self.origin.on_change(Urgency::Now, now);
            }
        }
    }
}
