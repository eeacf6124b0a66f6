//! Authentication: signatures of records, credentials, and attachments of stubs.

pub(in crate::router) mod admission;
pub(in crate::router) mod attachment;
pub(in crate::router) mod claims;
pub(in crate::router) mod credentials;
pub(in crate::router) mod distrust;
pub(in crate::router) mod expiry;
pub(in crate::router) mod notary;
pub(in crate::router) mod own_stubs;
pub(in crate::router) mod refusals;
pub(in crate::router) mod signature;
pub(in crate::router) mod stubs;

use std::time::{Duration, Instant};

use self::signature::{Distrust, Proof};
use super::Router;
use super::event::Event;
use crate::id::NodeId;

impl Router {
    /// Sees to it that the record that is held of another node is dropped when its credential
    /// expires.
    pub(in crate::router) fn watch_expiry(&mut self, origin: &NodeId, now: Instant) {
        if let Some(remaining) = self.remaining(origin) {
            self.expiries.watch(origin.clone(), remaining, now);
        }
    }

    /// How long the credential of a record that is held remains valid; `None` if it does not
    /// expire.
    fn remaining(&self, origin: &NodeId) -> Option<Duration> {
        let notary = self.config.notary.as_ref()?;
        let record = self.database.get(origin)?;
        let proof = Proof::decode(record.advertisement().proof())?;
        notary.remaining(self.credentials.get(origin, proof.credential)?)
    }

    /// Drops the records whose credentials have expired.
    pub(in crate::router) fn drop_expired(&mut self, now: Instant) {
        let mut dropped = 0;
        while let Some(origin) = self.expiries.poll(now) {
            match self.remaining(&origin) {
                Some(Duration::ZERO) => {}
                Some(remaining) => {
                    self.expiries.watch(origin, remaining, now);
                    continue;
                }
                None => continue,
            }
            let Some(version) = self.database.get(&origin).map(|record| record.version) else {
                continue;
            };
            self.database.remove(&origin);
            dropped += 1;
            self.event(Event::Untrusted { origin, version, reason: Distrust::Expired });
        }
        if dropped > 0 {
            self.counters.records_expired += dropped;
            self.flood.on_forgotten();
            self.forget_credentials();
            self.quiet.on_change(now);
            // At once: the paths still name what was dropped.
            self.compute_paths(now);
        }
    }
}
