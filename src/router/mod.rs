#![doc = include_str!("guide.md")]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::id::{Cost, NodeAddr, NodeId, Version};

mod bench;
mod config;
mod convergence;
mod counters;
mod database;
mod deltas;
mod event;
mod flood;
mod neighbour;
mod origin;
mod paths;
mod proof;
mod receive;
mod record;
mod settle;
mod sizes;

pub use config::{Config, FloodMode, Limits, Timers};
pub use convergence::answer::Echo;
pub use convergence::request::{ConvergeError, ConvergeRequest};
pub use counters::Counters;
pub use database::buckets::{BucketSet, Buckets};
pub use event::{Deadline, DeadlineReason, Event, Limit, PeerError, SessionError, Transmit};
pub use neighbour::{NeighbourKind, NeighbourState, NeighbourView, SessionUp};
pub use paths::explain::Explanation;
pub use paths::rtt_cost::RttCost;
pub use paths::table::{Route, Table};
pub use proof::attachment::{Attachment, AttachmentVerdict};
pub use proof::claims::{Claim, ClaimFault, ClaimState};
pub use proof::notary::{Notary, Verdict};
pub use proof::signature::{CredentialName, Distrust, Proof};
pub use record::advertisement::Advertisement;
pub use record::compact::DecodeError;
pub use record::delta::Delta;
pub use record::draft::{Draft, Link, LinkClass};
pub use record::process::{Duplicate, Override, Process};
pub use record::wire::{Digest, Entry, Message};
pub use record::{Record, Stamp};
pub use sizes::Sizes;

use convergence::converge::Convergence;
use convergence::echo::Echoes;
use database::Database;
use database::graph::Effect;
use database::parked::Parked;
use database::seen::Seen;
use flood::Flood;
use flood::audit::Audits;
use flood::quiet::Quiet;
use neighbour::pull::Pulls;
use neighbour::stub_damping::StubDamping;
use neighbour::{Neighbour, Neighbours};
use origin::twin::Twins;
use origin::{Origin, Urgency};
use paths::alternates::{Alternates, Standby};
use paths::spf::{Paths, Schedule};
use paths::table::Collision;
use proof::claims::Claims;
use proof::credentials::Credentials;
use proof::distrust::DistrustBudgets;
use proof::expiry::Expiries;
use proof::own_stubs::OwnStubs;
use proof::refusals::Refusals;

/// The router of one node.
///
/// Four families of methods:
/// - **getters** (`&self`) look and change nothing;
/// - **`handle_*`** take what happened: sessions, messages, time;
/// - **commands** (`set_*`, [`converge`](Self::converge), [`leave`](Self::leave)) take what this
///   node wants;
/// - **`poll_*`** give what is to be done.
///
/// **The drain rule**: after every `handle_*` or command, call [`poll_event`](Self::poll_event)
/// until it gives none, then [`poll_transmit`](Self::poll_transmit) until it gives none, then sleep
/// until [`poll_timeout`](Self::poll_timeout) or the next input. The table of an
/// [`Event::TableChanged`] must be in use before a [`Message::Echo`] that is polled after it is
/// sent: it shows others that this node has the route. `now` never goes back from one call to the
/// next.
///
/// No call blocks, and the work of each is bounded by the size of the database. Dropping a router
/// sends nothing; call [`leave`](Self::leave) before to leave in order.
#[derive(Debug)]
pub struct Router {
    config: Config,
    last_now: Instant,
    origin: Origin,
    database: Database,
    neighbours: Neighbours,
    seen: Seen,
    flood: Flood,
    pulls: Pulls,
    parked: Parked,
    credentials: Credentials,
    expiries: Expiries,
    refusals: Refusals,
    own_stubs: OwnStubs,
    stub_damping: StubDamping,
    distrust: DistrustBudgets,
    claims: Claims,
    quiet: Quiet,
    echoes: Echoes,
    convergence: Convergence,
    audits: Audits,
    schedule: Schedule,
    /// What the table was made of.
    paths: Option<Paths>,
    alternates: Alternates,
    /// The alternates of `paths`, by node number, once they are found.
    standby: Option<Vec<Standby>>,
    table: Arc<Table>,
    collisions: BTreeSet<Collision>,
    limits_hit: BTreeSet<Limit>,
    events: VecDeque<Event>,
    twins: Twins,
    counters: Counters,
    /// When a sync first ended.
    first_synced: Option<Instant>,
}

impl Router {
    /// A router without neighbours. It says nothing until it has synced with one.
    #[must_use]
    pub fn new(mut config: Config, now: Instant) -> Self {
        config.limits = config.limits.clamped();
        let (limits, timers) = (config.limits.clone(), config.timers.clone());
        let mut router = Self {
            last_now: now,
            origin: Origin::new(&config, now),
            database: Database::new(config.id.clone(), timers.clone(), limits.clone(), now),
            seen: Seen::new(limits.seen_ids),
            flood: Flood::new(&config, now),
            pulls: Pulls::new(timers.pull_delay, timers.pull_retry, limits.origins),
            neighbours: Neighbours::new(limits, timers.clone()),
            parked: Parked::default(),
            credentials: Credentials::default(),
            expiries: Expiries::default(),
            refusals: Refusals::new(),
            own_stubs: OwnStubs::default(),
            stub_damping: StubDamping::new(&timers),
            distrust: DistrustBudgets::default(),
            claims: Claims::default(),
            quiet: Quiet::new(timers.quiet, timers.quiet_max, config.seed),
            echoes: Echoes::default(),
            convergence: Convergence::new(&config.timers, now),
            audits: Audits::new(timers.audit, 4 * timers.quiet, config.seed),
            schedule: Schedule::new(now),
            paths: None,
            alternates: Alternates::new(now),
            standby: None,
            table: Arc::default(),
            collisions: BTreeSet::new(),
            limits_hit: BTreeSet::new(),
            events: VecDeque::new(),
            twins: Twins::new(config.instance),
            counters: Counters::default(),
            first_synced: None,
            config,
        };
        if let Some(notary) = router.config.notary.clone() {
            router.change_notary(notary, now);
        }
        router.set_capabilities(router.config.capabilities.clone(), now);
        router.set_dormant(router.config.dormant.clone(), now);
        router
    }
}

/// Getters.
impl Router {
    /// The name of this node.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.config.id
    }

    /// The version of this node's newest record; if it has not spoken yet, the one that its first
    /// record will stand above.
    #[must_use]
    pub fn version(&self) -> Version {
        self.origin.version()
    }

    /// The table as it is now. Readers can keep it; a change makes a new one and an
    /// [`Event::TableChanged`].
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }

    /// All records that are held, ascending by origin, this node's own among them once it has
    /// spoken.
    pub fn database(&self) -> impl Iterator<Item = &Record> {
        self.database.iter()
    }

    /// The neighbours, ascending by id.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourView> {
        self.neighbours.view()
    }

    /// The state of the session with a neighbour, or `None` without one.
    #[must_use]
    pub fn neighbour_state(&self, id: &NodeId) -> Option<NeighbourState> {
        self.neighbours.get(id).map(|session| session.state)
    }

    /// The credentials that are kept of other nodes and of this one.
    pub fn credentials(&self) -> impl Iterator<Item = &Bytes> {
        self.credentials.iter()
    }

    /// The other live process with this node's id that was proven last, and which of the two
    /// yields.
    #[must_use]
    pub fn duplicate(&self) -> Option<&Duplicate> {
        self.twins.duplicate()
    }

    /// What was done since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

/// What happened.
impl Router {
    /// A session came up. One with the same neighbour that was up before is replaced: what was in
    /// flight on it is lost.
    ///
    /// # Errors
    /// The session is not taken; the variant says why. Close it. The state is as before.
    pub fn handle_session_up(&mut self, up: SessionUp, now: Instant) -> Result<(), SessionError> {
        self.check_session(&up)?;
        let old = self.end_session(&up.neighbour, Some(&up), now);
        self.neighbours.on_return(&up.neighbour, up.instance);
        let continued = old.as_ref().is_some_and(|old| continues(old, &up));
        let state = match (up.kind, old) {
            (NeighbourKind::Stub, _) => NeighbourState::Up,
            (NeighbourKind::Full, Some(old)) if continued => old.state,
            _ => NeighbourState::Syncing,
        };
        match up.kind {
            NeighbourKind::Full => self.begin_session(&up, state, now),
            NeighbourKind::Stub => {
                let session = Neighbour::new(&up, state, Digest::default(), now);
                self.own_stubs.on_session_up(&up.neighbour, up.instance, now);
                if !continued {
                    self.damp_stub(&up, now);
                }
                self.neighbours.insert(up.neighbour, session);
                self.schedule.on_effect(Effect::Stubs);
                self.origin.on_stubs_changed(now);
            }
        }
        self.settle(now);
        Ok(())
    }

    /// The session with this neighbour ended. Without one, nothing happens.
    pub fn handle_session_down(&mut self, neighbour: &NodeId, now: Instant) {
        self.end_session(neighbour, None, now);
        self.settle(now);
    }

    /// A message came from a neighbour, over the session that is up now. Messages of one session
    /// are handled in the order in which they were sent; those that come late from an older session
    /// must be dropped.
    ///
    /// # Errors
    /// The neighbour broke the protocol: close the session, and call
    /// [`handle_session_down`](Self::handle_session_down). What the session brought before stays
    /// valid.
    pub fn handle_message(
        &mut self,
        from: &NodeId,
        message: Message,
        now: Instant,
    ) -> Result<(), PeerError> {
        self.receive(from, message, now)?;
        self.settle(now);
        Ok(())
    }

    /// The stream to this neighbour took all that [`poll_transmit`](Self::poll_transmit) gave for
    /// it: there can be more.
    pub fn handle_writable(&mut self, neighbour: &NodeId, now: Instant) {
        self.neighbours.on_writable(neighbour);
        self.last_now = now;
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) came. Calling it earlier does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        self.settle(now);
    }
}

/// Commands.
impl Router {
    /// Changes what this node says about itself. Above [`Limits::capabilities`] it says nothing,
    /// and reported by [`Event::LimitHit`].
    pub fn set_capabilities(&mut self, capabilities: Bytes, now: Instant) {
        let fits = self.origin.set_capabilities(capabilities);
        self.note_limit(Limit::Capabilities, !fits);
        self.change(now);
    }

    /// Changes the neighbours known from the connection manifest, connected or not.
    pub fn set_dormant(&mut self, dormant: Vec<NodeId>, now: Instant) {
        // An unchanged value must not originate a record that then carries changes of stubs before
        // their time.
        if self.origin.set_dormant(dormant) {
            self.change(now);
        }
    }

    /// Changes what it costs to send to a neighbour, until its session is replaced. Without a
    /// session, nothing happens.
    pub fn set_cost(&mut self, neighbour: &NodeId, cost: Cost, now: Instant) {
        if let Some(session) = self.neighbours.get_mut(neighbour) {
            session.cost = cost;
            // Of a router's link, paths know what this node's record says.
            self.schedule.on_effect(Effect::Stubs);
            self.change(now);
        }
    }

    /// Changes whether others may route through this node.
    pub fn set_transit(&mut self, transit: bool, now: Instant) {
        self.origin.set_transit(transit);
        self.change(now);
    }

    /// Where this process is, for people: the address at which a neighbour sees it. Opaque to the
    /// router, cut to [`Override::MAX_PLACE`] bytes. It is advertised only in a record that
    /// overrides another process's.
    pub fn set_place(&mut self, place: &str) {
        self.twins.set_place(place);
    }

    /// Changes who signs this node's records and verifies those of others. With another credential
    /// than before, this node originates a new record, so that the mesh learns it; what it holds of
    /// others stays.
    pub fn set_notary(&mut self, notary: Arc<dyn Notary>, now: Instant) {
        self.change_notary(notary, now);
        self.settle(now);
    }

    /// Leaves the mesh in order: a last record without links goes out to all neighbours. Drain the
    /// router, see that the streams took what it gave, then close the sessions. It cannot be taken
    /// back; new sessions are refused. A node that has yielded its id says nothing.
    pub fn leave(&mut self, now: Instant) {
        self.end_all_requests();
        self.origin.leave(now);
        self.schedule.on_change();
        self.settle(now);
    }

    fn change(&mut self, now: Instant) {
        self.origin.on_change(Urgency::Now, now);
        self.settle(now);
    }
}

/// What is to be done.
impl Router {
    /// The next message to send. Messages for one neighbour must reach it in this order, or its
    /// session must end.
    ///
    /// For each neighbour at most a window of messages is given ([`Limits::window_messages`],
    /// [`Limits::window_bytes`]) until [`handle_writable`](Self::handle_writable) says that the
    /// stream took them.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.neighbours.poll_transmit(&self.database, self.last_now)?;
        match &transmit.message {
            Message::Update(_) => self.counters.updates_sent += 1,
            Message::Delta(_) => self.counters.deltas_sent += 1,
            Message::Have(entries) | Message::Offer(entries) => {
                self.counters.ids_sent += entries.len() as u64;
            }
            Message::Digest { .. } => self.counters.digests_sent += 1,
            Message::Buckets(_) => self.counters.buckets_sent += 1,
            Message::Rekeyed { .. } => self.counters.audits_sent += 1,
            Message::Summary { entries, .. } => {
                self.counters.summary_entries_sent += entries.len() as u64
            }
            Message::Echo(_) => self.counters.echoes_sent += 1,
            Message::Want(_) | Message::Nack(_) | Message::SyncEnd => {}
            Message::CredentialWant(_) | Message::Credential { .. } => {}
            Message::AttachmentWant(_) | Message::Attachment { .. } => {}
        }
        Some(transmit)
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, and why. Output that waits
    /// means now.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        use DeadlineReason as Why;
        let now = self.last_now;
        let output = self.neighbours.has_output() || !self.events.is_empty();
        let originate = self.speaks_at(now);
        let deadlines = [
            (output.then_some(now), Why::Output),
            (originate, Why::Originate),
            (self.schedule.next_timeout(), Why::ShortestPaths),
            (
                self.alternates.next_timeout().filter(|_| !self.schedule.is_wanted()),
                Why::Alternates,
            ),
            (self.neighbours.next_announce(), Why::Announce),
            (self.pulls.next_timeout(), Why::Pull),
            (self.parked.next_timeout(), Why::Accept),
            (self.credentials.next_timeout(), Why::Credential),
            (self.next_proof(), Why::Expire),
            (self.claims.next_timeout(), Why::Attachment),
            (self.quiet.next_timeout(), Why::QuietDigest),
            (self.neighbours.next_hold(), Why::LinkHold),
            (self.stub_damping.next_release(), Why::LinkHold),
            (self.stub_damping.next_forget(), Why::Expire),
            (self.neighbours.next_stall(), Why::SyncStall),
            (self.neighbours.next_forget(), Why::Expire),
            (self.next_converge(now), Why::Converge),
            (self.echoes.next_expiry(), Why::Expire),
            (self.database.next_timeout(), Why::Expire),
            (self.expiries.next_timeout(), Why::Expire),
            (self.audits.next_timeout(), Why::Audit),
        ];
        deadlines.into_iter().filter_map(|(at, reason)| Some(Deadline { at: at?, reason })).min()
    }
}

impl Router {
    fn check_session(&self, up: &SessionUp) -> Result<(), SessionError> {
        if self.origin.is_leaving() {
            return Err(SessionError::Leaving);
        }
        if self.twins.has_yielded() {
            return Err(SessionError::Yielded);
        }
        if up.neighbour == *self.id() {
            return Err(SessionError::SelfLink);
        }
        if up.kind == NeighbourKind::Full && up.neighbour.suffix().is_some() {
            return Err(SessionError::SuffixedId(up.neighbour.clone()));
        }
        if let Some(known) =
            self.holder_of(up.neighbour.addr()).filter(|known| *known != up.neighbour)
        {
            return Err(SessionError::AddressCollision { known, refused: up.neighbour.clone() });
        }
        let replaces = self.neighbours.get(&up.neighbour).is_some_and(|old| old.kind == up.kind);
        let max = match up.kind {
            NeighbourKind::Full => self.config.limits.active_links,
            NeighbourKind::Stub => self.config.limits.stub_links,
        };
        if !replaces && self.neighbours.count(up.kind) >= max {
            return Err(SessionError::TooManyLinks { max });
        }
        Ok(())
    }

    /// Begins the session with a router.
    fn begin_session(&mut self, up: &SessionUp, state: NeighbourState, now: Instant) {
        let (digest, count) = self.database.offered_digest(now);
        let mut session = Neighbour::new(up, state, digest, now);
        session.opened_count = count;
        self.neighbours.insert(up.neighbour.clone(), session);
        self.flood.on_sessions_changed();
        if let Some(outbox) = self.neighbours.outbox(&up.neighbour) {
            outbox.digest(digest, count);
        }
        self.database.restart_deletion_clock(now);
        if state == NeighbourState::Up {
            self.origin.on_change(Urgency::Now, now);
        }
    }

    /// Ends a session, which `by` replaces if given.
    fn end_session(
        &mut self,
        id: &NodeId,
        by: Option<&SessionUp>,
        now: Instant,
    ) -> Option<Neighbour> {
        let old = self.neighbours.remove(id)?;
        let continued = by.is_some_and(|up| continues(&old, up));
        if old.kind == NeighbourKind::Stub {
            if !continued {
                self.on_stub_lost(id, old.instance);
            }
            if by.is_none_or(|up| up.kind != NeighbourKind::Stub) {
                self.own_stubs.on_session_down(id);
            }
            self.schedule.on_effect(Effect::Stubs);
            self.origin.on_stubs_changed(now);
            return Some(old);
        }
        self.pulls.on_session_down(id, now);
        self.audits.on_session_down(id);
        let asks = self.credentials.on_session_down(id, now);
        self.ask_for_credentials(asks);
        self.end_syncs(now);
        self.flood.on_sessions_changed();
        self.on_wave_session_down(id, continued);
        if continued {
            return Some(old);
        }
        // What replaces a session and does not continue it is another process: a restart, and no
        // flap.
        if by.is_none() && matches!(old.state, NeighbourState::Up | NeighbourState::Held(_)) {
            self.neighbours.on_loss(id, old.instance, now);
        }
        self.schedule.on_effect(Effect::Paths);
        self.origin.on_change(Urgency::Coalesce, now);
        Some(old)
    }

    /// Whether traffic may use the link to this neighbour, as far as this end is concerned.
    fn uses_link(&self, neighbour: &NodeId) -> bool {
        self.neighbours.uses(neighbour)
    }

    /// The known node with this address.
    fn holder_of(&self, addr: NodeAddr) -> Option<NodeId> {
        let known = self.database.origin_with(addr).or_else(|| self.neighbours.with_addr(addr));
        known.or_else(|| self.table.route_addr(addr).map(|route| &route.id)).cloned()
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < self.config.limits.events {
            self.events.push_back(event);
        } else {
            self.counters.events_dropped += 1;
        }
    }

    /// Reports that a bound was hit, once until it was not.
    fn note_limit(&mut self, limit: Limit, hit: bool) {
        if !hit {
            self.limits_hit.remove(&limit);
        } else if self.limits_hit.insert(limit) {
            self.event(Event::LimitHit(limit));
        }
    }
}

/// Whether a new session is only another path to the same process.
fn continues(old: &Neighbour, up: &SessionUp) -> bool {
    old.kind == up.kind && old.instance == up.instance
}
