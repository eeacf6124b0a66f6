//! The driver's part in direct paths: the inputs of the puncher, and what is done with its outputs.
//!
//! ```text
//!   peer connections up, down ─┐                ┌─▶ switch: where a peer's packets go, and what is let in
//!   messages of peers ─────────┤   ┌─────────┐  ├─▶ messages, over the peer connection
//!   probes ────────────────────┼──▶│ Puncher │──┼─▶ probes, from the one UDP socket
//!   addresses of all kinds ────┤   └─────────┘  └─▶ events, log
//!   time ──────────────────────┘
//! ```
//!
//! A **session** with a peer begins with its first connection and ends with its last. Of the two
//! ends the one with the smaller id offers, as with links the one with the smaller id leads: two
//! peers may open connections to each other at the same time, and must agree.
//!
//! The peer at the other end of a path may be another process by now, or have closed its last
//! connection without this end having noticed; then it drops what comes by the path. So handshakes
//! go by relays, and a new connection restarts the session, except for two that are opened at the
//! same time.

mod drive;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::path_input::PathInput;
use crate::id::NodeId;
use crate::mesh::input::UnreachableAddrs;
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::network::interfaces::addresses::LocalNetwork;
use crate::mesh::report::status::{PairStatus, PathsStatus, PortMappingStatus};
use crate::mesh::services::connection::Connection;
use crate::punch::{
    self, Arrival, HostAddress, Message, MessageError, NatClass, Outcome, Probe, Puncher, Role,
};
use crate::switch::{Cookie, ForwardingTable, NextHop};
use crate::transport::code::CloseCode;
use crate::transport::probes::{Probes, ReceivedProbe};
use crate::transport::{mapped, random};

// The socket recognises probes by their first byte, and knows nothing else of them.
const _: () = assert!(Probes::TYPE == Probe::TYPE && Probes::LEN == Probe::LEN);

/// Sessions of one peer that may begin at once, and how soon another may after that. What a peer
/// may ask of this node is limited per session: a peer that reconnects repeatedly gets no more of
/// it, and stays relayed meanwhile.
const SESSION_BURST: u32 = 4;
const SESSION_EVERY: Duration = Duration::from_secs(10);
/// The maximum number of peers whose sessions are counted: those that connected last.
const MAX_COUNTED: NonZeroUsize = NonZeroUsize::new(1_024).expect("not zero");

/// Two connections whose handshakes end within this time were opened at the same time, one from
/// each end.
const SAME_TIME: Duration = Duration::from_secs(2);

/// How long before it is due a volley is prepared: more than the runtime's timers are late.
const LEAD: Duration = Duration::from_millis(3);

/// What the driver knows of direct paths.
#[derive(Debug)]
pub(crate) struct Paths {
    /// None: direct paths are off.
    puncher: Option<Puncher>,
    /// By peer; bounded as the peers are.
    sessions: BTreeMap<NodeId, Session>,
    /// How many sessions each peer has started recently.
    begun: LruCache<NodeId, Begun>,
    /// The addresses of this machine, and those of the node that were last advertised.
    network: watch::Receiver<Arc<LocalNetwork>>,
    host: Vec<HostAddress>,
    /// Whether the switch needs an update of cookies or paths.
    changed: bool,
    /// Whether a session was restarted since the puncher was last drained.
    anew: bool,
}

/// The connections with one peer, oldest first.
#[derive(Debug, Default)]
struct Session {
    connections: Vec<PeerConnection>,
    /// Frames of streams and datagrams, both ways, when last looked at.
    frames: u64,
    /// When the session is handed to the puncher, where that has to wait.
    begin_at: Option<Instant>,
}

/// Sessions of one peer, of which one is forgotten every [`SESSION_EVERY`].
#[derive(Clone, Copy, Debug)]
struct Begun {
    sessions: u32,
    since: Instant,
}

impl Begun {
    /// Counts one more session; or says when it may begin.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.sessions > 0 && now.saturating_duration_since(self.since) >= SESSION_EVERY {
            self.sessions -= 1;
            self.since += SESSION_EVERY;
        }
        if self.sessions >= SESSION_BURST {
            return Err(self.since + SESSION_EVERY);
        }
        if self.sessions == 0 {
            self.since = now;
        }
        self.sessions += 1;
        Ok(())
    }
}

#[derive(Debug)]
struct PeerConnection {
    connection: Connection,
    messages: mpsc::Sender<Message>,
    since: Instant,
}

impl Paths {
    /// Without any, for good.
    pub(crate) fn off() -> Self {
        let network = Interfaces::unknown().watch();
        Self {
            puncher: None,
            sessions: BTreeMap::new(),
            begun: LruCache::new(MAX_COUNTED),
            network,
            host: Vec::new(),
            changed: false,
            anew: false,
        }
    }

    /// None yet. `external` are the addresses that the operator configured. `real_time`: the
    /// network is not a virtual one.
    pub(crate) fn new(
        me: NodeId,
        network: watch::Receiver<Arc<LocalNetwork>>,
        external: Vec<SocketAddr>,
        real_time: bool,
        now: Instant,
    ) -> Self {
        let mut config = punch::Config::new(me, random::bytes());
        if real_time {
            config.timers.lead = LEAD;
        }
        let mut puncher = Puncher::new(config, now);
        puncher.set_external(external, now);
        Self { puncher: Some(puncher), network, ..Self::off() }
    }

    /// The machine that finds and keeps them, unless they are off.
    pub(crate) fn puncher(&self) -> Option<&Puncher> {
        self.puncher.as_ref()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.puncher.as_ref()?.poll_timeout().map(|deadline| deadline.at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(puncher) = &mut self.puncher
            && puncher.poll_timeout().is_some_and(|deadline| deadline.at <= now)
        {
            puncher.handle_timeout(now);
        }
    }

    /// A neighbour observes this node at this address; `None` if it is no longer a neighbour.
    pub(crate) fn observed(&mut self, neighbour: &NodeId, at: Option<SocketAddr>, now: Instant) {
        if let Some(puncher) = &mut self.puncher {
            let at = at.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
            puncher.observed(neighbour, at, now);
        }
    }

    /// How it goes with the mapping of a port of the router.
    pub(crate) fn mapped(&mut self, mapping: &PortMappingStatus, now: Instant) {
        if let Some(puncher) = &mut self.puncher {
            let mapped = match mapping {
                PortMappingStatus::Mapped { external, .. } => vec![*external],
                _ => Vec::new(),
            };
            puncher.set_mapped(mapped, now);
        }
    }

    /// The peer is another process than before. The session with it begins with its next
    /// connection, if that is not there already.
    pub(crate) fn restarted(&mut self, peer: &NodeId, now: Instant) {
        let Some(session) = self.sessions.get(peer) else { return };
        let young = |kept: &PeerConnection| now.saturating_duration_since(kept.since) <= SAME_TIME;
        if let Some(puncher) =
            self.puncher.as_mut().filter(|_| !session.connections.iter().any(young))
        {
            puncher.disconnected(peer, now);
            self.changed = true;
        }
    }

    /// The network reports these addresses as unreachable.
    pub(crate) fn unreachable(&mut self, addrs: &UnreachableAddrs, now: Instant) {
        if let Some(puncher) = &mut self.puncher {
            puncher.unreachable(|addr| addrs.contains_key(&addr), now);
        }
    }

    /// The network under this machine is another one.
    fn network_changed(&mut self, now: Instant) {
        if let Some(puncher) = &mut self.puncher {
            puncher.restart(now);
        }
    }

    /// Tells the switch where packets go, and what lets them in.
    pub(crate) fn fill(&self, table: &mut ForwardingTable) {
        let Some(puncher) = &self.puncher else { return };
        for peer in self.sessions.keys() {
            if let Some(cookie) = puncher.cookie(peer) {
                table.admit_direct(Cookie(cookie.0), peer.addr());
            }
            if let Some(path) = puncher.path(peer) {
                table.direct(NextHop {
                    neighbour: peer.addr(),
                    to: mapped(path.to),
                    from: path.from,
                    local_port: path.local_port,
                    cookie: Cookie(path.cookie.0),
                });
            }
        }
    }

    fn handle_input(&mut self, input: PathInput, me: &NodeId, now: Instant) {
        match input {
            PathInput::Up { peer, connection, messages } => {
                self.up(&peer, connection, messages, me, now)
            }
            PathInput::Down { peer, connection } => self.down(&peer, connection, now),
            PathInput::Message { peer, connection, message } => {
                self.message(&peer, connection, message, now)
            }
            PathInput::Probe(ReceivedProbe { from, to, local_port, bytes }) => {
                if let Some(puncher) = &mut self.puncher {
                    // What is wrong with it is counted there.
                    let _ = puncher.handle_probe(Arrival { from, to, local_port }, &bytes, now);
                }
            }
        }
    }

    fn up(
        &mut self,
        peer: &NodeId,
        connection: Connection,
        messages: mpsc::Sender<Message>,
        me: &NodeId,
        now: Instant,
    ) {
        let known = self.puncher.as_ref().is_some_and(|puncher| puncher.cookie(peer).is_some());
        let session = self.sessions.entry(peer.clone()).or_default();
        let youngest = session.connections.last();
        let age = youngest.map(|youngest| now.saturating_duration_since(youngest.since));
        session.connections.push(PeerConnection { connection, messages, since: now });
        if begins_session(age, known || session.begin_at.is_some()) {
            self.begin(peer, me, now);
        }
    }

    fn begin(&mut self, peer: &NodeId, me: &NodeId, now: Instant) {
        let Some(puncher) = &mut self.puncher else { return };
        let begun =
            self.begun.get_or_insert_mut(peer.clone(), || Begun { sessions: 0, since: now });
        let allowed = begun.take(now);
        self.anew = true;
        self.changed = true;
        if let Some(session) = self.sessions.get_mut(peer) {
            session.begin_at = allowed.err();
        }
        if allowed.is_err() {
            // What there was is with another process, or forgotten there.
            puncher.disconnected(peer, now);
            return;
        }
        let role = if me < peer { Role::Offerer } else { Role::Answerer };
        puncher.connected(peer, role, now);
        // It was opened for something.
        puncher.sent(peer, now);
    }

    /// Begins the sessions that had to wait.
    fn begin_late(&mut self, me: &NodeId, now: Instant) {
        let due = |session: &Session| session.begin_at.is_some_and(|at| at <= now);
        let late: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| due(session))
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in late {
            self.begin(&peer, me, now);
        }
    }

    fn down(&mut self, peer: &NodeId, connection: usize, now: Instant) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        session.connections.retain(|kept| kept.connection.stable_id() != connection);
        if session.connections.is_empty() {
            self.sessions.remove(peer);
            if let Some(puncher) = &mut self.puncher {
                puncher.disconnected(peer, now);
            }
            self.changed = true;
        }
    }

    fn message(&mut self, peer: &NodeId, connection: usize, message: Message, now: Instant) {
        let Some(puncher) = &mut self.puncher else { return };
        match puncher.handle_message(peer, message, now) {
            Ok(()) | Err(MessageError::NoSession) => {}
            Err(error) => {
                debug!(%peer, %error, "closing");
                let session = self.sessions.get(peer).into_iter();
                let sender = session
                    .flat_map(|s| &s.connections)
                    .find(|c| c.connection.stable_id() == connection);
                if let Some(sender) = sender {
                    sender.connection.close(CloseCode::PathViolation, &error.to_string());
                }
            }
        }
    }

    /// The path in use to a peer.
    pub(crate) fn path(&self, peer: &NodeId) -> Option<punch::Path> {
        self.puncher.as_ref()?.path(peer)
    }

    /// Since when packets for a peer go the way they go.
    pub(crate) fn since(&self, peer: &NodeId) -> Option<Instant> {
        self.puncher.as_ref()?.since(peer)
    }

    /// The counters so far; `None` if direct paths are disabled.
    pub(crate) fn status(&self) -> Option<PathsStatus> {
        let puncher = self.puncher.as_ref()?;
        let counters = puncher.counters();
        let mut pairs = BTreeMap::new();
        for (mine, row) in NatClass::ALL.iter().zip(&counters.pairs) {
            for (theirs, pair) in
                NatClass::ALL.iter().zip(row).filter(|(_, pair)| pair.attempts > 0)
            {
                let status = PairStatus { attempts: pair.attempts, direct: pair.direct };
                pairs.insert(format!("{}/{}", mine.as_str(), theirs.as_str()), status);
            }
        }
        let outcomes =
            Outcome::ALL.iter().map(|outcome| outcome.as_str().into()).zip(counters.outcomes);
        let direct: u64 = counters.pairs.iter().flatten().map(|pair| pair.direct).sum();
        let mean = || counters.time_to_direct.as_secs_f64() * 1_000.0 / direct as f64;
        Some(PathsStatus {
            nat: puncher.class().as_str().into(),
            direct: self.sessions.keys().filter(|peer| puncher.path(peer).is_some()).count(),
            attempts: counters.rounds,
            outcomes: outcomes.collect(),
            pairs,
            time_to_direct_ms: (direct > 0).then(mean),
            opened: counters.paths_opened,
            died: counters.paths_died,
            probes_sent: counters.probes_sent + counters.answers_sent,
            probes_received: counters.probes_received + counters.answers_received,
            probes_refused: counters.probes_malformed
                + counters.probes_unknown_round
                + counters.probes_reflected
                + counters.probes_forged
                + counters.probes_replayed
                + counters.answers_unasked
                + counters.probes_refused,
        })
    }

    /// Tells of the pairs that carry traffic. To be called twice a second.
    fn tell_of_traffic(&mut self, now: Instant) {
        let Some(puncher) = &mut self.puncher else { return };
        for (peer, session) in &mut self.sessions {
            let frames = session.connections.iter().map(|kept| frames(&kept.connection)).sum();
            if std::mem::replace(&mut session.frames, frames) != frames {
                puncher.sent(peer, now);
            }
        }
    }

    /// Tells of this node's own addresses, if they are others than before.
    fn set_host(&mut self, host: Vec<HostAddress>, now: Instant) {
        if let Some(puncher) = &mut self.puncher
            && host != self.host
        {
            self.host.clone_from(&host);
            puncher.set_host(host, now);
        }
    }
}

/// What a connection carried for applications, keepalives and acknowledgements left out. The few
/// messages about paths are in it.
fn frames(connection: &Connection) -> u64 {
    let stats = connection.stats();
    [stats.frame_tx, stats.frame_rx].iter().map(|frames| frames.stream + frames.datagram).sum()
}

impl Session {
    fn send(&self, message: &Message) {
        let live = |kept: &&PeerConnection| kept.connection.close_reason().is_none();
        let sent = self
            .connections
            .iter()
            .filter(live)
            .any(|kept| kept.messages.try_send(message.clone()).is_ok());
        if !sent {
            debug!("a message about direct paths was not sent");
        }
    }
}

/// Whether a new connection with a peer begins a session. `age` is that of the youngest connection
/// before it, and `begun` says whether there is a session, or one is about to begin.
///
/// Two connections at the same time are one process's: both ends have connected. A later one may be
/// another process's, which knows nothing of the session.
fn begins_session(age: Option<Duration>, begun: bool) -> bool {
    let same_time = age.is_some_and(|age| age <= SAME_TIME);
    !(same_time && begun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::clock;

    #[test]
    fn only_a_second_connection_at_the_same_time_begins_no_session() {
        let later = SAME_TIME + Duration::from_nanos(1);
        for (age, begun, begins) in [
            (None, false, true),
            (None, true, true),
            (Some(Duration::ZERO), true, false),
            (Some(SAME_TIME), true, false),
            // What was begun has been forgotten.
            (Some(SAME_TIME), false, true),
            // Another process.
            (Some(later), true, true),
            (Some(later), false, true),
        ] {
            assert_eq!(begins_session(age, begun), begins, "{age:?}, {begun}");
        }
    }

    #[test]
    fn a_peer_that_connects_again_and_again_waits_for_its_next_session() {
        let start = clock::now();
        let mut begun = Begun { sessions: 0, since: start };
        for _ in 0..SESSION_BURST {
            assert_eq!(begun.take(start), Ok(()));
        }
        assert_eq!(begun.take(start), Err(start + SESSION_EVERY));
        assert_eq!(begun.take(start + SESSION_EVERY), Ok(()));
        assert_eq!(begun.take(start + SESSION_EVERY), Err(start + 2 * SESSION_EVERY));
        for n in 0..SESSION_BURST {
            assert_eq!(begun.take(start + 100 * SESSION_EVERY), Ok(()), "{n}");
        }
        assert_eq!(begun.take(start + 100 * SESSION_EVERY), Err(start + 101 * SESSION_EVERY));
    }
}
