//! What follows from a change: this node's own record, paths, comparisons, and what is to be
//! forgotten.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Router;
use super::database::graph::Effect;
use super::event::{Event, Limit};
use super::flood::quiet::Compare;
use super::paths::spf::{self, Paths, Schedule};
use super::paths::table::Table;
use super::record::Record;
use super::record::draft::{Draft, Link, LinkClass};
use crate::id::{NodeId, Version};

/// How long a notary that could not sign is given.
const SIGN_AGAIN: Duration = Duration::from_secs(1);

impl Router {
    /// What is due after any input. First this node speaks, then it computes: a flood never waits
    /// for paths.
    pub(super) fn settle(&mut self, now: Instant) {
        self.last_now = now;
        self.ask_for_wave(now);
        if self.speaks_at(now).is_some_and(|at| at <= now) {
            self.originate(now);
        }
        let graph = self.database.graph();
        let stubs = self.table.len().saturating_sub(graph.node_count());
        match self.schedule.take(graph, stubs, now) {
            Effect::Paths => self.compute_paths(now),
            Effect::Stubs => self.build_table(now),
            Effect::None => {
                if !self.schedule.is_wanted()
                    && self.alternates.next_timeout().is_some_and(|at| at <= now)
                {
                    self.search_alternates(now);
                }
            }
        }
        self.answer_waves(now);
        self.end_requests(now);
    }

    /// What time alone brings.
    pub(super) fn expire(&mut self, now: Instant) {
        for neighbour in self.neighbours.poll_holds(now) {
            self.on_released(neighbour, now);
        }
        self.release_stubs(now);
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
        self.poll_stubs(now);
        if self.pulls.take_given_up() {
            self.quiet.on_given_up(now);
        }
        if let Some(compare) = self.quiet.poll(now) {
            self.compare_digests(compare);
        }
        for neighbour in self.neighbours.poll_stalls(now) {
            self.event(Event::SyncStalled(neighbour));
        }
        self.audit(now);
        self.drop_expired(now);
        self.neighbours.poll_forget(now);
        self.stub_damping.poll_forget(now);
        self.echoes.expire(now);
        let expired = self.database.sweep(now).len() as u64;
        self.counters.records_expired += expired;
        if expired > 0 {
            self.flood.on_forgotten();
            self.forget_credentials();
        }
    }

    fn originate(&mut self, now: Instant) {
        let neighbours = &self.neighbours;
        // Stubs that have proven nothing would not be believed.
        let (proofs, signed) = (&self.own_stubs, self.config.notary.is_some());
        let damping = &self.stub_damping;
        let listed = |link: &Link| {
            let proven = !signed || proofs.get(&link.peer).is_some();
            link.class != LinkClass::Stub || (proven && !damping.is_held(&link.peer))
        };
        let links = || neighbours.links().into_iter().filter(listed).collect();
        let Some(next) = self.origin.poll(links, now) else { return };
        self.note_limit(Limit::Record, next.cut);
        let mut draft = next.draft;
        let same = |held: &Draft| Draft {
            version: Version::default(),
            echo: false,
            over: None,
            ..held.clone()
        };
        let held = self.database.get(&self.config.id);
        if !next.forced && held.is_some_and(|held| same(held) == same(&draft)) {
            return;
        }
        self.origin.speak(&mut draft, now);
        draft.echo = self.convergence.wants_wave() && !draft.leaving;
        if !draft.echo {
            self.convergence.on_plain_record();
        }
        draft.over = self.twins.over(now);
        self.counters.originations += 1;
        let record = draft.seal().expect("this node's own record keeps the rules of the format");
        let Some(proof) = self.prove(&record) else {
            self.origin.again(now + SIGN_AGAIN);
            return self.event(Event::SigningFailed);
        };
        let record = record.with_proof(proof);
        self.store(record.clone(), None, now);
        let lists =
            |stub: &NodeId| record.link(stub).is_some_and(|link| link.class == LinkClass::Stub);
        self.stub_damping.on_spoken(lists, now);
        if let Some(duplicate) = self.twins.on_spoken(&record) {
            self.event(Event::DuplicateId(duplicate));
        }
    }

    pub(super) fn compute_paths(&mut self, now: Instant) {
        self.counters.path_runs += 1;
        let graph = self.database.graph();
        let source = graph.number(self.id()).filter(|_| !self.origin.is_leaving());
        let usable = |from, to| Some(from) != source || self.uses_link(graph.id(to));
        let paths = source.map(|source| Paths::find(graph, source, usable));
        let connected =
            paths.as_ref().map_or_else(Vec::new, |paths| spf::connected(graph, paths, usable));
        match (source, &paths) {
            (Some(source), Some(paths)) => {
                self.alternates.on_paths(graph, source, paths, now);
            }
            _ => self.alternates.stop(),
        }
        let reaches = |number: u32| connected.get(number as usize) == Some(&true);
        if self.database.mark_reachable(reaches, now) {
            self.quiet.on_change(now);
        }
        self.paths = paths;
        self.standby = None;
        self.build_table(now);
        self.release_needed(now);
    }

    /// Makes the table of the paths and alternates as they are. Other stubs on the same paths need
    /// no more than that.
    fn build_table(&mut self, now: Instant) {
        let graph = self.database.graph();
        let stubs = self.neighbours.stubs().filter(|(id, _)| !self.has_moved(id));
        let stubs = stubs.map(|(id, session)| session.route(id));
        let paths = self.paths.as_ref().map(|paths| (paths, self.standby.as_ref()));
        let suspects = RefCell::default();
        let standing = |stub: &NodeId, record: &Record| self.standing(stub, record, &suspects, now);
        let (mut table, collisions) =
            Table::build(graph, paths, self.id(), stubs, standing, &self.table);
        if self.standby.is_none() {
            // Those of unchanged routes stay until they are recomputed.
            table.keep_alternates(&self.table, |id| self.uses_link(id));
        }
        let collisions = collisions.into_iter().collect();
        for new in &collisions - &self.collisions {
            self.event(Event::AddressCollision { known: new.known, refused: new.refused });
        }
        self.collisions = collisions;
        self.publish(table);
        self.verify_suspects(suspects.into_inner(), now);
    }

    /// One step on the way to the alternates of the paths as they are.
    fn search_alternates(&mut self, now: Instant) {
        let graph = self.database.graph();
        let (Some(paths), Some(source)) = (&self.paths, graph.number(self.id())) else { return };
        let (neighbours, me) = (&self.neighbours, source);
        let usable = |from: u32, to: u32| {
            (from != me || neighbours.uses(graph.id(to)))
                && (to != me || neighbours.uses(graph.id(from)))
        };
        self.counters.alternate_runs += 1;
        let rest = Schedule::rest(graph);
        let Some(found) = self.alternates.step(graph, source, paths, usable, rest, now) else {
            return;
        };
        self.standby = Some(found);
        self.build_table(now);
    }

    fn publish(&mut self, table: Table) {
        if table == *self.table {
            return;
        }
        let old = std::mem::replace(&mut self.table, Arc::new(table));
        let new = self.table();
        self.event(Event::TableChanged);
        for id in new.ids_not_in(&old) {
            self.event(Event::NodeReachable(id.clone()));
        }
        for id in old.ids_not_in(&new) {
            self.event(Event::NodeUnreachable(id.clone()));
        }
        let gone = |id: &NodeId| !new.is_claimed(id) && new.route(id).is_none();
        for claimed in old.claimed().iter().filter(|claimed| gone(&claimed.id)) {
            self.event(Event::StubUnlisted(claimed.id.clone()));
        }
    }

    /// Tells neighbours what this node can reach: those that do not know it yet, or all.
    fn compare_digests(&mut self, compare: Compare) {
        let (digest, count) = self.database.reachable_digest();
        for id in self.neighbours.full() {
            let Some(session) = self.neighbours.get_mut(&id) else { continue };
            let told =
                compare == Compare::News && session.told == Some(digest) && !session.owes_digest;
            if !session.is_synced() || told {
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
