//! Records that arrive as deltas against earlier ones.

use std::time::Instant;

use super::Router;
use super::event::PeerError;
use super::neighbour::outbox::Owed;
use super::neighbour::pull::Asked;
use super::record::Stamp;
use super::record::delta::Delta;
use crate::id::NodeId;

impl Router {
    pub(super) fn on_delta(
        &mut self,
        from: &NodeId,
        delta: &Delta,
        now: Instant,
    ) -> Result<(), PeerError> {
        delta.check()?;
        let (origin, stamp) = (&delta.origin, delta.stamp());
        self.echoes.on_shown(origin, stamp, from);
        match self.database.stamp(origin) {
            _ if origin == self.id() => self.on_own_stamp(from, stamp, now),
            Some(held) if held >= stamp => {
                self.counters.seen_hits += u64::from(self.seen.get(delta.id).is_some());
                self.on_old_delta(from, origin, held, stamp);
            }
            _ if self.is_too_far_ahead(stamp.version) => self.counters.updates_refused += 1,
            // The whole that was asked for will be this copy or a newer one.
            _ if self.pulls.is_asking(from, origin) => self.want_whole(from, delta, now),
            _ => {
                let waiting =
                    self.parked.get(origin, from).filter(|waiting| waiting.stamp() == delta.base());
                let base = waiting.or_else(|| self.database.get(origin));
                match base.and_then(|base| delta.apply(base)) {
                    Some(result) => {
                        self.counters.deltas_applied += 1;
                        self.on_update(from, &result, now)?;
                    }
                    None => self.want_whole(from, delta, now),
                }
            }
        }
        Ok(())
    }

    /// What comes out is held already, or older than what is held.
    fn on_old_delta(&mut self, from: &NodeId, origin: &NodeId, held: Stamp, stamp: Stamp) {
        if held == stamp {
            self.counters.updates_duplicate += 1;
            self.settle_shown(from, origin);
        } else {
            self.counters.updates_stale += 1;
            self.owe(from, origin, Owed::Id);
        }
        self.pulls.on_copy(Some(from), origin, stamp);
    }

    /// The delta does not apply, so the whole record is requested. Until it arrives, further deltas
    /// of the origin from this neighbour are ignored: a liar costs one computation for each record
    /// that it sends, and one request.
    fn want_whole(&mut self, from: &NodeId, delta: &Delta, now: Instant) {
        self.counters.deltas_failed += 1;
        self.settle_with(from, &delta.origin);
        match self.pulls.ask(from, &delta.origin, delta.stamp(), now) {
            Asked::Now => {
                self.counters.pulls += 1;
                if let Some(outbox) = self.neighbours.outbox(from) {
                    outbox.want(delta.origin.clone());
                }
            }
            Asked::Before => {}
            Asked::NoRoom => self.counters.requests_dropped += 1,
        }
    }
}
