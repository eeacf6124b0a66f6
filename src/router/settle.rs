//! What follows from a change: this node's own record, paths, comparisons, and what is to be forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Router;
use super::event::{Event, Limit};
use super::neighbour::NeighbourKind;
use super::origin::Urgency;
use super::record::Draft;
use super::spf::{self, Paths};
use super::table::Table;
use crate::id::Version;

/// How long a notary that could not sign is given.
const SIGN_AGAIN: Duration = Duration::from_secs(1);

impl Router {
    /// What is due after any input. First this node speaks, then it computes: a flood never waits for paths.
    pub(super) fn settle(&mut self, now: Instant) {
        self.last_now = now;
        if self.may_speak() {
            self.originate(now);
        }
        if self.schedule.take(self.database.graph(), now) {
            self.compute_paths(now);
        }
    }

    /// What time alone brings.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.neighbours.poll_holds(now) {
            self.schedule.on_change();
            self.origin.on_change(Urgency::Now, now);
        }
        self.neighbours.poll_announces(now);
        for ask in self.pulls.poll(now) {
            if let Some(outbox) = self.neighbours.outbox(&ask.neighbour) {
                outbox.want(ask.origin);
                self.counters.pulls += 1;
            }
        }
        while let Some(waiting) = self.parked.poll(now) {
            self.note_limit(Limit::AcceptRate, !self.parked.is_empty());
            for (record, from) in waiting {
                if self.database.stamp(&record.origin).is_none_or(|held| held < record.stamp()) {
                    self.admit_later(&from, record, now);
                }
            }
        }
        self.poll_credentials(now);
        if self.quiet.poll(now) {
            self.compare_digests();
        }
        for neighbour in self.neighbours.poll_stalls(now) {
            self.event(Event::SyncStalled(neighbour));
        }
        self.neighbours.poll_forget(now);
        let expired = self.database.sweep(now).len() as u64;
        self.counters.records_expired += expired;
        if expired > 0 {
            self.forget_credentials();
        }
    }

    /// A node speaks only after it has synced with one neighbour, so that it has learned its own old version first.
    pub(super) fn may_speak(&self) -> bool {
        if self.origin.has_spoken() {
            return true;
        }
        let mut full =
            self.neighbours.iter().filter(|(_, session)| session.kind == NeighbourKind::Full).peekable();
        let alone = full.peek().is_none();
        full.any(|(_, session)| session.got_end) || (alone && self.neighbours.count(NeighbourKind::Stub) > 0)
    }

    fn originate(&mut self, now: Instant) {
        let neighbours = &self.neighbours;
        let Some(next) = self.origin.poll(|| neighbours.links(), now) else { return };
        self.note_limit(Limit::Record, next.cut);
        let mut draft = next.draft;
        let same = |held: &Draft| Draft { version: Version::default(), ..held.clone() };
        let held = self.database.get(&self.config.id);
        if !next.forced && held.is_some_and(|held| same(held) == same(&draft)) {
            return;
        }
        self.origin.speak(&mut draft, now);
        self.counters.originations += 1;
        let record = draft.seal().expect("this node's own record keeps the rules of the format");
        match self.prove(&record) {
            Some(proof) => self.store(record.with_proof(proof), None, now),
            None => {
                self.origin.again(now + SIGN_AGAIN);
                self.event(Event::SigningFailed);
            }
        }
    }

    fn compute_paths(&mut self, now: Instant) {
        self.counters.path_runs += 1;
        let graph = self.database.graph();
        let source = graph.number(self.id()).filter(|_| !self.origin.is_leaving());
        let usable = |from, to| Some(from) != source || self.uses_link(graph.id(to));
        let paths = source.map(|source| Paths::find(graph, source, usable));
        let connected = source.map_or_else(Vec::new, |source| spf::connected(graph, source, usable));
        let stubs = self.neighbours.stubs().map(|(id, session)| (id.clone(), session.cost));
        let (table, collisions) = Table::build(graph, paths.as_ref(), self.id(), stubs);
        let reaches = |number: u32| connected.get(number as usize) == Some(&true);
        if self.database.mark_reachable(reaches, now) {
            self.quiet.on_change(now);
        }
        let collisions = collisions.into_iter().collect();
        for new in &collisions - &self.collisions {
            self.event(Event::AddressCollision { known: new.known, refused: new.refused });
        }
        self.collisions = collisions;
        self.publish(table);
    }

    fn publish(&mut self, table: Table) {
        if table == *self.table {
            return;
        }
        let old = std::mem::replace(&mut self.table, Arc::new(table));
        let new = self.table();
        self.event(Event::TableChanged);
        for route in new.iter().filter(|route| old.route(&route.id).is_none()) {
            self.event(Event::NodeReachable(route.id.clone()));
        }
        for route in old.iter().filter(|route| new.route(&route.id).is_none()) {
            self.event(Event::NodeUnreachable(route.id.clone()));
        }
    }

    /// Tells every neighbour that does not know it yet what this node can reach.
    fn compare_digests(&mut self) {
        let (digest, count) = self.database.reachable_digest();
        for id in self.neighbours.full() {
            let Some(session) = self.neighbours.get_mut(&id) else { continue };
            if !session.is_synced() || (session.told == Some(digest) && !session.owes_digest) {
                continue;
            }
            session.told = Some(digest);
            session.owes_digest = false;
            if let Some(outbox) = self.neighbours.outbox(&id) {
                outbox.digest(digest, count);
            }
        }
    }
}
