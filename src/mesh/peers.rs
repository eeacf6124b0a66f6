//! Connections to nodes that are not neighbours, through the switch: opened on demand, kept for a
//! while, bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::Side;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, debug_span};

use super::clock;
use super::input::{Input, PeerAnswers};
use super::report::explanation::StreamUse;
use super::services::Services;
use super::services::connection::Connection;
use super::services::ending::Cause;
use super::services::patience::{Absence, bounded};
use super::services::usage::{Lease, StreamLease, Usage};
use crate::id::{NodeAddr, NodeId};
use crate::mesh::links::trust::vetting::Vetting;
use crate::mesh::services::datagrams::datagram::{POKE, UNHEARD};
use crate::mesh::services::opening::accept::accept_streams;
use crate::mesh::services::opening::open::OpenError;
use crate::sync::lock;
use crate::transport::code::CloseCode;
use crate::transport::endpoint::{Authenticated, Connecting as Handshake, Endpoint};
use crate::transport::handshake::certified_names;
use crate::transport::settings::PEER_DEAD_AFTER;
use crate::transport::tls;
use crate::transport::{Refusal, Sighting, overlay};

pub(crate) mod black_holes;
mod close;
mod connecting;
pub(crate) mod detours;
pub(crate) mod doubt;
pub(crate) mod path_input;
pub(crate) mod path_messages;
pub(crate) mod paths;
mod room;
mod silence;
mod slot;
mod unanswered;
mod watch;

use room::{Room, room};
use silence::Silence;
use slot::{Kept, Slot};
use unanswered::{Answers, Hops, Said, Unanswered};
pub(super) use watch::Watch;

/// Maximum number of peers with a connection at a time. Ephemerals that share a certificate get
/// three quarters of them, and fewer when others need some.
pub const MAX_PEERS: usize = 1_024;
/// The maximum number of connections with one peer: two if both open at once, more while it
/// restarts.
pub(super) const MAX_CONNECTIONS_OF_ONE: usize = 4;
/// How long a peer may take to answer, if the patience with peers is not shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer a caller waits for an attempt to connect than the attempt takes at most.
const ATTEMPT_GRACE: Duration = Duration::from_millis(50);
/// How long a handshake may go without an end before the peer counts as silent, and again after
/// each such time. Two packets were sent by then, and a peer behind two satellite hops has
/// answered.
const HANDSHAKE_SILENCE: Duration = Duration::from_millis(600);
/// How often the packets of a handshake are sent again.
const REPEAT_HANDSHAKE: Duration = Duration::from_millis(150);
/// Attempts at one connection, one more after each [`HANDSHAKE_SILENCE`]; the first to come through
/// is used (as in RFC 8305). Each has a congestion window and timers of its own: those of an older
/// one are spent on packets that were lost.
const MAX_ATTEMPTS: u32 = 4;
/// How long a connection is young: the handshake may have taken another path than the one that this
/// end's packets take.
const YOUNG: Duration = Duration::from_secs(5);
/// How long after its handshake an acceptor believes the first complaint at once if it comes
/// another way: the initiator sends it as soon as its handshake is answered late. Later ones may be
/// about a lost packet where the two directions take different paths anyway.
const HANDSHAKE_HEARD: Duration = Duration::from_secs(1);
/// How recent a packet of the peer must be to say which neighbour its packets come through.
const RECENT: Duration = Duration::from_secs(1);
/// The time between two sweeps: a peer connection without streams is closed after a minute.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);

/// The peer connections by node; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    endpoint: Arc<Endpoint>,
    services: Services,
    vetting: Vetting,
    slots: Arc<Mutex<BTreeMap<NodeId, Arc<Slot>>>>,
    /// The runtime that drives the node. A caller's may be another one, and end sooner.
    runtime: Handle,
    /// Set once the node is closed: what connects later is closed at once.
    shut: Arc<AtomicBool>,
    /// Where connections are reported for direct paths; `None` if those are disabled.
    inputs: Option<mpsc::Sender<Input>>,
    /// Receives reports of peers that do not answer.
    answers: mpsc::Sender<Input>,
    /// How long streams wait for an unreachable peer, unless they say otherwise.
    patience: Duration,
    /// Notified of each new place, so that the watch need not poll for the first one.
    arrivals: Arc<Notify>,
}

/// What a sweep over all connections found.
#[derive(Debug, Default)]
struct Samples {
    /// The peers in use that nothing was heard from for a while.
    silent: Vec<NodeId>,
    /// The peers whose packets stopped or resumed to get answers.
    answers: Vec<(NodeId, PeerAnswers)>,
    /// Whether the answers of a peer are overdue.
    doubted: bool,
}

/// A peer connection, as status shows it.
#[derive(Debug)]
pub(crate) struct PeerView {
    pub(crate) node: NodeId,
    pub(crate) rtt: Duration,
    pub(crate) streams: usize,
    /// Opens that wait.
    pub(crate) waiting: usize,
}

/// An attempt under way. Dropped, with its task for instance, it ends for all who wait for it.
struct Attempt<'a> {
    slot: &'a Slot,
    outcome: Option<Result<Arc<Connection>, OpenError>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.slot.connecting.finish(outcome);
        }
    }
}

impl Peers {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        services: Services,
        vetting: Vetting,
        inputs: Option<mpsc::Sender<Input>>,
        answers: mpsc::Sender<Input>,
        patience: Duration,
    ) -> Self {
        let runtime = Handle::current();
        let (slots, shut, arrivals) = (Arc::default(), Arc::default(), Arc::default());
        Self {
            endpoint,
            services,
            vetting,
            slots,
            runtime,
            shut,
            inputs,
            answers,
            patience,
            arrivals,
        }
    }

    /// The connection to `node`, made now if there is none, and a lease that keeps it.
    ///
    /// `peer_timeout` is how long the node may take to answer, [`CONNECT_TIMEOUT`] at most.
    ///
    /// Cancel safe: the attempt runs on a task of its own and goes on without its callers, so that
    /// the next one finds it further, or done. At most one per peer, for at most
    /// [`CONNECT_TIMEOUT`]; all who wait for it share its failure.
    pub(crate) async fn connection(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Result<(Arc<Connection>, Arc<Usage>, Lease), OpenError> {
        let (slot, lease) = self.slot(node)?;
        let found = |connection| (connection, slot.usage.clone(), lease.clone());
        if let Some(connection) = slot.live() {
            return Ok(found(connection));
        }
        let usual = CONNECT_TIMEOUT.min(self.patience);
        let limit = CONNECT_TIMEOUT.min(peer_timeout.map_or(self.patience, bounded));
        let connecting = async {
            loop {
                let mut ticket = slot.connecting.join();
                let first = ticket.first;
                if first {
                    // Others who join the attempt have the usual time.
                    self.begin_connecting(node, &slot, &lease, limit.max(usual));
                }
                // A connection that has ended already is returned as well: opening a stream on it
                // fails with the reason.
                match ticket.wait(|| slot.live()).await.unwrap_or(Err(OpenError::ShutDown)) {
                    // The attempt of a caller who waits for less time.
                    Err(OpenError::Unreachable { .. }) if !first && limit > usual => {}
                    outcome => return outcome,
                }
            }
        };
        // An attempt of this caller ends by itself a moment before.
        let waited = tokio::time::timeout(limit + ATTEMPT_GRACE, connecting).await;
        waited.unwrap_or_else(|_| Err(no_answer(node, limit))).map(found)
    }

    /// Tries to connect, on a task of its own.
    fn begin_connecting(&self, node: &NodeId, slot: &Arc<Slot>, lease: &Lease, limit: Duration) {
        let (peers, node, slot, lease) = (self.clone(), node.clone(), slot.clone(), lease.clone());
        self.runtime.spawn(async move {
            let mut attempt = Attempt { slot: &slot, outcome: Some(Err(OpenError::ShutDown)) };
            let connected = peers.connect(&node, limit).await;
            attempt.outcome =
                Some(connected.and_then(|connection| peers.adopt(&node, &slot, &connection)));
            drop((attempt, lease));
        });
    }

    /// The connection to `node` if there is one, and a place for a stream with this peer timeout on
    /// it, if one is free.
    pub(crate) fn ready(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Option<(Arc<Connection>, StreamLease)> {
        let slots = lock(&self.slots);
        let slot = slots.get(node)?;
        let connection = slot.live()?;
        slot.idle_sweeps.store(0, Ordering::Relaxed);
        Some((connection, slot.usage.try_open()?.waiting_for(slot.usage.patience(peer_timeout))))
    }

    async fn report(&self, node: &NodeId, answers: PeerAnswers) {
        // If this fails, the node is shut down.
        let _ = self.answers.send(Input::PeerAnswers { peer: node.clone(), answers }).await;
    }

    /// Connects to a peer within `limit`. Handshakes that get no answer are reported, so that their
    /// packets take another way, and joined by a further attempt.
    async fn connect(&self, node: &NodeId, limit: Duration) -> Result<Authenticated, OpenError> {
        let unreachable = |why: String| OpenError::Unreachable { node: node.clone(), why };
        let usual = self.endpoint.socket().first_hop(node.addr());
        let mut attempts = JoinSet::new();
        let begin = tokio::time::Instant::now();
        for nth in 0.. {
            if nth < MAX_ATTEMPTS {
                self.attempt(node, nth, &mut attempts)
                    .map_err(|error| unreachable(error.to_string()))?;
            }
            let until = HANDSHAKE_SILENCE.saturating_mul(nth + 1).min(limit);
            match self.outcome(node, &mut attempts, begin + until).await {
                Some(Ok(Ok(connection))) => {
                    if nth > 0 {
                        self.report_late(node, usual, &connection, begin.elapsed()).await;
                    }
                    return Ok(connection);
                }
                Some(Ok(Err((error, sighting)))) => {
                    return Err(match Refusal::from_connection_error(&error) {
                        Some(why) => {
                            let why = why
                                .naming(&self.endpoint.identity())
                                .presenting(sighting.presented());
                            OpenError::NotTrusted { node: node.clone(), why }
                        }
                        None => OpenError::lost(node, Cause::of(&error)),
                    });
                }
                Some(Err(ended)) => return Err(unreachable(ended.to_string())),
                None if until >= limit => break,
                None => self.report(node, PeerAnswers::Silent { through: None }).await,
            }
        }
        Err(no_answer(node, limit))
    }

    /// The outcome of the attempts, or `None` at the deadline. Until then the packets of a
    /// handshake are sent again: QUIC repeats them after 0.3 s, and one lost twice is not a silent
    /// path.
    async fn outcome(
        &self,
        node: &NodeId,
        attempts: &mut JoinSet<Attempted>,
        deadline: tokio::time::Instant,
    ) -> Option<Result<Attempted, tokio::task::JoinError>> {
        loop {
            let now = tokio::time::Instant::now();
            let next = deadline.min(now + REPEAT_HANDSHAKE);
            match first_to_succeed(attempts, next).await {
                None if next < deadline => {
                    let socket = self.endpoint.socket();
                    if socket.heard_through(node.addr()).is_none() {
                        socket.repeat(node.addr());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Begins the `nth` attempt to connect.
    fn attempt(
        &self,
        node: &NodeId,
        nth: u32,
        attempts: &mut JoinSet<Attempted>,
    ) -> Result<(), quinn::ConnectError> {
        attempts.spawn(finish(self.endpoint.connect_peer(node)?));
        if nth == 1 && self.endpoint.socket().is_attached_stub() {
            attempts.spawn(finish(self.endpoint.connect_peer_by_routes(node)?));
        }
        Ok(())
    }

    /// A handshake came through that had got no answer at first.
    ///
    /// The peer's handshake packets returned the way they came, but its other packets take the
    /// usual path. Where that is not the one that works, the peer has to know before this end's
    /// congestion window is full.
    async fn report_late(
        &self,
        node: &NodeId,
        usual: Option<NodeAddr>,
        connection: &Authenticated,
        took: Duration,
    ) {
        let through = self.endpoint.socket().handshake_through(node.addr());
        let answers = PeerAnswers::Resumed { through };
        if through.is_some() && through != usual {
            // Without room for it, later complaints follow.
            let _ = connection.send_datagram(Bytes::from_static(UNHEARD));
        }
        if through.is_none() || through != usual {
            self.report(node, answers).await;
            return;
        }
        // The usual hop was only slow. The end of this handshake goes by another one, though, and
        // the peer discards packets that overtake it: they wait for a probe timeout then.
        let (sender, input) =
            (self.answers.clone(), Input::PeerAnswers { peer: node.clone(), answers });
        tokio::spawn(async move {
            tokio::time::sleep(took).await;
            // If this fails, the node is shut down.
            let _ = sender.send(input).await;
        });
    }

    /// Takes a connection that a peer has opened; its address says which of its certified names it
    /// uses.
    pub(crate) fn accepted(&self, connection: &Authenticated) {
        let Some(addr) = overlay::node_addr(connection.remote_address()) else { return };
        let suffix = tls::peer_suffix(connection);
        let whole = |name: NodeId| match &suffix {
            Some(suffix) => name.with_suffix(suffix).ok(),
            None => Some(name),
        };
        let mut names = certified_names(connection).into_iter().filter_map(whole);
        let Some(node) = names.find(|name| name.addr() == addr) else {
            connection.close(
                CloseCode::WrongName.to_quic(),
                b"no id in the certificate has the source address",
            );
            return;
        };
        match self.slot(&node) {
            // What is not trusted any more has been closed.
            Ok((slot, _lease)) => drop(self.adopt(&node, &slot, connection)),
            Err(_) => {
                connection.close(CloseCode::Overloaded.to_quic(), b"too many peer connections")
            }
        }
    }

    /// Serves what the peer opens on the connection, and keeps the connection for streams the other
    /// way.
    ///
    /// The handshake was judged by the trust of its time; where that has changed since, the
    /// connection may be refused.
    fn adopt(
        &self,
        node: &NodeId,
        slot: &Arc<Slot>,
        authenticated: &Authenticated,
    ) -> Result<Arc<Connection>, OpenError> {
        let not_trusted = |why| OpenError::NotTrusted { node: node.clone(), why };
        let vetted = self.vetting.admit(authenticated, node).map_err(not_trusted)?;
        let connection = &Arc::new(vetted.connection().clone());
        {
            let mut connections = lock(&slot.connections);
            connections.retain(Kept::is_live);
            if connections.len() >= MAX_CONNECTIONS_OF_ONE {
                connections
                    .remove(0)
                    .connection
                    .close(CloseCode::Replaced, "too many connections with one peer");
            }
            let now = clock::now();
            connections.push(Kept {
                connection: connection.clone(),
                since: now,
                silence: Silence::new(now),
                unanswered: Unanswered::default(),
                steering: connection.steering(),
                went_to: None,
            });
            vetted.carry_on_streams();
            // Under the lock, so that `shut` misses none.
            if self.shut.load(Ordering::Relaxed) {
                connection.close(CloseCode::Leaving, "leaving");
            }
        }
        slot.connecting.arrived();
        self.endpoint.socket().take_handshake(node.addr());
        let span = debug_span!("peer", %node);
        debug!(parent: &span, "connected");
        let datagrams = self.services.datagrams.clone();
        let (receiving, from, usage) =
            (Connection::clone(connection), node.clone(), slot.usage.clone());
        let access = vetted.access().clone();
        self.runtime.spawn(async move { datagrams.serve(receiving, from, usage, access).await });
        let endpoint = self.endpoint.clone();
        let adopted = connection.clone();
        let (services, node, slot, connection, inputs) = (
            self.services.clone(),
            node.clone(),
            slot.clone(),
            Connection::clone(connection),
            self.inputs.clone(),
        );
        let serve = async move {
            let why = tokio::select! {
                why = accept_streams(&connection, &node, &services, &slot.usage, vetted.access()) => why,
                never = path_messages::serve(&connection, &node, inputs.as_ref()) => match never {},
            };
            path_messages::ended(&connection, &node, inputs.as_ref()).await;
            // Until here the trust in the peer was watched.
            drop(vetted);
            debug!(%why, "disconnected");
            let mut connections = lock(&slot.connections);
            connections.retain(|kept| kept.connection.stable_id() != connection.stable_id());
            if connections.is_empty() {
                endpoint.socket().forget_last(node.addr());
            }
        };
        self.runtime.spawn(serve.instrument(span));
        Ok(adopted)
    }

    /// Waits until it is time to sample the connections again. Cancel safe.
    async fn next_sample(&self, pace: Duration, idle: Duration) {
        if lock(&self.slots).is_empty() {
            let _ = tokio::time::timeout(idle, self.arrivals.notified()).await;
        } else {
            tokio::time::sleep(pace).await;
        }
    }

    /// Samples all connections, and closes unused ones with peers that have been silent for too
    /// long. A peer in use is reported as silent `ahead` of the time that somebody without a route
    /// to it would give it up.
    fn sample(&self, ahead: Duration, now: Instant) -> Samples {
        let mut samples = Samples::default();
        for (node, slot) in lock(&self.slots).iter() {
            let (mut last_heard, mut answers) = (None, None);
            let unheard_there = slot.usage.take_unheard();
            // A handshake that the client repeats although this end is done with it is a complaint
            // as well. A client sees such packets of its other attempts.
            let handshake = self.endpoint.socket().take_handshake(node.addr());
            let elsewhere = || self.heard_elsewhere(node);
            let hops = self.hops(node);
            // Every connection is sampled, so that its counts are there when they matter.
            for kept in lock(&slot.connections).iter_mut().filter(|kept| kept.is_live()) {
                let stats = kept.connection.stats();
                kept.follow_path(hops.used);
                let unheard = kept.silence.sample(stats.udp_rx.datagrams, now);
                let age = now.saturating_duration_since(kept.since);
                let young = age < YOUNG;
                let fresh = age < HANDSHAKE_HEARD && kept.connection.side() == Side::Server;
                let said = if unheard_there && fresh && elsewhere().is_some() {
                    Said::Conclusive
                } else if unheard_there {
                    Said::Complaint
                } else if handshake && kept.connection.side() == Side::Server {
                    Said::Handshake
                } else {
                    Said::Nothing
                };
                kept.unanswered.set_young(young);
                let answered = kept.unanswered.sample(&stats, said, hops, now);
                samples.doubted |= kept.unanswered.is_doubted();
                match answered {
                    Answers::Complain => kept.signal(UNHEARD),
                    Answers::Poke => {
                        kept.signal(POKE);
                        self.endpoint.socket().repeat(node.addr());
                    }
                    Answers::TryOthers => self.endpoint.socket().try_other_hops(node.addr()),
                    _ => {}
                }
                last_heard = Some(last_heard.map_or(unheard, |least: Duration| least.min(unheard)));
                // The oldest one is in use. Where it belongs to a process that is gone, a younger
                // one is heard.
                answers.get_or_insert((answered, unheard));
            }
            let Some(last_heard) = last_heard else { continue };
            match answers {
                Some((Answers::Follow(through), _)) => {
                    let through = Some(through);
                    samples.answers.push((node.clone(), PeerAnswers::Silent { through }));
                }
                Some((Answers::Silent, unheard)) if unheard <= last_heard => {
                    let through = if last_heard < RECENT { elsewhere() } else { None };
                    samples.answers.push((node.clone(), PeerAnswers::Silent { through }));
                }
                Some((Answers::Resumed, _)) => {
                    samples.answers.push((node.clone(), PeerAnswers::Resumed { through: None }));
                }
                _ => {}
            }
            // The peer is there, so what is silent belongs to a process or path that is not.
            if last_heard < PEER_DEAD_AFTER {
                slot.close_stale(PEER_DEAD_AFTER.max(self.patience), now);
            }
            if last_heard >= PEER_DEAD_AFTER && !slot.usage.in_use() {
                slot.give_up(Absence { unheard: last_heard, unreachable: None }, |silence| {
                    Absence { unheard: silence.unheard(now), unreachable: None }
                });
            }
            if slot.is_silent(last_heard, ahead) {
                samples.silent.push(node.clone());
            }
        }
        samples
    }

    /// The neighbour that a peer's last packet came through, if this end's packets for the peer go
    /// to another one.
    fn heard_elsewhere(&self, node: &NodeId) -> Option<NodeAddr> {
        let socket = self.endpoint.socket();
        let through = socket.heard_through(node.addr())?;
        (socket.sends_through(node.addr()) != Some(through)).then_some(through)
    }

    /// The neighbours that the packets of a peer come through, and those for it go to.
    fn hops(&self, node: &NodeId) -> Hops {
        let socket = self.endpoint.socket();
        Hops { heard: socket.heard_through(node.addr()), used: socket.sends_through(node.addr()) }
    }

    /// Whether there is a connection to a node, or an attempt at one.
    pub(super) fn is_connected(&self, node: &NodeId) -> bool {
        lock(&self.slots).contains_key(node)
    }

    /// Ends the streams and connections with a peer that has been absent for longer than they wait;
    /// returns why connections were closed, if any were.
    fn give_up(&self, node: &NodeId, routed: bool, now: Instant) -> Option<&'static str> {
        let slot = lock(&self.slots).get(node).cloned()?;
        let absence = |silence: &mut Silence| silence.absence(routed, now);
        // The peer is there if any of its connections says so.
        let least = lock(&slot.connections)
            .iter_mut()
            .filter(|kept| kept.is_live())
            .map(|kept| absence(&mut kept.silence))
            .min_by_key(|absence| absence.unheard)?;
        slot.give_up(least, absence)
    }

    /// Every peer with a live connection.
    pub(crate) fn views(&self) -> Vec<PeerView> {
        let view = |(node, slot): (&NodeId, &Arc<Slot>)| {
            let connection = slot.live()?;
            Some(PeerView {
                node: node.clone(),
                rtt: connection.rtt(),
                streams: slot.usage.streams(),
                waiting: slot.usage.waiting(),
            })
        };
        lock(&self.slots).iter().filter_map(view).collect()
    }

    /// The streams between this node and another, if there is a connection.
    pub(super) fn streams(&self, node: &NodeId) -> Option<StreamUse> {
        let slots = lock(&self.slots);
        let slot = slots.get(node)?;
        slot.live().map(|_| StreamUse::of(&slot.usage))
    }

    /// The peer's place, with a lease so that it is not given to another one meanwhile.
    fn slot(&self, node: &NodeId) -> Result<(Arc<Slot>, Lease), OpenError> {
        let mut slots = lock(&self.slots);
        let place = match slots.contains_key(node) {
            true => Room::Free,
            false => {
                room(slots.iter().map(|(node, slot)| (node, slot.usage.in_use())), node, MAX_PEERS)
            }
        };
        if place == Room::None {
            return Err(OpenError::TooManyPeers { max: MAX_PEERS });
        }
        if let Room::Of(unused) = place
            && let Some(slot) = slots.remove(&unused)
        {
            for Kept { connection, .. } in lock(&slot.connections).drain(..) {
                connection.close(CloseCode::Idle, "idle, and its place is needed");
            }
            self.endpoint.socket().untrack(unused.addr());
        }
        let slot = slots.entry(node.clone()).or_insert_with(|| {
            self.arrivals.notify_one();
            self.endpoint.socket().track(node.addr());
            Arc::new(Slot::new(self.patience))
        });
        slot.idle_sweeps.store(0, Ordering::Relaxed);
        Ok((slot.clone(), slot.usage.lease()))
    }
}

/// What an attempt to connect came to; of a failed one with the certificate that this node refused.
type Attempted = Result<Authenticated, (quinn::ConnectionError, Sighting)>;

async fn finish(handshake: Handshake) -> Attempted {
    let sighting = handshake.sighting();
    handshake.await.map_err(|error| (error, sighting))
}

/// The first attempt that succeeds, or the failure of the last one; `None` at the deadline. A peer
/// that refuses decides for all of them.
async fn first_to_succeed(
    attempts: &mut JoinSet<Attempted>,
    deadline: tokio::time::Instant,
) -> Option<Result<Attempted, tokio::task::JoinError>> {
    loop {
        let outcome = tokio::time::timeout_at(deadline, attempts.join_next()).await.ok()??;
        let lost = matches!(&outcome, Ok(Err((error, _))) if Refusal::from_connection_error(error).is_none());
        if !lost || attempts.is_empty() {
            return Some(outcome);
        }
    }
}

fn no_answer(node: &NodeId, limit: Duration) -> OpenError {
    OpenError::Unreachable { node: node.clone(), why: format!("no answer within {limit:?}") }
}
