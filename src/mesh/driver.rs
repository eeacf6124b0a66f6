//! The one loop: waits for one input, hands it on, drains what comes out, sleeps.

pub(crate) mod converge;
pub(crate) mod explain;
pub(crate) mod forwarding;
mod leaving;
mod link_events;
pub(crate) mod proofs;
mod publish;
mod routing;
mod sessions;
pub(crate) mod shutdown;
pub(crate) mod snapshot;
pub(crate) mod stubs;
pub(crate) mod unreachable;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, watch};
use tracing::{error, info};

use self::forwarding::RouteCache;
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::data_dir::manifest::Manifest;
use crate::mesh::driver::proofs::expiry::ExpiryWatch;
use crate::mesh::driver::proofs::verification::CredentialChecks;
use crate::mesh::driver::stubs::stub::Asker;
pub(super) use crate::mesh::driver::stubs::stub::{Role, Stub};
use crate::mesh::driver::stubs::verifying::WaitingQueries;
use crate::mesh::input::{Command, Input};
use crate::mesh::links::admission::acceptor::Handshakes;
use crate::mesh::links::dialling::dials::Dials;
use crate::mesh::links::endings::Endings;
use crate::mesh::links::id::LinkId;
use crate::mesh::links::link_cost::LinkCosts;
use crate::mesh::links::neighbours::Neighbours;
use crate::mesh::links::trust::distrust::Distrusted;
use crate::mesh::links::trust::notary::CertificateNotary;
use crate::mesh::links::trust::vetting::Vetting;
use crate::mesh::links::twin::ReportedTwin;
use crate::mesh::network::roaming::Roaming;
use crate::mesh::peers::detours::Detours;
use crate::mesh::peers::doubt::Doubts;
use crate::mesh::peers::path_input::PathInput;
use crate::mesh::peers::paths::Paths;
use crate::mesh::peers::{Peers, SWEEP};
use crate::mesh::report::departures::Departures;
use crate::mesh::report::events::{Event, Linked};
use crate::mesh::report::log::{LogKind, LogLimits, ReachabilityLog};
use crate::mesh::report::status::PortMappingStatus;
use crate::mesh::services::Services;
use crate::mesh::view::View;
use crate::router;
use crate::switch::HoldQueue;
use crate::transport::Identity;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::Frame;
use crate::transport::probes::ReceivedProbe;

/// How often things are looked at that tell nobody when they change: neighbours' addresses, drained
/// links, held packets.
const TICK: Duration = Duration::from_millis(HoldQueue::TICK_MILLIS);
/// Inputs that are handled in a row before a waiting probe gets its turn.
const INPUTS_IN_A_ROW: u32 = 16;
/// How long the driver works before it yields to the tasks that read and write the links. What
/// takes time in proportion to the links is done in batches that are shorter than this.
const MAX_TURN: Duration = Duration::from_millis(1);
/// How long the connections have to end before the port is let go of.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Owns all that changes in the mesh.
pub(super) struct Driver {
    pub(super) id: NodeId,
    pub(super) transit: bool,
    pub(super) accept_links: bool,
    /// Where links by TLS are let in.
    pub(super) listen_tcp: Vec<std::net::SocketAddr>,
    pub(super) role: Role,
    pub(super) routes: RouteCache,
    pub(super) costs: LinkCosts,
    pub(super) neighbours: Neighbours,
    pub(super) manifest: Manifest,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) services: Services,
    pub(super) peers: Peers,
    pub(super) vetting: Vetting,
    pub(super) handshakes: Handshakes,
    pub(super) checks: CredentialChecks,
    pub(super) endings: Endings,
    pub(super) paths: Paths,
    pub(super) detours: Detours,
    pub(super) dials: Dials,
    pub(super) inputs: mpsc::Sender<Input>,
    /// What the node advertises of itself; the latest counts.
    pub(super) capabilities: watch::Receiver<bytes::Bytes>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) started: Instant,
    pub(super) start: Start,
    pub(super) next_tick: Instant,
    pub(super) next_sweep: Instant,
    pub(super) expiry: ExpiryWatch,
    pub(super) distrusted: Distrusted,
    pub(super) doubts: Doubts,
    pub(super) twin: ReportedTwin,
    pub(super) roaming: Roaming,
    /// How it goes with the mapping of a port of the router, if one is asked for: where it is
    /// mapped, it is an address to be reached at.
    pub(super) port_mapping: Option<PortMappingStatus>,
    pub(super) signing_failed: bool,
    pub(super) departures: Departures,
    pub(super) logs: LogLimits,
    pub(super) reachability: ReachabilityLog,
    pub(super) linked: Linked,
    pub(super) waiting: converge::Waiting,
    pub(super) queries: WaitingQueries,
    /// Stubs whose session began since links were last published.
    pub(super) attaching: Vec<LinkId>,
    /// Whether links or routes changed since they were last published.
    pub(super) changed: bool,
    pub(super) published: Instant,
    /// When a lost link was last taken out of the forwarding table ahead of that.
    pub(super) withdrawn: Instant,
    /// Whether the node has withdrawn.
    pub(super) leaving: bool,
    /// When the links of a node that has yielded its id are closed.
    pub(super) yielded: Option<Instant>,
}

/// What distinguishes this run of the node from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) epoch: u64,
    pub(super) instance: u64,
}

impl Driver {
    /// Runs until the node is shut down.
    ///
    /// `life` ends the driver when it turns true, or when its sender is dropped.
    ///
    /// Dropped before, with its runtime or by a panic, it closes the node at once, without a
    /// farewell.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        mut life: watch::Receiver<bool>,
    ) {
        let mut probes = self.endpoint.socket().probes().receiver();
        let wanted = self.endpoint.socket().wanted();
        let mut in_a_row = 0;
        let mut busy = Duration::ZERO;
        let mut since = clock::now();
        let dropped = loop {
            self.drain(clock::now());
            self.publish_changes(queue.is_empty(), clock::now());
            busy += clock::now().saturating_duration_since(since);
            if busy >= MAX_TURN {
                busy = Duration::ZERO;
                tokio::task::yield_now().await;
            }
            let deadline = self.next_timeout();
            // The select prefers inputs; a full queue of them must not keep probes waiting.
            let probe_first =
                if in_a_row >= INPUTS_IN_A_ROW { waiting_probe(&mut probes) } else { None };
            in_a_row = if in_a_row >= INPUTS_IN_A_ROW { 0 } else { in_a_row + 1 };
            let input = match probe_first {
                Some(probe) => Some(Input::Path(PathInput::Probe(probe))),
                None => tokio::select! {
                    biased;
                    ended = life.wait_for(|ended| *ended) => break ended.is_err(),
                    Ok(()) = self.capabilities.changed() => {
                        self.advertise(clock::now());
                        None
                    }
                    input = queue.recv() => input,
                    addrs = wanted.take() => Some(Input::Wanted(addrs)),
                    Some(probe) = next_probe(&mut probes) => Some(Input::Path(PathInput::Probe(probe))),
                    () = tokio::time::sleep_until(deadline.into()) => None,
                },
            };
            let now = clock::now();
            since = now;
            if let Some(input) = input {
                self.handle_input(input, now);
            }
            if now >= deadline {
                self.handle_timeout(now);
            }
        };
        // Pending requests fail at once instead of waiting for an answer.
        drop((queue, probes));
        self.close(dropped);
        // The port is let go of when `self` is dropped. Neighbours that do not hear the end are not
        // waited for.
        let _ = tokio::time::timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }

    fn next_timeout(&self) -> Instant {
        let router = match &self.role {
            Role::Full(router) => router.poll_timeout().map(|deadline| deadline.at),
            Role::Stub(_) => None,
        };
        let publish = self.changed.then(|| self.published + self.publish_pause());
        [
            router,
            self.neighbours.next_timeout(),
            self.paths.next_timeout(),
            self.doubts.next_timeout(),
            self.roaming.next_timeout(),
            self.detours.next_timeout(),
            publish,
        ]
        .into_iter()
        .flatten()
        .fold(self.next_tick, Instant::min)
    }

    pub(super) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Established(established) => self.arrived(*established, now),
            Input::Frame { link, frame } => self.frame(link, frame, now),
            Input::Attached { link, attachment, verdict } => {
                self.attached(link, *attachment, verdict, now)
            }
            Input::Route { link, message } => self.route_frame(link, message, now),
            Input::Written { link } => self.written(link, now),
            Input::Finished { link } => self.finished(link),
            Input::LinkClosed { link, why, turn: _turn } => self.link_closed(link, &why, now),
            Input::PeerAnswers { peer, answers } => self.peer_answers(&peer, answers, now),
            Input::Path(input) => self.path_input(input, now),
            Input::Wanted(addrs) => self.wanted(addrs, now),
            Input::NetworkChanged { addresses } => self.network_changed(addresses, now),
            Input::Unreachable(addrs) => self.unreachable(&addrs, now),
            Input::PortMapping(status) => {
                self.paths.mapped(&status, now);
                self.port_mapping = Some(status);
            }
            Input::Command(command) => self.command(command, now),
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Status(options, reply) => {
                let _ = reply.send(Box::new(self.snapshot(options, now)));
            }
            Command::Explain(node, reply) => drop(reply.send(self.explain(&node, now))),
            Command::Query(node, reply) => self.ask(node, reply),
            Command::Verify(node) => self.verify(&node, now),
            Command::Converge(within, reply) => self.converge(within, reply, now),
            Command::Reload(identity) => self.reload(&identity, now),
            Command::SetPeers(peers, reply) => {
                self.dials.set(peers);
                // The caller may have been dropped.
                let _ = reply.send(());
            }
            Command::Unlink(connection) => self.unlink(connection),
            Command::Leave(reply) => self.leave(reply, now),
        }
    }

    /// Advertises what the node says of itself now.
    fn advertise(&mut self, now: Instant) {
        let capabilities = self.capabilities.borrow_and_update().clone();
        if let Role::Full(router) = &mut self.role {
            router.set_capabilities(capabilities, now);
        }
    }

    /// A stub passes a question on to its neighbour.
    pub(super) fn ask(&mut self, node: NodeId, reply: Asker) {
        let Role::Stub(stub) = &mut self.role else { return };
        let link = self.neighbours.active().values().find_map(|id| self.neighbours.link(*id));
        if let Some(link) = link
            && stub.ask(&node, reply)
        {
            link.send(&Frame::Query(node));
        }
    }

    /// Signs and verifies records with this identity from now on.
    fn reload(&mut self, identity: &Identity, now: Instant) {
        let notary = Arc::new(CertificateNotary::new(identity, clock::system));
        match &mut self.role {
            Role::Full(router) => {
                self.checks.renew(&notary, router.credentials().cloned().collect());
                router.set_notary(notary, now);
            }
            Role::Stub(stub) => {
                stub.attaching.set_notary(notary);
                self.prove_attachments(now);
            }
        }
        self.distrusted.clear();
        self.signing_failed = false;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Role::Full(router) = &mut self.role {
            router.handle_timeout(now);
        }
        self.paths.handle_timeout(now);
        let changes = self.neighbours.handle_timeout(now);
        self.apply(changes, now);
        self.decide_doubts(now);
        self.ask_links(now);
        self.find_detours(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.endpoint.socket().tick();
        self.reachability.write(now);
        self.logs.summarise(now);
        self.tick_paths(now);
        self.tick_detours(now);
        self.redial_silent_links(now);
        self.close_if_yielded(now);
        self.forget_gone_waiters(now);
        self.renew_attachments(now);
        self.answer_queries(now);
        if let Role::Stub(stub) = &mut self.role {
            stub.forget_gone_askers();
        }
        // A neighbour behind a NAT may have a new address; quinn follows it, and the switch must,
        // too.
        self.changed |= self.neighbours.follow_addresses();
        if let Role::Full(router) = &mut self.role {
            for (peer, cost) in self.neighbours.measure(now) {
                if self.logs.admit(LogKind::LinkCost, &peer) {
                    info!(%peer, %cost, "link cost updated");
                }
                router.set_cost(&peer, cost, now);
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.peers.sweep();
            self.expiry.look(&self.endpoint.identity(), clock::system());
            for peer in self.neighbours.active().keys() {
                if self.neighbours.active_link(peer).is_some_and(|link| !link.stub) {
                    self.manifest.touch(peer, clock::unix_secs());
                }
            }
        }
        if self.manifest.sweep(now, clock::unix_secs())
            && let Role::Full(router) = &mut self.role
        {
            router.set_dormant(self.manifest.known(), now);
        }
    }

    /// Takes everything that the router has to say. What it says of its routes to others holds when
    /// they hear it.
    pub(super) fn drain(&mut self, now: Instant) {
        self.drain_paths(now);
        while let Role::Full(router) = &mut self.role
            && let Some(event) = router.poll_event()
        {
            self.router_event(event, now);
        }
        while let Role::Full(router) = &mut self.role
            && let Some(transmit) = router.poll_transmit()
        {
            // Others will rely on the table that this vouches for. All other messages can go before
            // it is in use.
            if matches!(transmit.message, router::Message::Echo(_)) {
                self.publish_now(now);
            }
            if let Some(link) = self.neighbours.active_link(&transmit.to) {
                link.send_route(&transmit.message);
            }
        }
    }

    /// Whether a node that has, or had, a route is a stub: it has no record of its own, but is
    /// listed by others.
    pub(super) fn is_stub(&self, node: &NodeId) -> bool {
        matches!(&self.role, Role::Full(router) if !router.has_record(node))
    }

    pub(super) fn emit(&self, event: Event) {
        // It is not an error if there are no subscribers.
        let _ = self.events.send(event);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("the node stops: its driver panicked, which is a bug");
        }
        self.close(true);
        self.endpoint.socket().release();
    }
}

async fn next_probe(probes: &mut Option<mpsc::Receiver<ReceivedProbe>>) -> Option<ReceivedProbe> {
    match probes {
        Some(probes) => probes.recv().await,
        None => None,
    }
}

fn waiting_probe(probes: &mut Option<mpsc::Receiver<ReceivedProbe>>) -> Option<ReceivedProbe> {
    probes.as_mut()?.try_recv().ok()
}
