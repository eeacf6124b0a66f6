//! What stubs prove: those that are attached to this node, and those that other nodes list.
//!
//! ```text
//!   ATTACH of the stub ──▶ own stubs ──▶ listed in this node's record
//!                              │
//!                              ▼ ATTACHMENT, hop by hop, each hop verifies and keeps it
//!   WANT of a neighbour ──▶ claims ──▶ table
//!                              ▲
//!   a stub is used here ───────┘
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::id::{NodeAddr, NodeId, Version};
use crate::router::Router;
use crate::router::database::graph::Effect;
use crate::router::event::Event;
use crate::router::neighbour::NeighbourKind;
use crate::router::proof::attachment::{Attachment, AttachmentVerdict};
use crate::router::proof::claims::{Claim, ClaimFault, ClaimState, Due, Key, Standing};
use crate::router::record::Record;
use crate::router::record::draft::LinkClass;

/// Claims about one stub that are verified at a time. Those that were rejected do not count, so
/// that the others get their turn.
const MAX_CLAIMERS: usize = 16;
/// Claims that are verified unasked each time that a table is made.
const MAX_SUSPECTS: usize = 64;

impl Router {
    /// A stub that is attached to this node has proven it. `attachment` was verified, and is valid
    /// for `remaining`.
    ///
    /// Returns `false`, and changes nothing, if it names another neighbour than this node, if no
    /// session with the process of its instance is up, or if a newer one is held.
    pub fn set_attachment(
        &mut self,
        attachment: Attachment,
        remaining: Duration,
        now: Instant,
    ) -> bool {
        let stub = attachment.stub().clone();
        let first = self.own_stubs.get(&stub).is_none();
        if attachment.neighbour() != self.id() || !self.own_stubs.prove(attachment, now + remaining)
        {
            return false;
        }
        if first {
            self.origin.on_stubs_changed(now);
        }
        self.reconsider(&stub, now);
        self.schedule.on_effect(Effect::Stubs);
        self.settle(now);
        true
    }

    /// Fetches the proofs of those that list this stub. Call it when the stub is used and has no
    /// route: an unused stub is not verified. Returns whether an answer is awaited; the
    /// table changes when it is here, and the stub is attached. Without a notary nothing has to be
    /// proven.
    pub fn verify_claims(&mut self, stub: &NodeId, now: Instant) -> bool {
        if self.config.notary.is_none() {
            return false;
        }
        self.claims.on_use(stub);
        let listed =
            |record: &&Record| record.link(stub).is_some_and(|link| link.class == LinkClass::Stub);
        let records =
            self.database.iter().filter(listed).filter(|record| record.origin != *self.id());
        let reachable = records.filter(|record| self.is_in_reach(&record.origin));
        let wanted = reachable.filter(|record| self.claims.needs_proof(stub, &record.origin, now));
        let wanted: Vec<NodeId> =
            wanted.take(MAX_CLAIMERS).map(|record| record.origin.clone()).collect();
        for claimer in wanted {
            self.fetch(&(stub.clone(), claimer), None, None, now);
        }
        self.settle(now);
        self.claims(stub).iter().any(|claim| claim.state == ClaimState::Pending)
    }

    /// As [`verify_claims`](Self::verify_claims), for the stub with this address.
    pub fn verify_claims_about(&mut self, addr: NodeAddr, now: Instant) -> bool {
        let claimed = self.table.claimed().iter().find(|claimed| claimed.addr == addr);
        let stub = claimed.map(|claimed| claimed.id.clone());
        stub.is_some_and(|stub| self.verify_claims(&stub, now))
    }

    /// Which nodes list this id as a stub, and what was found about it; ascending by id. Looks
    /// through all records.
    #[must_use]
    pub fn claims(&self, stub: &NodeId) -> Vec<Claim> {
        let listed =
            |record: &&Record| record.link(stub).is_some_and(|link| link.class == LinkClass::Stub);
        let own = self.own_version(stub);
        let claims = self.database.iter().filter(listed).map(|record| Claim {
            by: record.origin.clone(),
            state: match &self.config.notary {
                Some(_) if record.origin != *self.id() => {
                    self.claims.state(stub, &record.origin, own)
                }
                _ => ClaimState::Proven,
            },
        });
        claims.collect()
    }

    pub(in crate::router) fn next_proof(&self) -> Option<Instant> {
        // Where nothing is signed, nothing has to be proven.
        self.own_stubs.next_timeout().filter(|_| self.config.notary.is_some())
    }

    /// What time brings: stubs that have proven nothing, and answers that did not come.
    pub(in crate::router) fn poll_stubs(&mut self, now: Instant) {
        if self.config.notary.is_none() {
            return;
        }
        for stub in self.own_stubs.poll(now) {
            self.origin.on_stubs_changed(now);
            self.event(Event::StubUnproven(stub));
        }
        while let Some((key, due)) = self.claims.poll(now) {
            match due {
                Due::Ask { of_other_than } => self.fetch(&key, None, of_other_than.as_ref(), now),
                Due::Failed { askers } => {
                    self.reconsider(&key.0, now);
                    self.schedule.on_effect(Effect::Stubs);
                    self.answer(&key, None, askers);
                }
            }
        }
    }

    /// A neighbour asks for proofs: those of this node's own stubs, those that are held, and those
    /// that can be fetched.
    pub(in crate::router) fn on_attachment_want(
        &mut self,
        from: &NodeId,
        wanted: Vec<Key>,
        now: Instant,
    ) {
        for key in wanted {
            let (stub, claimer) = &key;
            let held = match claimer == self.id() {
                true => self.own_stubs.get(stub),
                false => self.claims.proof(stub, claimer),
            };
            if let Some(attachment) = held.cloned() {
                self.answer(&key, Some(&attachment), [from.clone()].into());
            } else if self.claims.join(&key, from) {
                // The answer that this node awaits is for both.
            } else if self.may_fetch(&key, from, now) {
                self.fetch(&key, Some(from), None, now);
            } else {
                self.answer(&key, None, [from.clone()].into());
            }
        }
    }

    /// The proof that a neighbour was asked for, or that it has none.
    pub(in crate::router) fn on_attachment(
        &mut self,
        from: &NodeId,
        key: &Key,
        attachment: Option<Box<Attachment>>,
        now: Instant,
    ) {
        let Some(notary) = self.config.notary.clone() else { return };
        if !self.claims.is_asked_of(key, from) {
            self.counters.requests_dropped += 1;
            return;
        }
        let of_key = |proof: &Attachment| *proof.stub() == key.0 && *proof.neighbour() == key.1;
        let verdict = match &attachment {
            None => Err(ClaimFault::NoProof),
            Some(proof) if !of_key(proof) => Err(ClaimFault::Forged),
            Some(proof) => match notary.verify_attachment(proof) {
                AttachmentVerdict::Valid { remaining } => Ok(remaining),
                AttachmentVerdict::Forged => Err(ClaimFault::Forged),
                AttachmentVerdict::Untrusted(why) => Err(ClaimFault::Untrusted(why)),
                AttachmentVerdict::Expired => Err(ClaimFault::Expired),
            },
        };
        match (verdict, attachment) {
            (Ok(remaining), Some(proof)) => {
                self.counters.attachments_verified += 1;
                let askers = self.claims.on_proven(key, (*proof).clone(), now + remaining, now);
                self.answer(key, Some(&proof), askers);
            }
            (Err(fault), attachment) => {
                self.counters.claims_rejected += 1;
                let (askers, reported) = self.claims.on_rejected(key, fault, now);
                // Others may trust what this node does not.
                let passed = attachment.filter(|_| matches!(fault, ClaimFault::Untrusted(_)));
                self.answer(key, passed.as_deref(), askers);
                if reported {
                    self.counters.claims_false += 1;
                    let (stub, by) = key.clone();
                    self.event(Event::FalseClaim { stub, by, fault });
                }
            }
            (Ok(_), None) => {}
        }
        self.reconsider(&key.0, now);
        self.schedule.on_effect(Effect::Stubs);
    }

    /// How far it counts that the origin of a record lists a stub. Notes claims that are to be
    /// verified even if the stub is not used: those about stubs that others have proven or that are
    /// attached here, and those of neighbours without transit, whose packets depend on it.
    pub(in crate::router) fn standing(
        &self,
        stub: &NodeId,
        record: &Record,
        suspects: &RefCell<Vec<Key>>,
        now: Instant,
    ) -> Standing {
        let claimer = &record.origin;
        if self.config.notary.is_none() || claimer == self.id() {
            return Standing::Proven;
        }
        let own = self.own_version(stub);
        let standing = self.claims.standing(stub, claimer, own);
        if standing == Standing::Proven {
            return standing;
        }
        let is_edge = || {
            let session = self.neighbours.get(claimer);
            !record.transit && session.is_some_and(|session| session.kind == NeighbourKind::Full)
        };
        let known = self.claims.newest(stub).is_some() || own.is_some() || stub == self.id();
        let edge = is_edge();
        let mut asked = standing == Standing::Pending;
        if (known || edge) && !asked && self.claims.needs_proof(stub, claimer, now) {
            let mut suspects = suspects.borrow_mut();
            if suspects.len() < MAX_SUSPECTS {
                suspects.push((stub.clone(), claimer.clone()));
                asked = true;
            }
        }
        // Until the answer is here, the neighbour's stub may be as young as one that is not listed
        // yet.
        if asked && edge && !known { Standing::Pending } else { Standing::Unproven }
    }

    pub(in crate::router) fn verify_suspects(&mut self, suspects: Vec<Key>, now: Instant) {
        if suspects.len() == MAX_SUSPECTS {
            // There may be more; the next table finds them.
            self.schedule.on_effect(Effect::Stubs);
        }
        for key in suspects {
            self.fetch(&key, None, None, now);
        }
    }

    /// Whether a stub that is attached here has attached itself to another node in reach since.
    pub(in crate::router) fn has_moved(&self, stub: &NodeId) -> bool {
        let newest = self.claims.newest(stub);
        if self.own_version(stub).is_none_or(|here| newest.is_none_or(|newest| newest <= here)) {
            return false;
        }
        let reaches = |claimer: &NodeId| {
            let number = self.database.graph().number(claimer);
            number.is_some_and(|number| {
                self.paths.as_ref().is_some_and(|paths| paths.way(number).is_some())
            })
        };
        self.claims.proven(stub).any(|(claimer, there)| Some(there) == newest && reaches(claimer))
    }

    /// Whether a node that lists a stub is believed.
    pub(in crate::router) fn is_believed(&self, stub: &NodeId, claimer: &NodeId) -> bool {
        self.config.notary.is_none()
            || claimer == self.id()
            || self.claims.standing(stub, claimer, self.own_version(stub)) == Standing::Proven
    }

    /// The version of the attachment of a stub to this node.
    pub(in crate::router) fn own_version(&self, stub: &NodeId) -> Option<Version> {
        self.own_stubs.get(stub).map(Attachment::version)
    }

    fn reconsider(&mut self, stub: &NodeId, now: Instant) {
        self.claims.reconsider(stub, self.own_version(stub), now);
    }

    pub(in crate::router) fn forget_claims_of(&mut self, origin: &NodeId) {
        let record = self.database.get(origin);
        let lists = |stub: &NodeId| {
            let link = record.and_then(|record| record.link(stub));
            link.is_some_and(|link| link.class == LinkClass::Stub)
        };
        self.claims.retain_of(origin, lists);
    }

    /// Whether a proof is to be fetched on behalf of a neighbour: the claim is there, was not
    /// rejected just now, and the neighbour does not ask for too much.
    fn may_fetch(&mut self, (stub, claimer): &Key, asker: &NodeId, now: Instant) -> bool {
        let record = self.database.get(claimer);
        let listed = record.and_then(|record| record.link(stub));
        claimer != self.id()
            && listed.is_some_and(|link| link.class == LinkClass::Stub)
            && self.claims.needs_proof(stub, claimer, now)
            && self.claims.may_fetch_for(asker, now)
    }

    /// Asks the next hop towards the claimer for its proof. `asker` is the neighbour that wants it.
    fn fetch(
        &mut self,
        key: &Key,
        asker: Option<&NodeId>,
        of_other_than: Option<&NodeId>,
        now: Instant,
    ) {
        let next_hop = self.toward(&key.1, asker, of_other_than);
        let Some(hop) = next_hop.or_else(|| self.toward(&key.1, asker, None)) else {
            let mut askers = self.claims.on_unanswered(key, now);
            askers.extend(asker.cloned());
            self.reconsider(&key.0, now);
            self.schedule.on_effect(Effect::Stubs);
            return self.answer(key, None, askers);
        };
        self.claims.on_asked(key, hop.clone(), asker, now);
        if let Some(outbox) = self.neighbours.outbox(&hop) {
            outbox.want_attachment(key.clone());
        }
    }

    fn toward(
        &self,
        claimer: &NodeId,
        not: Option<&NodeId>,
        nor: Option<&NodeId>,
    ) -> Option<NodeId> {
        let usable = |id: &&NodeId| {
            let session = self.neighbours.get(id);
            Some(*id) != not
                && Some(*id) != nor
                && session.is_some_and(|session| {
                    session.kind == NeighbourKind::Full && session.is_synced()
                })
        };
        let route = self.table.route(claimer);
        let hops =
            route.into_iter().flat_map(|route| route.next_hops.iter().chain(&*route.alternates));
        [claimer].into_iter().chain(hops).find(usable).cloned()
    }

    fn answer(&mut self, key: &Key, attachment: Option<&Attachment>, askers: BTreeSet<NodeId>) {
        for asker in askers {
            let max = self.config.limits.origins;
            let Some(outbox) = self.neighbours.outbox(&asker) else { continue };
            if !outbox.give_attachment(key.clone(), attachment.cloned(), max) {
                self.counters.requests_dropped += 1;
            }
        }
    }

    fn is_in_reach(&self, id: &NodeId) -> bool {
        self.table.route(id).is_some_and(|route| !route.stub)
    }
}
