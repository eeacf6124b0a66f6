//! Direct paths between two nodes behind NATs and firewalls. Pure: no I/O, no clock, no randomness
//! except a seed.
//!
//! Two nodes whose traffic is relayed find out whether they can reach each other directly, by the
//! connectivity checks of ICE (RFC 8445) without its agents and pairs: each end probes the other's
//! addresses from its one UDP socket, both at the same time (RFC 5128 §3.3), and an address that
//! answers becomes a path. [`Puncher`] does this for all peers of a node. It sends none of their
//! traffic, and no operation waits for it.
//!
//! # A round
//!
//! ```text
//!   alice (offers)                      by relays                       bob (answers)
//!     │  packets flow, no path                                                │
//!     │ ── OFFER: round, key, class, cookie, candidates ────────────────────▶ │
//!     │ ◀──────────────────────────────── ANSWER: class, cookie, candidates ─ │ probes alice's candidates
//!     │ probes bob's candidates                                               │
//!     │                            straight                                   │
//!     │    ✗ ◀─ NAT ◀────────────────────────────────────────────────── probe │ opens bob's NAT for alice
//!     │ probe ────────────────────────────────────────────────────────▶ NAT ─▶│ answers, and probes where it came from
//!     │ ◀────────────────────────────────────────────────────────────── answer│
//!     │ alice's path is valid                                                 │
//!     │ ◀─────────────────────────────────────────────────────────────── probe│
//!     │ answer ──────────────────────────────────────────────────────────────▶│ bob's path is valid
//! ```
//!
//! 1. **Candidates** are gathered: interface addresses, addresses observed by neighbours, port
//!    mappings and configured addresses. The observed addresses also determine the class of the NAT
//!    ([`NatClass`], terms of RFC 4787).
//! 2. **A round** starts when packets flow to a peer without a path; again when candidates change,
//!    a path dies, or the network changes; and after a failure with exponential backoff. One end
//!    sends the offer; the other end requests it. If both ends are behind NATs, they agree on the
//!    moment of their first probes, and retry from fresh ports if that fails: see `volley`.
//! 3. **Probes** ([`Probe`]) are sent to each candidate at once and then at growing intervals,
//!    paced over the whole node. Each has a counter and a MAC under the round's key. The source of
//!    an authentic probe becomes a candidate too (peer-reflexive): that is how both ends find a
//!    peer whose NAT uses another address for each destination.
//! 4. **A path** is valid when an answer to a probe of this node arrives from the probed address.
//!    Each end validates it separately.
//! 5. **The choice** is the path of the shortest round trip, with hysteresis. Up to three paths are
//!    kept warm.
//! 6. **Liveness**: paths are probed as long as they are kept. One that does not answer is in
//!    doubt: it is probed more often, left for another one that answers, and dead after three
//!    seconds. Packets are relayed then, and a new round starts. A path whose address may be gone,
//!    at either end, is left at once until it answers.
//! 7. **The outcome** of every round is recorded with its reason: [`Puncher::explain`] reports why
//!    packets take their path.
//!
//! # Attacks
//!
//! A stranger cannot forge, replay or reflect a probe to any effect. A neighbour that reports a
//! false address adds one candidate that does not answer. A peer can announce addresses of
//! bystanders: each round probes at most 32 candidates, at most 18 times per IP address, and at
//! most 64 pairs of fresh ports in each of 23 further volleys, with one probe each, which the peer
//! has to request one by one. It can fake the source of its probes: at most 8 such addresses are
//! probed in a round, 4 per IP address, 15 times each, and answers are bounded and as long as their
//! probes. Rounds that a peer can cause are rate-limited. A peer that answers through a third host
//! only turns that host into a relay of encrypted packets.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::NodeId;

mod agenda;
mod config;
mod counters;
mod event;
mod gather;
mod limit;
mod output;
mod peer;
mod random;
mod role;
#[cfg(test)]
mod testing;
mod wire;
#[cfg(test)]
mod wire_tests;

pub use config::{Config, Timers};
pub use counters::{Counters, Pair};
pub use event::{Deadline, DeadlineReason, Event};
pub use gather::candidate::{Candidate, CandidateKind, HostAddress, HostKind};
pub use gather::nat::NatClass;
#[cfg(feature = "cli")]
pub(crate) use gather::nat::classify;
pub use peer::attempt::{Attempt, Cause, Outcome};
pub use peer::explain::{Checked, Explanation, Why};
pub use peer::path::Path;
pub use role::Role;
pub use wire::message::{Answer, DecodeError, Message, MessageError, Offer, Terms, Volley};
pub use wire::probe::{Arrival, Probe, ProbeError};
pub use wire::secret::{PathCookie, ProbeKey};

use agenda::{Agenda, Dues};
use gather::candidate::is_unicast;
use gather::own::Own;
use output::Output;
use peer::session::{Context, Session};
use random::Random;
use wire::probe::Content;

/// Minimum interval between probes of paths over all peers. They precede those of candidates, which
/// are paced by [`Timers::pace`].
const WATCH_PACE: Duration = Duration::from_millis(1);

/// Establishes, keeps and probes the direct paths of one node to all its peers.
///
/// Four families of methods:
/// - **getters** (`&self`);
/// - **`handle_*`**: input from the network, and time;
/// - **commands** (`set_*`, [`observed`](Self::observed), [`connected`](Self::connected),
///   [`disconnected`](Self::disconnected), [`sent`](Self::sent), [`restart`](Self::restart)): input
///   from this node;
/// - **`poll_*`**: output.
///
/// **The drain rule**: after every `handle_*` or command, call [`poll_event`](Self::poll_event),
/// [`poll_message`](Self::poll_message) and [`poll_probe`](Self::poll_probe) until each returns
/// `None`, then sleep until [`poll_timeout`](Self::poll_timeout) or the next input. `now` never
/// decreases from one call to the next.
#[derive(Debug)]
pub struct Puncher {
    config: Config,
    now: Instant,
    own: Own,
    /// When changed candidates are announced to peers.
    tell_at: Option<Instant>,
    sessions: BTreeMap<NodeId, Session>,
    agenda: Agenda,
    random: Random,
    out: Output,
    /// When the next probe of a candidate may go.
    check_at: Instant,
    /// When the next probe of a path may go.
    watch_at: Instant,
}

impl Puncher {
    /// The most peers at once. For more, [`connected`](Self::connected) does nothing: their packets
    /// are relayed.
    pub const MAX_PEERS: usize = 1_024;

    /// A puncher without peers.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            now,
            own: Own::default(),
            tell_at: None,
            sessions: BTreeMap::new(),
            agenda: Agenda::default(),
            random: Random::new(config.seed),
            out: Output::default(),
            check_at: now,
            watch_at: now,
            config,
        }
    }

    // Commands.

    /// Sets the addresses of all interfaces of this node, with the port of the node's socket. A
    /// change starts new rounds after [`Timers::debounce`]. Paths whose local address is gone are
    /// probed at once, and packets are relayed until one answers. With an empty list the interfaces
    /// count as unknown, and candidates of either IP version are probed.
    pub fn set_host(&mut self, addresses: Vec<HostAddress>, now: Instant) {
        let mut gone: Vec<_> = self.own.host().iter().map(|host| host.addr.ip()).collect();
        let changed = self.own.set_host(addresses);
        self.candidates_changed(changed, now);
        gone.retain(|ip| !self.own.has_local(*ip));
        if !gone.is_empty() {
            self.with_all(now, |session, context| session.interfaces_changed(&gone, context));
        }
    }

    /// The addresses that the operator configured, all of them.
    pub fn set_external(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        let changed = self.own.set_external(addresses);
        self.candidates_changed(changed, now);
    }

    /// The port mappings that hold, all of them.
    pub fn set_mapped(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        let changed = self.own.set_mapped(addresses);
        self.candidates_changed(changed, now);
    }

    /// Sets the address that a neighbour observes; `None` if the neighbour is gone. A false report
    /// adds one candidate, and a change does not disturb pairs that have a path.
    pub fn observed(&mut self, neighbour: &NodeId, at: Option<SocketAddr>, now: Instant) {
        let changed = self.own.set_observed(neighbour, at);
        self.candidates_changed(changed, now);
    }

    /// A peer connection is up. One that was up before with this peer is forgotten, and its paths
    /// with it. Nothing is tried before packets flow, see [`sent`](Self::sent).
    pub fn connected(&mut self, peer: &NodeId, role: Role, now: Instant) {
        self.disconnected(peer, now);
        if self.sessions.len() >= Self::MAX_PEERS || *peer == self.config.me {
            self.out.counters.peers_refused += 1;
            return;
        }
        let (sessions, mut context) = self.parts(peer, now);
        let session = Session::new(role, &mut context);
        sessions.insert(peer.clone(), session);
    }

    /// The peer connection is gone: so are its paths.
    pub fn disconnected(&mut self, peer: &NodeId, now: Instant) {
        self.now = self.now.max(now);
        let Some(session) = self.sessions.remove(peer) else { return };
        for port in session.ports() {
            self.out.events.push_back(Event::ClosePort { port });
        }
        if session.path().is_some() {
            self.out.counters.paths_changed += 1;
            self.out.events.push_back(Event::Path { peer: peer.clone(), path: None });
        }
        self.plan(peer, Dues::default());
    }

    /// The network has changed, or the machine slept: probes all paths at once, and starts rounds
    /// where there was a path or packets flow.
    pub fn restart(&mut self, now: Instant) {
        self.with_all(now, Session::restart);
    }

    /// The network reports that packets to some addresses do not arrive. Such reports can be
    /// forged: the paths there are probed at once, and left if they do not answer within a fraction
    /// of a second.
    pub fn unreachable(&mut self, is_reported: impl Fn(SocketAddr) -> bool, now: Instant) {
        let concerned =
            self.sessions.iter().filter(|(_, session)| session.has_path_to(&is_reported));
        let peers: Vec<_> = concerned.map(|(peer, _)| peer.clone()).collect();
        for peer in peers {
            self.with(&peer, now, |session, context| session.reported(&is_reported, context.now));
        }
    }

    /// Packets of the peer connection were sent to the peer, on any path, since the last call. Call
    /// it at once when they start, and about once a second while they flow: without it there are no
    /// rounds.
    pub fn sent(&mut self, peer: &NodeId, now: Instant) {
        self.with(peer, now, Session::sent);
    }

    /// The ports requested by [`Event::OpenPorts`] are open: those that the system granted,
    /// possibly none. Each is closed by an [`Event::ClosePort`] later.
    pub fn ports_opened(&mut self, peer: &NodeId, ports: Vec<u16>, now: Instant) {
        let refused = ports.clone();
        if self.with(peer, now, |session, context| session.ports_opened(ports, context)).is_none() {
            self.out.events.extend(refused.into_iter().map(|port| Event::ClosePort { port }));
        }
    }

    // What happened.

    /// Takes a message of a peer.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn handle_message(
        &mut self,
        peer: &NodeId,
        message: Message,
        now: Instant,
    ) -> Result<(), MessageError> {
        if let Message::Offer(offer) = &message
            && self.sessions.contains_key(peer)
            && self.agenda.peer_of(offer.round).is_some_and(|owner| owner != peer)
        {
            return Err(MessageError::RoundInUse);
        }
        let taken =
            self.with(peer, now, |session, context| session.handle_message(message, context));
        taken.ok_or(MessageError::NoSession)??;
        self.out.counters.messages_received += 1;
        Ok(())
    }

    /// Takes a datagram whose first byte is [`Probe::TYPE`].
    ///
    /// # Errors
    /// It changed nothing, see [`ProbeError`]; counted already.
    pub fn handle_probe(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), ProbeError> {
        let taken = self.take_probe(arrival.canonical(), datagram, now);
        if let Err(error) = taken {
            self.out.counters.refused(error);
        }
        taken
    }

    fn take_probe(
        &mut self,
        arrival: Arrival,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), ProbeError> {
        let content = Content::parse(datagram)?;
        if !is_unicast(arrival.from) {
            return Err(ProbeError::Malformed);
        }
        let peer = self.agenda.peer_of(content.round).ok_or(ProbeError::UnknownRound)?.clone();
        let taken = self.with(&peer, now, |session, context| {
            session.handle_probe(content, datagram, arrival, context)
        });
        taken.ok_or(ProbeError::UnknownRound)?
    }

    /// Handles due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.tell_at.take_if(|at| *at <= now).is_some() {
            self.own.refresh();
            self.with_all(now, Session::candidates_changed);
        }
        // Each peer once: a timer that is due again at once is handled by the next call.
        for peer in self.agenda.timers_until(now) {
            self.with(&peer, now, |_, _| ());
        }
        if let Some(peer) = self.agenda.next_watch(now).filter(|_| self.watch_at <= now) {
            self.watch_at = now + WATCH_PACE;
            self.with(&peer, now, Session::send_watch);
        }
        if let Some(peer) = self.agenda.next_check(now).filter(|_| self.check_at <= now) {
            self.check_at = now + self.config.timers.pace;
            self.with(&peer, now, Session::send_check);
        }
    }

    // Output.

    /// When [`handle_timeout`](Self::handle_timeout) is due, and why; `None` if no timer is set.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let output = (!self.out.is_empty()).then_some((self.now, DeadlineReason::Output));
        let tell = self.tell_at.map(|at| (at, DeadlineReason::Candidates));
        let watch =
            self.agenda.first_watch().map(|at| (at.max(self.watch_at), DeadlineReason::Probe));
        let check =
            self.agenda.first_check().map(|at| (at.max(self.check_at), DeadlineReason::Probe));
        let timer = self.agenda.first_timer().map(|at| (at, DeadlineReason::Peer));
        let first = [output, tell, watch, check, timer].into_iter().flatten().min();
        first.map(|(at, reason)| Deadline { at, reason })
    }

    /// The next message, and the peer that it is for.
    #[must_use]
    pub fn poll_message(&mut self) -> Option<(NodeId, Message)> {
        self.out.messages.pop_front()
    }

    /// The next probe or answer to send.
    #[must_use]
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.out.next_probe()
    }

    /// The next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    // Getters.

    /// This node.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.config.me
    }

    /// The rounds whose probes are accepted, for a cheap check at the socket; at most three per
    /// peer. [`Event::RoundsChanged`] announces changes.
    pub fn rounds(&self) -> impl Iterator<Item = u64> {
        self.agenda.rounds()
    }

    /// The cookie that the peer's packets to this node must carry on a direct path; `None` if the
    /// peer is not connected. Drawn in [`connected`](Self::connected), and constant until
    /// [`disconnected`](Self::disconnected).
    #[must_use]
    pub fn cookie(&self, peer: &NodeId) -> Option<PathCookie> {
        self.sessions.get(peer).map(|session| session.cookie)
    }

    /// The path in use to a peer with its latest round-trip time; `None` if packets are relayed.
    #[must_use]
    pub fn path(&self, peer: &NodeId) -> Option<Path> {
        self.sessions.get(peer)?.path()
    }

    /// When packets to the peer last changed their path; `None` if the peer is not connected.
    #[must_use]
    pub fn since(&self, peer: &NodeId) -> Option<Instant> {
        Some(self.sessions.get(peer)?.since())
    }

    /// Why packets to the peer are direct or relayed; `None` if the peer is not connected.
    #[must_use]
    pub fn explain(&self, peer: &NodeId) -> Option<Explanation> {
        Some(self.sessions.get(peer)?.explain(&self.own, self.now, &self.config.timers))
    }

    /// This node's NAT: that of IPv4, or that of IPv6 where no neighbour sees the node at an IPv4
    /// address. A change of what neighbours see is in it after [`Timers::debounce`].
    #[must_use]
    pub fn class(&self) -> NatClass {
        self.own.class()
    }

    /// This node's candidates as announced to peers, best first.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        self.own.candidates()
    }

    /// What was done since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.out.counters
    }

    fn candidates_changed(&mut self, changed: bool, now: Instant) {
        self.now = self.now.max(now);
        if changed {
            self.tell_at.get_or_insert(now + self.config.timers.debounce);
        }
    }

    /// Gives a session something, lets it do what follows, and notes what it waits for then.
    fn with<R>(
        &mut self,
        peer: &NodeId,
        now: Instant,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> R,
    ) -> Option<R> {
        self.now = self.now.max(now);
        let (sessions, mut context) = self.parts(peer, now);
        let session = sessions.get_mut(peer)?;
        let result = act(session, &mut context);
        session.step(&mut context);
        let dues = session.dues(now, context.timers);
        self.plan(peer, dues);
        Some(result)
    }

    /// The sessions, and what the one with `peer` sees of the rest.
    fn parts<'a>(
        &'a mut self,
        peer: &'a NodeId,
        now: Instant,
    ) -> (&'a mut BTreeMap<NodeId, Session>, Context<'a>) {
        let context = Context {
            now,
            peer,
            timers: &self.config.timers,
            own: &mut self.own,
            random: &mut self.random,
            out: &mut self.out,
        };
        (&mut self.sessions, context)
    }

    fn with_all(&mut self, now: Instant, act: impl Fn(&mut Session, &mut Context<'_>)) {
        let peers: Vec<_> = self.sessions.keys().cloned().collect();
        for peer in peers {
            self.with(&peer, now, &act);
        }
    }

    fn plan(&mut self, peer: &NodeId, dues: Dues) {
        if self.agenda.set(peer, dues) && !self.out.events.contains(&Event::RoundsChanged) {
            self.out.events.push_back(Event::RoundsChanged);
        }
    }
}
