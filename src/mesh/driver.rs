//! The one loop: waits for one input, hands it on, drains what comes out, sleeps.

pub(crate) mod attaching;
pub(crate) mod converge;
pub(crate) mod expiry;
pub(crate) mod explain;
pub(crate) mod forwarding;
pub(crate) mod renewal;
pub(crate) mod shutdown;
pub(crate) mod snapshot;
pub(crate) mod stub_waiting;
pub(crate) mod unreachable;
pub(crate) mod verification;
pub(crate) mod verifying;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use self::attaching::Attaching;
use self::expiry::ExpiryWatch;
use self::forwarding::{RouteCache, Sources, forwarding_table};
use self::stub_waiting::StubWaiting;
use self::verification::CredentialChecks;
use self::verifying::WaitingQueries;
use super::clock;
use super::data_dir::manifest::Manifest;
use super::input::{Command, Input};
use super::links::acceptor::Handshakes;
use super::links::dialler::Dialled;
use super::links::distrust::Distrusted;
use super::links::endings::Endings;
use super::links::id::{LinkId, Phase};
use super::links::link::{Link, Surroundings};
use super::links::link_cost::LinkCosts;
use super::links::neighbours::{Change, Neighbours};
use super::links::notary::CertificateNotary;
use super::links::twin::ReportedTwin;
use super::links::vetting::Vetting;
use super::network::roaming::Roaming;
use super::peers::detours::Detours;
use super::peers::doubt::Doubts;
use super::peers::path_input::PathInput;
use super::peers::paths::Paths;
use super::peers::{Peers, SWEEP};
use super::report::convergence::Convergence;
use super::report::departures::Departures;
use super::report::events::{Event, Linked};
use super::report::log::{LogKind, LogLimits, ReachabilityLog};
use super::report::status::PortMappingStatus;
use super::services::Services;
use super::services::ending::{Cause, EndReason, EndedBy};
use super::view::View;
use crate::id::NodeId;
use crate::router::{self, NeighbourKind, NeighbourState, Router, SessionError, SessionUp, Table};
use crate::switch::{ForwardingTable, HoldQueue, Routes};
use crate::transport::code::CloseCode;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::Frame;
use crate::transport::handshake::Established;
use crate::transport::probes::ReceivedProbe;
use crate::transport::{Identity, Refusal};

/// How often things are looked at that tell nobody when they change: neighbours' addresses, drained
/// links, held packets.
const TICK: Duration = Duration::from_millis(HoldQueue::TICK_MILLIS);
/// Minimum interval between two publications of links and routes while inputs keep coming.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
/// Publishing is O(links), so the minimum interval grows by 1 ms per 50 links, up to
/// [`MAX_PUBLISH_PAUSE`].
const PUBLISHED_IN_A_MILLISECOND: usize = 50;
/// With thousands of links publishing takes a few milliseconds. They come and go in storms, in
/// which this leaves the driver nine tenths of its time.
const MAX_PUBLISH_PAUSE: Duration = Duration::from_millis(40);
/// Inputs that are handled in a row before a waiting probe gets its turn.
const INPUTS_IN_A_ROW: u32 = 16;
/// How long the driver works before it yields to the tasks that read and write the links. What
/// takes time in proportion to the links is done in batches that are shorter than this.
const MAX_TURN: Duration = Duration::from_millis(1);
/// How long the connections have to end before the port is let go of.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Questions of a stub that wait for an answer, at most.
const MAX_QUERIES: usize = 1_024;

/// What a node is to the mesh.
pub(super) enum Role {
    /// A node with a record and a database.
    Full(Box<Router>),
    /// An entry in its neighbours' records, with a default route.
    Stub(Stub),
}

/// Where the cost and hops of a route go, if there is one.
type Asker = oneshot::Sender<Option<(u64, u32)>>;

/// What a stub knows: nothing but whom to ask.
pub(super) struct Stub {
    pub(super) attached: bool,
    pub(super) attaching: Attaching,
    /// How many nodes the neighbour knew when it attached this one.
    pub(super) nodes: u64,
    pub(super) waiting: StubWaiting,
    queries: BTreeMap<NodeId, Vec<Asker>>,
}

/// Owns all that changes in the mesh.
pub(super) struct Driver {
    pub(super) id: NodeId,
    pub(super) transit: bool,
    pub(super) accept_links: bool,
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
    pub(super) dialled: Vec<Dialled>,
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

/// What tells this run of the node from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) epoch: u64,
    pub(super) instance: u64,
}

impl Stub {
    pub(super) fn new(attaching: Attaching) -> Self {
        Self {
            attached: false,
            attaching,
            nodes: 0,
            waiting: StubWaiting::default(),
            queries: BTreeMap::new(),
        }
    }
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
        // Whoever still asks something learns at once that nobody answers.
        drop((queue, probes));
        self.close(dropped);
        // The port is let go of when `self` is dropped. Neighbours that do not hear the end are not
        // waited for.
        let _ = tokio::time::timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Ends everything that hangs on the driver: no handle waits for it any more.
    ///
    /// Nothing here needs a task: quinn's may be gone already, together with this one. To close a
    /// connection wakes all who wait on its streams and datagrams.
    fn close(&mut self, dropped: bool) {
        let (code, why) = match dropped {
            true => (CloseCode::Dropped, "dropped without a shutdown"),
            false => (CloseCode::Leaving, "leaving"),
        };
        self.view.send_modify(|view| *view = Arc::new(View { closed: true, ..View::default() }));
        self.services.close();
        self.neighbours.links().values().for_each(|link| link.close(code, why));
        self.peers.shut(code, why);
        self.endpoint.close(code, why);
        for peer in self.linked.drain() {
            self.emit(Event::LinkDown { peer, why: Cause::here(code, why).to_string() });
        }
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

    fn arrived(&mut self, established: Established, now: Instant) {
        if self.leaving {
            established.connection.close(CloseCode::Leaving.to_quic(), b"leaving");
            return;
        }
        if self.yielded.is_some() {
            established
                .connection
                .close(CloseCode::DuplicateId.to_quic(), b"this node has yielded its id");
            return;
        }
        let stub = matches!(self.role, Role::Stub(_));
        if stub && (!established.dialled || established.hello.stub) {
            established
                .connection
                .close(CloseCode::NotListening.to_quic(), b"an ephemeral node takes no links");
            return;
        }
        // The handshake was judged by the trust of its time, and that may have changed since.
        let Ok(vetted) = self.vetting.admit(&established.connection, &established.hello.id) else {
            return;
        };
        let id = self.neighbours.next_id();
        let node = Surroundings {
            inputs: &self.inputs,
            services: &self.services,
            checks: &self.checks,
            endings: &self.endings,
        };
        let mut link = Link::spawn(id, established, vetted, &node, now);
        (link.cost, link.measured) = self.costs.of(&link.peer, link.connection.rtt(), now);
        debug!(peer = %link.peer, address = %link.remote, dialled = link.dialled, "linked");
        let changes = self.neighbours.arrive(link, now);
        self.changed = true;
        self.apply(changes, now);
    }

    fn frame(&mut self, id: LinkId, frame: Frame, now: Instant) {
        let Some(link) = self.neighbours.link(id) else { return };
        match frame {
            Frame::Ping(nonce) => link.send(&Frame::Pong(nonce)),
            Frame::Pong(nonce) => {
                self.link_answered(id, nonce);
                self.doubts.answered(id, nonce, now);
                let changes = self.neighbours.answered(id, nonce, now);
                self.apply(changes, now);
            }
            Frame::Select(number) => {
                let changes = self.neighbours.selected(id, number, now);
                self.apply(changes, now);
            }
            Frame::Query(node) => self.query(id, node, now),
            Frame::Answer(node, route, left) => {
                if let Role::Stub(stub) = &mut self.role {
                    self.departures.reported(&node, left, now);
                    for asker in stub.queries.remove(&node).unwrap_or_default() {
                        let _ = asker.send(route);
                    }
                }
            }
            Frame::Attached(nodes) => {
                if let Role::Stub(stub) = &mut self.role {
                    debug!(peer = %link.peer, nodes, "attached");
                    (stub.attached, stub.nodes) = (true, nodes);
                    self.changed = true;
                    self.ask_neighbour_to_converge(now);
                }
            }
            Frame::Converge(millis) => self.converge_for_stub(id, millis, now),
            Frame::Converged(true, count, _) => {
                self.on_neighbours_verdict(Convergence::Converged { count }, now);
            }
            Frame::Converged(false, count, expected) => {
                self.on_neighbours_verdict(Convergence::Partial { count, expected }, now);
            }
            Frame::Observed(at) if self.neighbours.phase(id) == Some(Phase::Active) => {
                let peer = link.peer.clone();
                self.neighbours.observed(id, at);
                self.paths.observed(&peer, Some(at), now);
            }
            Frame::Observed(at) => self.neighbours.observed(id, at),
            Frame::Twin(instance, address) => {
                let seen_at = link.observed;
                self.on_twin_refused(instance, &address, seen_at);
            }
            Frame::Hello(_) => link.close(CloseCode::BadFrame, "HELLO comes first, and once"),
            // The link's reader has dealt with them.
            Frame::Route(_) | Frame::Authenticator(_) | Frame::Attach(_) => {}
        }
    }

    fn route_frame(&mut self, id: LinkId, message: router::Message, now: Instant) {
        let Some(link) = self.neighbours.if_active(id) else { return };
        // Between the choice of another link and its arrival at the other end, this one's session
        // is over. So it is once this node has closed the link, or the process at its other end is
        // known to be gone, whatever of it was read before. Where the neighbour has closed it, its
        // last frames still count.
        let closed = link
            .connection
            .ended()
            .is_some_and(|cause| cause.by == EndedBy::This || cause.why == EndReason::Restarted);
        if closed {
            return;
        }
        let Role::Full(router) = &mut self.role else { return };
        if let Err(error) = router.handle_message(&link.peer, message, now) {
            violated(&self.logs, link, &error);
        }
    }

    fn written(&mut self, id: LinkId, now: Instant) {
        if let (Role::Full(router), Some(link)) = (&mut self.role, self.neighbours.if_active(id)) {
            router.handle_writable(&link.peer, now);
        }
    }

    /// The neighbour has finished its control stream, and every frame before that was handled: it
    /// leaves.
    fn finished(&self, id: LinkId) {
        if let Some(link) = self.neighbours.link(id) {
            let left = Cause::other(EndReason::ShutDown);
            link.close_because(left, CloseCode::Leaving, "the neighbour has left");
        }
    }

    fn link_closed(&mut self, id: LinkId, why: &Cause, now: Instant) {
        let active = self.neighbours.if_active(id).map(|link| (link.peer.clone(), link.stub));
        if let (true, Some((peer, _)), Role::Full(router)) =
            (why.is_announced(), &active, &mut self.role)
        {
            // The close may overtake the record that says so.
            router.handle_leaving(peer, now);
        }
        let refusal = self.neighbours.link(id).and_then(|link| link.vetted.refusal().cloned());
        let ended = self
            .neighbours
            .link(id)
            .and_then(|link| Some((link.connection.close_reason()?, link.observed)));
        if let Some((error, seen_at)) = ended {
            self.on_refused_as_twin(&error, seen_at);
        }
        let changes = self.neighbours.closed(id, now);
        self.doubts.ended(id);
        self.forget_link_check(id);
        self.changed = true;
        self.forget_stub_waiter(id, now);
        if let Some((peer, stub)) = active.clone().filter(|_| why.is_leave()) {
            // Its record says so as well, unless it is a stub, or the last frames were lost.
            self.departures.left(peer, stub, now);
        }
        // The search for new paths can take its time, or be put off: until then alternates serve,
        // from now on. Nothing travels by way of a stub. In a storm the table is replaced as often
        // as at any other time, since making it takes time in proportion to all links.
        let forwards = active.as_ref().is_some_and(|(_, stub)| !stub);
        if forwards && now >= self.withdrawn + self.publish_pause() {
            self.withdrawn = now;
            self.publish_forwarding(self.routes.last());
        }
        if let Some((peer, stub)) = active {
            self.report_down((&peer, stub), why, refusal);
        }
        self.apply(changes, now);
    }

    /// Reports the end of a neighbour's session, if its beginning was reported. A refusal of this
    /// node says more.
    fn report_down(
        &mut self,
        (peer, stub): (&NodeId, bool),
        why: &Cause,
        refusal: Option<Refusal>,
    ) {
        if self.linked.down(peer) {
            let why = refusal.map_or_else(|| why.to_string(), |refusal| refusal.to_string());
            if stub {
                debug!(%peer, %why, "link down");
            } else if self.logs.admit(LogKind::Link, peer) {
                info!(%peer, %why, "link down");
            }
            self.emit(Event::LinkDown { peer: peer.clone(), why });
        }
    }

    /// Tells the router of sessions that came and went.
    fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            self.changed = true;
            match change {
                Change::SessionUp(id) => self.session_up(id, now),
                Change::SessionDown(peer) => self.session_down(&peer, now),
                Change::DuplicateId { node, keeps, refused: yields } => {
                    if self.logs.admit(LogKind::Conflict, &node) {
                        warn!(%node, keeps = %keeps.place(), refused = %yields.place(), "refused a second live node with this id");
                    }
                    self.emit(Event::DuplicateId { node, keeps, yields, yielded: false });
                }
            }
        }
    }

    fn session_up(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.neighbours.link(id) else { return };
        let (peer, stub, address) = (link.peer.clone(), link.stub, link.remote.to_string());
        self.paths.observed(&peer, Some(link.observed), now);
        if let Role::Full(router) = &mut self.role {
            if self.neighbours.active().len() == 1 {
                let observed =
                    SocketAddr::new(link.observed.ip().to_canonical(), link.observed.port());
                router.set_place(&observed.to_string());
            }
            let kind = if link.stub { NeighbourKind::Stub } else { NeighbourKind::Full };
            let up = SessionUp {
                neighbour: peer.clone(),
                instance: link.instance,
                cost: link.cost,
                kind,
            };
            if let Err(error) = router.handle_session_up(up, now) {
                if self.logs.admit(LogKind::Closed, &peer) {
                    warn!(%peer, %error, "closing a link: the router rejects the session");
                }
                let (code, why) = (refused_session(&error), error.to_string());
                link.close(code, &why);
                self.neighbours.refuse(id, now);
                // It may have been about to take the place of another link.
                self.session_down(&peer, now);
                self.report_down((&peer, stub), &Cause::here(code, &why), None);
                return;
            }
            if link.stub {
                self.attaching.push(id);
            }
        }
        self.prove_attachment(&peer, now);
        self.twin.accepted();
        self.departures.came(&peer);
        let is_new = self.linked.up(&peer);
        let what = if is_new { "link up" } else { "link replaced" };
        if stub {
            debug!(%peer, %address, "{what}");
        } else if self.logs.admit(LogKind::Link, &peer) {
            info!(%peer, %address, "{what}");
        }
        if is_new {
            self.emit(Event::LinkUp { peer, address });
        }
    }

    fn session_down(&mut self, peer: &NodeId, now: Instant) {
        self.paths.observed(peer, None, now);
        match &mut self.role {
            Role::Full(router) => {
                router.handle_session_down(peer, now);
                // Stubs are not in the manifest, and may be lost by the thousand.
                if self.manifest.knows(peer) {
                    router.set_dormant(self.manifest.known(), now);
                }
            }
            Role::Stub(stub) => {
                stub.attached = !self.neighbours.active().is_empty();
                stub.attaching.detached();
                // Nobody is left to answer; the askers see it.
                stub.queries.clear();
                self.prove_attachments(now);
                self.ask_neighbour_to_converge(now);
            }
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
    fn ask(&mut self, node: NodeId, reply: Asker) {
        let Role::Stub(stub) = &mut self.role else { return };
        let Some(link) = self.neighbours.active().values().find_map(|id| self.neighbours.link(*id))
        else {
            return;
        };
        if stub.queries.values().map(Vec::len).sum::<usize>() < MAX_QUERIES {
            stub.queries.entry(node.clone()).or_default().push(reply);
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

    /// Withdraws the node's record. The frames that say so are on their way when `reply` comes.
    fn leave(&mut self, reply: oneshot::Sender<()>, now: Instant) {
        if let Role::Full(router) = &mut self.role {
            router.leave(now);
        }
        self.drain(now);
        self.leaving = true;
        self.changed = true;
        self.neighbours.finish();
        let _ = reply.send(());
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
            // Askers that have given up make room for others.
            stub.queries.retain(|_, askers| {
                askers.retain(|asker| !asker.is_closed());
                !askers.is_empty()
            });
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

    /// Publishes what has changed: at once if nothing else waits and links are few, and not more
    /// often than needed in a storm.
    pub(super) fn publish_changes(&mut self, idle: bool, now: Instant) {
        let pause = self.publish_pause();
        let pause = if idle { pause } else { pause.max(PUBLISH_EVERY) };
        if now >= self.published + pause {
            self.publish_now(now);
        }
    }

    /// Publishes what has changed, before something goes out that relies on it.
    pub(super) fn publish_now(&mut self, now: Instant) {
        if self.changed {
            self.changed = false;
            self.published = now;
            self.publish();
            self.attach();
            self.answer_queries(now);
        }
    }

    /// Tells stubs that they are attached, once their packets are let in.
    fn attach(&mut self) {
        let Role::Full(router) = &self.role else { return };
        let nodes = router.table().len() as u64 + 1;
        for link in self.attaching.drain(..).filter_map(|id| self.neighbours.link(id)) {
            link.send(&Frame::Attached(nodes));
        }
    }

    fn publish_pause(&self) -> Duration {
        let millis = self.neighbours.links().len() / PUBLISHED_IN_A_MILLISECOND;
        MAX_PUBLISH_PAUSE.min(Duration::from_millis(millis as u64))
    }

    fn router_event(&mut self, event: router::Event, now: Instant) {
        use router::Event as Routing;
        match event {
            Routing::TableChanged => self.changed = true,
            Routing::NodeReachable(node) => {
                match self.is_stub(&node) {
                    true => debug!(%node, "reachable"),
                    false => self.reachability.reachable(&node, now),
                }
                self.distrusted.forget(&node);
                self.departures.came(&node);
                self.emit(Event::NodeReachable { node });
            }
            Routing::NodeUnreachable(node) => {
                if self.is_stub(&node) {
                    debug!(%node, "unreachable");
                    self.departures.left(node.clone(), true, now);
                } else {
                    self.reachability.unreachable(&node, now);
                }
                self.emit(Event::NodeUnreachable { node });
            }
            Routing::NodeRestarted(node) => {
                self.peers.restarted(&node);
                self.paths.restarted(&node, now);
            }
            Routing::Synced(peer) => {
                debug!(%peer, "synced");
                self.changed = true;
                // Not before: a neighbour in its sync would be advertised as dormant first.
                self.manifest.seen(&peer, clock::unix_secs());
                if let Role::Full(router) = &mut self.role {
                    router.set_dormant(self.manifest.known(), now);
                }
                self.emit(Event::Synced { peer });
            }
            Routing::LinkHeld { neighbour: peer, until } => {
                let remaining = until.saturating_duration_since(now);
                if self.is_stub(&peer) {
                    debug!(%peer, ?remaining, "stub not listed yet: it was lost repeatedly");
                } else if self.logs.admit(LogKind::Link, &peer) {
                    info!(%peer, ?remaining, "link held back: it was lost repeatedly, and another path leads to the neighbour");
                }
                let remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                self.emit(Event::LinkHeld { peer, remaining_ms });
            }
            Routing::LinkReleased(peer) => {
                if self.is_stub(&peer) {
                    debug!(%peer, "stub listed");
                } else if self.logs.admit(LogKind::Link, &peer) {
                    info!(%peer, "link no longer held back");
                }
                self.emit(Event::LinkReleased { peer });
            }
            Routing::SyncStalled(peer) => {
                if let Some(link) = self.neighbours.active_link(&peer) {
                    link.close(
                        CloseCode::RoutingViolation,
                        "the databases could not be brought together",
                    );
                }
            }
            Routing::Violation { neighbour, error } => {
                if let Some(link) = self.neighbours.active_link(&neighbour) {
                    violated(&self.logs, link, &error);
                }
            }
            Routing::Untrusted { origin, version, reason } => {
                if self.distrusted.note(&origin, version, reason) {
                    if self.logs.admit(LogKind::Record, &origin) {
                        warn!(node = %origin, why = %reason, "record rejected: its certificate is not trusted here");
                    }
                    self.emit(Event::RecordNotTrusted { node: origin, why: reason });
                }
            }
            Routing::StubUnproven(peer) => self.stub_unproven(&peer),
            Routing::FalseClaim { stub, by, fault } => self.false_claim(stub, by, fault),
            Routing::StubUnlisted(node) => self.departures.left(node, true, now),
            Routing::SigningFailed => {
                // The router tries again every second.
                if !std::mem::replace(&mut self.signing_failed, true) {
                    error!(
                        "this node's record cannot be signed: others know the one before, or none, until it can"
                    );
                    self.emit(Event::SigningFailed);
                }
            }
            Routing::NodeLeft(node) => {
                if self.logs.admit(LogKind::Left, &node) {
                    info!(%node, "left");
                }
                self.departures.left(node.clone(), false, now);
                self.manifest.forget(&node);
                self.emit(Event::NodeLeft { node });
                if let Role::Full(router) = &mut self.role {
                    router.set_dormant(self.manifest.known(), now);
                }
            }
            Routing::AddressCollision { known, refused } => {
                if self.logs.admit(LogKind::Conflict, &refused) {
                    error!(%known, %refused, "two ids have the same address; rename one of the nodes");
                }
                self.emit(Event::AddressCollision { known, refused });
            }
            Routing::DuplicateId(duplicate) => self.on_duplicate(&duplicate, now),
            Routing::Converged { request, count } => {
                self.on_verdict(request, Convergence::Converged { count }, now);
            }
            Routing::Partial { request, count, expected } => {
                self.on_verdict(request, Convergence::Partial { count, expected }, now);
            }
            other => debug!(event = ?other, "router"),
        }
    }

    /// Shows links and routes to the switch and to those who open streams.
    fn publish(&mut self) {
        let (table, linked) = match &self.role {
            Role::Full(router) => {
                let synced = |n: router::NeighbourView| n.state != NeighbourState::Syncing;
                (router.table(), router.neighbours().any(synced))
            }
            Role::Stub(stub) => (Arc::new(Table::default()), stub.attached),
        };
        let routes = self.routes.of(&table);
        let forwarding = Some(self.publish_forwarding(routes));
        let stub = matches!(self.role, Role::Stub(_));
        let links =
            self.neighbours.active().iter().filter_map(|(peer, id)| {
                Some((peer.clone(), self.neighbours.link(*id)?.view.clone()))
            });
        let view = View {
            links: links.collect(),
            table,
            forwarding,
            stub,
            linked,
            leaving: self.leaving,
            yielded_to: self.yielded_to(),
            closed: false,
        };
        self.view.send_replace(Arc::new(view));
    }

    /// Shows links and these routes to the switch.
    pub(super) fn publish_forwarding(&self, routes: Arc<Routes>) -> Arc<ForwardingTable> {
        let forwarding = Arc::new(forwarding_table(&Sources {
            me: self.id.addr(),
            transit: self.transit,
            stub: matches!(self.role, Role::Stub(_)),
            links: self.neighbours.links(),
            active: self.neighbours.active(),
            routes,
            paths: &self.paths,
            router: match &self.role {
                Role::Full(router) => Some(router),
                Role::Stub(_) => None,
            },
            detours: &self.detours,
        }));
        self.endpoint.socket().publish(Arc::clone(&forwarding));
        forwarding
    }

    /// Whether a node that has, or had, a route is a stub: it has no record of its own, but is
    /// listed by others.
    pub(super) fn is_stub(&self, node: &NodeId) -> bool {
        matches!(&self.role, Role::Full(router) if !router.has_record(node))
    }

    pub(super) fn emit(&self, event: Event) {
        // Nobody listening is no error.
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

fn violated(logs: &LogLimits, link: &Link, error: &router::PeerError) {
    if logs.admit(LogKind::Closed, &link.peer) {
        warn!(peer = %link.peer, %error, "closing a link: the peer broke the routing protocol");
    }
    link.close(CloseCode::RoutingViolation, &error.to_string());
}

/// The code for a session that the router does not take.
fn refused_session(error: &SessionError) -> CloseCode {
    match error {
        SessionError::SelfLink => CloseCode::SelfLink,
        SessionError::AddressCollision { .. } => CloseCode::AddressCollision,
        SessionError::TooManyLinks { .. } => CloseCode::Overloaded,
        SessionError::SuffixedId(_) => CloseCode::SuffixedId,
        SessionError::Leaving => CloseCode::Leaving,
        SessionError::Yielded => CloseCode::DuplicateId,
    }
}
