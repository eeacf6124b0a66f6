//! The neighbours: sessions, their sync, and what each is still to be sent.

pub(in crate::router) mod hold;
pub(in crate::router) mod outbox;
pub(in crate::router) mod pull;
pub(in crate::router) mod stub_damping;
pub(in crate::router) mod throttle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{Limits, Timers};
use super::database::{Database, earlier};
use super::event::Transmit;
use super::neighbour::outbox::Outbox;
use super::neighbour::throttle::Flaps;
use super::paths::table::Route;
use super::record::draft::{Link, LinkClass};
use super::record::wire::Digest;
use crate::id::{Cost, NodeAddr, NodeId};

/// What part a neighbour has in routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum NeighbourKind {
    /// A router like this one.
    Full,
    /// An ephemeral or leaf node. It gets no database and sends no routing messages; an entry in
    /// this node's record makes it reachable, and nothing of it stays behind.
    Stub,
}

/// A session with a neighbour came up: its identity is proven, and messages can flow both ways in
/// order.
#[derive(Clone, Debug)]
pub struct SessionUp {
    /// The neighbour.
    pub neighbour: NodeId,
    /// The instance of its process, from its HELLO. A session that replaces one of the same
    /// instance is another path to the same process, and the link stays in use; another instance is
    /// a restart, and the link starts over.
    pub instance: u64,
    /// What it costs this node to send over the link.
    pub cost: Cost,
    /// What part it has in routing.
    pub kind: NeighbourKind,
}

/// A neighbour as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeighbourView {
    /// The neighbour.
    pub id: NodeId,
    /// The instance of its process.
    pub instance: u64,
    /// What it costs this node to send over the link.
    pub cost: Cost,
    /// What part it has in routing.
    pub kind: NeighbourKind,
    /// How far the link is.
    pub state: NeighbourState,
    /// Origins of which the neighbour is still to be sent something.
    pub backlog: usize,
}

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NeighbourState {
    /// The databases are being compared; the link is not advertised yet.
    Syncing,
    /// Synced, but not advertised until then at the latest, because the link to this process was
    /// lost several times within [`Timers::flap_memory`](super::Timers::flap_memory). The hold ends
    /// early when no other path leads to the neighbour.
    Held(Instant),
    /// Advertised. It carries traffic as soon as the neighbour advertises it too.
    Up,
    /// The neighbour said that it leaves.
    Leaving,
}

/// When a neighbour is to be sent what [`Neighbours::owe_all`] owes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owes {
    Now,
    Later,
    Nothing,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Neighbour {
    /// Its address, a hash, and itself as the only next hop: made once, and not for each table.
    addr: NodeAddr,
    hop: Arc<[NodeId]>,
    pub(crate) instance: u64,
    pub(crate) cost: Cost,
    pub(crate) kind: NeighbourKind,
    pub(crate) state: NeighbourState,
    /// The digest that this side began with.
    pub(crate) opened_with: Digest,
    /// How many records that covers.
    pub(crate) opened_count: u64,
    pub(crate) got_digest: bool,
    /// A summary for the sync was sent, or will be.
    pub(crate) listed: bool,
    pub(crate) got_end: bool,
    /// The end of the sync was sent, or will be once what is owed before has gone.
    pub(crate) ends_sync: bool,
    /// The last digest that the neighbour was sent, or is known to share.
    pub(crate) told: Option<Digest>,
    /// A digest came when this node was not quiet: answer it when it is.
    pub(crate) owes_digest: bool,
    /// Digests that differed one after the other while this node was not quiet.
    pub(crate) mismatches: u8,
    last_heard: Instant,
    stall_reported: bool,
    pub(crate) outbox: Outbox,
    window: Window,
}

#[derive(Debug, Default)]
struct Window {
    messages: usize,
    bytes: usize,
}

impl Neighbour {
    pub(crate) fn new(
        up: &SessionUp,
        state: NeighbourState,
        opened_with: Digest,
        now: Instant,
    ) -> Self {
        Self {
            addr: up.neighbour.addr(),
            hop: [up.neighbour.clone()].into(),
            instance: up.instance,
            cost: up.cost,
            kind: up.kind,
            state,
            opened_with,
            opened_count: 0,
            got_digest: false,
            listed: false,
            got_end: false,
            ends_sync: false,
            told: None,
            owes_digest: false,
            mismatches: 0,
            last_heard: now,
            stall_reported: false,
            outbox: Outbox::default(),
            window: Window::default(),
        }
    }

    /// The route to it, as a stub with this id.
    pub(crate) fn route(&self, id: &NodeId) -> Route {
        Route::to_own_stub(id, self.addr, self.cost, &self.hop)
    }

    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Both ends have said all that the other lacked.
    pub(crate) fn is_synced(&self) -> bool {
        self.got_end && self.ends_sync
    }

    /// Whether the neighbour answers waves: it knows that the session has synced, whatever it is
    /// sent now.
    pub(crate) fn takes_waves(&self) -> bool {
        let routes = self.kind == NeighbourKind::Full && self.state != NeighbourState::Leaving;
        routes && self.is_synced() && self.outbox.has_ended_sync()
    }

    fn is_syncing(&self) -> bool {
        self.kind == NeighbourKind::Full && !self.got_end
    }
}

/// All sessions, by neighbour.
#[derive(Debug)]
pub(crate) struct Neighbours {
    sessions: BTreeMap<NodeId, Neighbour>,
    addrs: BTreeMap<NodeAddr, NodeId>,
    flaps: BTreeMap<NodeId, Flaps>,
    /// Those that may have something to be sent: all that have, and perhaps more.
    ready: BTreeSet<NodeId>,
    /// Where the round through `ready` stands.
    turn: Option<NodeId>,
    /// Those that wait for a time: in sync, or held back.
    unsettled: BTreeSet<NodeId>,
    /// When the ids that wait for more of their kind go out.
    announce_at: Option<Instant>,
    /// The routers among the neighbours: few, where stubs may be thousands.
    routers: BTreeSet<NodeId>,
    limits: Limits,
    timers: Timers,
}

impl Neighbours {
    pub(crate) fn new(limits: Limits, timers: Timers) -> Self {
        Self {
            sessions: BTreeMap::new(),
            addrs: BTreeMap::new(),
            flaps: BTreeMap::new(),
            ready: BTreeSet::new(),
            turn: None,
            unsettled: BTreeSet::new(),
            announce_at: None,
            routers: BTreeSet::new(),
            limits,
            timers,
        }
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Neighbour> {
        self.sessions.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Neighbour> {
        self.sessions.get_mut(id)
    }

    pub(crate) fn with_addr(&self, addr: NodeAddr) -> Option<&NodeId> {
        self.addrs.get(&addr)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Neighbour)> {
        self.sessions.iter()
    }

    /// The routers among them.
    pub(crate) fn full(&self) -> Vec<NodeId> {
        self.routers.iter().cloned().collect()
    }

    /// The routers among them, with their sessions; ascending by id.
    pub(crate) fn routers(&self) -> impl Iterator<Item = (&NodeId, &Neighbour)> {
        self.routers.iter().filter_map(|id| self.sessions.get_key_value(id))
    }

    fn full_sessions(&self) -> impl Iterator<Item = &Neighbour> {
        self.routers().map(|(_, session)| session)
    }

    /// Whether traffic may use the link to this neighbour, as far as this end is concerned.
    pub(crate) fn uses(&self, id: &NodeId) -> bool {
        let session = self.sessions.get(id);
        session.is_some_and(|session| {
            session.kind == NeighbourKind::Full && session.state == NeighbourState::Up
        })
    }

    pub(crate) fn stubs(&self) -> impl Iterator<Item = (&NodeId, &Neighbour)> {
        self.sessions.iter().filter(|(_, session)| session.kind == NeighbourKind::Stub)
    }

    pub(crate) fn count(&self, kind: NeighbourKind) -> usize {
        match kind {
            NeighbourKind::Stub => self.sessions.len() - self.routers.len(),
            NeighbourKind::Full => self.routers.len(),
        }
    }

    pub(crate) fn insert(&mut self, id: NodeId, session: Neighbour) {
        if session.kind == NeighbourKind::Full {
            self.routers.insert(id.clone());
        }
        if session.is_syncing() {
            self.unsettled.insert(id.clone());
        }
        self.addrs.insert(id.addr(), id.clone());
        self.sessions.insert(id, session);
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<Neighbour> {
        let session = self.sessions.remove(id)?;
        self.routers.remove(id);
        self.addrs.remove(&id.addr());
        self.ready.remove(id);
        self.unsettled.remove(id);
        Some(session)
    }

    /// The link to a router's process was lost: its return will be held back if that happens often.
    /// When the memory is full, the neighbour that would be forgotten first makes room.
    pub(crate) fn on_loss(&mut self, id: &NodeId, instance: u64, now: Instant) {
        if self.flaps.len() >= self.limits.active_links && !self.flaps.contains_key(id) {
            let memory = self.timers.flap_memory;
            let oldest = self.flaps.iter().min_by_key(|(_, flaps)| flaps.forgotten_at(memory));
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.flaps.remove(&oldest);
            }
        }
        self.flaps.entry(id.clone()).or_default().on_loss(instance, now);
    }

    /// A process of the neighbour is back. If it is another one than that whose link was lost, the
    /// losses were a restart.
    pub(crate) fn on_return(&mut self, id: &NodeId, instance: u64) {
        if self.flaps.get(id).is_some_and(|flaps| !flaps.concern(instance)) {
            self.flaps.remove(id);
        }
    }

    /// The session has synced: the link goes up, at once or after a hold. Returns whether it is
    /// held back.
    pub(crate) fn on_synced(&mut self, id: &NodeId, now: Instant) -> bool {
        let mut hold = Duration::ZERO;
        if let Some(flaps) = self.flaps.get_mut(id) {
            flaps.prune(self.timers.flap_memory, now);
            hold = flaps.hold(self.timers.flap_hold, self.timers.flap_hold_max);
        }
        let Some(session) = self.sessions.get_mut(id) else { return false };
        session.got_end = true;
        if session.state == NeighbourState::Syncing {
            session.state =
                if hold.is_zero() { NeighbourState::Up } else { NeighbourState::Held(now + hold) };
        }
        let held = session.held_until().is_some();
        if !held {
            self.unsettled.remove(id);
        }
        held
    }

    /// The neighbours whose links are held back, and until when.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&NodeId, Instant)> {
        self.unsettled_sessions().filter_map(|(id, session)| Some((id, session.held_until()?)))
    }

    /// Until when the link to a neighbour is held back; `None` if it is not. Few sessions are not
    /// settled, so that it is cheap to ask for each of thousands.
    pub(crate) fn held_until(&self, id: &NodeId) -> Option<Instant> {
        self.sessions.get(self.unsettled.get(id)?)?.held_until()
    }

    /// Ends the hold of a link early.
    pub(crate) fn release(&mut self, id: &NodeId) {
        if let Some(session) =
            self.sessions.get_mut(id).filter(|session| session.held_until().is_some())
        {
            session.state = NeighbourState::Up;
            if !session.is_syncing() {
                self.unsettled.remove(id);
            }
        }
    }

    /// What goes into this node's record.
    pub(crate) fn links(&self) -> Vec<Link> {
        let listed =
            self.sessions.iter().filter(|(_, session)| session.state == NeighbourState::Up);
        let link = |(id, session): (&NodeId, &Neighbour)| Link {
            peer: id.clone(),
            class: match session.kind {
                NeighbourKind::Full => LinkClass::Active,
                NeighbourKind::Stub => LinkClass::Stub,
            },
            cost: session.cost,
        };
        listed.map(link).collect()
    }

    pub(crate) fn view(&self) -> impl Iterator<Item = NeighbourView> {
        self.sessions.iter().map(|(id, session)| NeighbourView {
            id: id.clone(),
            instance: session.instance,
            cost: session.cost,
            kind: session.kind,
            state: session.state,
            backlog: session.outbox.len(),
        })
    }

    /// What a router among them is still to be sent, to be added to.
    pub(crate) fn outbox(&mut self, id: &NodeId) -> Option<&mut Outbox> {
        let session =
            self.sessions.get_mut(id).filter(|session| session.kind == NeighbourKind::Full)?;
        if !self.ready.contains(id) {
            self.ready.insert(id.clone());
        }
        Some(&mut session.outbox)
    }

    /// Owes each router among them something, in one pass. What it owes later goes out at
    /// `announce_at`, if that is the first of its batch.
    pub(crate) fn owe_all(
        &mut self,
        announce_at: Instant,
        mut owe: impl FnMut(&NodeId, &mut Neighbour) -> Owes,
    ) {
        for id in &self.routers {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            match owe(id, session) {
                Owes::Now if !self.ready.contains(id) => _ = self.ready.insert(id.clone()),
                Owes::Later => _ = self.announce_at.get_or_insert(announce_at),
                Owes::Now | Owes::Nothing => {}
            }
        }
    }

    pub(crate) fn next_announce(&self) -> Option<Instant> {
        self.announce_at
    }

    /// Sends the batches, if it is time.
    pub(crate) fn poll_announces(&mut self, now: Instant) {
        if self.announce_at.is_none_or(|at| now < at) {
            return;
        }
        self.announce_at = None;
        for id in &self.routers {
            if self.sessions.get_mut(id).is_some_and(|session| session.outbox.release()) {
                self.ready.insert(id.clone());
            }
        }
    }

    /// Origins of which every synced router among them is still to be sent something: what even the
    /// fastest has not taken.
    pub(crate) fn backlog(&self) -> usize {
        let synced = self.full_sessions().filter(|session| session.is_synced());
        synced.map(|session| session.outbox.len()).min().unwrap_or(0)
    }

    /// What all of them are still to be sent.
    pub(crate) fn owed(&self) -> usize {
        self.full_sessions().map(|session| session.outbox.waiting()).sum()
    }

    pub(crate) fn remembered_flaps(&self) -> usize {
        self.flaps.len()
    }

    /// The stream to the neighbour took all that it was given.
    pub(crate) fn on_writable(&mut self, id: &NodeId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.window = Window::default();
            self.ready.insert(id.clone());
        }
    }

    /// The next message, neighbour by neighbour in turn.
    pub(crate) fn poll_transmit(&mut self, database: &Database, now: Instant) -> Option<Transmit> {
        loop {
            let after = self
                .turn
                .as_ref()
                .and_then(|turn| self.ready.range(turn.clone()..).find(|id| *id != turn));
            let to = after.or_else(|| self.ready.first()).cloned()?;
            self.turn = Some(to.clone());
            if let Some(message) = self
                .sessions
                .get_mut(&to)
                .and_then(|session| session.next(&self.limits, database, now))
            {
                return Some(Transmit { to, message });
            }
            self.ready.remove(&to);
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn next_hold(&self) -> Option<Instant> {
        self.unsettled_sessions().filter_map(|(_, session)| session.held_until()).min()
    }

    pub(crate) fn next_stall(&self) -> Option<Instant> {
        let waiting = self.unsettled_sessions().filter(|(_, session)| session.may_stall());
        waiting.map(|(_, session)| session.last_heard + self.timers.sync_stall).min()
    }

    pub(crate) fn next_forget(&self) -> Option<Instant> {
        let memory = self.timers.flap_memory;
        self.flaps.values().filter_map(|flaps| flaps.forgotten_at(memory)).fold(None, earlier)
    }

    /// Puts up the links whose hold is over, and returns their neighbours.
    pub(crate) fn poll_holds(&mut self, now: Instant) -> Vec<NodeId> {
        let due: Vec<NodeId> =
            self.held().filter(|(_, until)| *until <= now).map(|(id, _)| id.clone()).collect();
        due.iter().for_each(|id| self.release(id));
        due
    }

    /// Those that make no progress in their sync, each once.
    pub(crate) fn poll_stalls(&mut self, now: Instant) -> Vec<NodeId> {
        let stall = self.timers.sync_stall;
        let due =
            self.unsettled_sessions().filter(|(_, s)| s.may_stall() && s.last_heard + stall <= now);
        let due: Vec<NodeId> = due.map(|(id, _)| id.clone()).collect();
        for id in &due {
            if let Some(session) = self.sessions.get_mut(id) {
                session.stall_reported = true;
            }
        }
        due
    }

    /// Forgets losses of long ago.
    pub(crate) fn poll_forget(&mut self, now: Instant) {
        let memory = self.timers.flap_memory;
        self.flaps.retain(|_, flaps| flaps.forgotten_at(memory).is_some_and(|at| at > now));
    }

    fn unsettled_sessions(&self) -> impl Iterator<Item = (&NodeId, &Neighbour)> {
        self.unsettled.iter().filter_map(|id| self.sessions.get_key_value(id))
    }
}

impl Neighbour {
    fn held_until(&self) -> Option<Instant> {
        match self.state {
            NeighbourState::Held(until) => Some(until),
            _ => None,
        }
    }

    fn may_stall(&self) -> bool {
        self.is_syncing() && !self.stall_reported
    }

    fn next(
        &mut self,
        limits: &Limits,
        database: &Database,
        now: Instant,
    ) -> Option<super::record::wire::Message> {
        if self.window.messages >= limits.window_messages
            || self.window.bytes >= limits.window_bytes
        {
            return None;
        }
        let message = self.outbox.next(database, now)?;
        self.window.messages += 1;
        self.window.bytes += message.estimate();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_remembered_of_a_bounded_number_of_neighbours() {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs some first instant")]
        let start = Instant::now();
        let limits = Limits { active_links: 2, ..Limits::default() };
        let mut neighbours = Neighbours::new(limits, Timers::default());
        let name = |nth: u64| format!("n{nth}").parse::<NodeId>().unwrap();
        for nth in 0..10 {
            let now = start + Duration::from_secs(nth);
            neighbours.on_loss(&name(nth), 1, now);
            neighbours.on_loss(&name(nth), 1, now);
            assert!(neighbours.remembered_flaps() <= 2, "{}", neighbours.remembered_flaps());
        }
        // Those that would be forgotten first made room.
        let kept: Vec<_> = neighbours.flaps.keys().cloned().collect();
        assert_eq!(kept, [name(8), name(9)]);
    }
}
