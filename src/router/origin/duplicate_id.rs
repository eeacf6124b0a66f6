//! Records of this node's own id that other processes have made.

use std::time::Instant;

use crate::id::{NodeId, Version};
use crate::router::Router;
use crate::router::event::Event;
use crate::router::neighbour::outbox::Owed;
use crate::router::record::Record;

impl Router {
    /// A newer record of this node's own id was seen. The next one gets a higher version.
    pub(in crate::router) fn overtake(&mut self, seen: Version, now: Instant) {
        self.origin.overtake(seen, now);
        if seen.instance != self.config.instance {
            self.twins.on_overtaken(seen.instance, now);
        }
        self.counters.resyncs += 1;
        self.event(Event::Resynced { seen });
    }

    /// Whether this record of the own id may show another process, however old the record is, and
    /// is therefore worth verifying.
    pub(in crate::router) fn tells_of_twin(&self, record: &Record) -> bool {
        let instance = record.version.instance;
        if instance == self.config.instance || self.is_done_speaking() {
            false
        } else if self.origin.has_spoken() {
            self.twins.is_proof(record) && !(self.twins.knows(instance) && self.overrides(record))
        } else {
            !self.twins.was_seen_first(instance)
        }
    }

    /// Whether the newest own record is newer than the twin's, and overrides it.
    fn overrides(&self, twin: &Record) -> bool {
        self.database.get(self.id()).is_some_and(|own| {
            let over = own.over.as_ref().map(|over| over.instance);
            own.version > twin.version && over == Some(twin.version.instance)
        })
    }

    /// A record of this id proves that another process is alive.
    pub(in crate::router) fn on_twin(&mut self, from: &NodeId, twin: &Record, now: Instant) {
        let id = self.id().clone();
        if let Some(duplicate) = self.twins.on_proof(twin) {
            let yields = duplicate.yields;
            self.event(Event::DuplicateId(duplicate));
            if yields {
                return;
            }
        }
        if self.overrides(twin) {
            return self.owe(from, &id, Owed::Id);
        }
        if twin.version > self.origin.version() {
            self.overtake(twin.version, now);
        } else {
            // The other process must see a record that overrides it, however old its own is.
            self.origin.overtake(self.origin.version(), now);
        }
        self.twins.on_overtaken(twin.version.instance, now);
    }
}
