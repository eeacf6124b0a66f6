//! The handle to a running mesh: what the node and the work layer use.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{Instrument, info_span};

use super::clock;
use super::data_dir::datadir;
use super::data_dir::datadir::DataDir;
use super::data_dir::manifest::Manifest;
use super::driver::attaching::Attaching;
use super::driver::converge::Waiting;
use super::driver::expiry::ExpiryWatch;
use super::driver::forwarding::RouteCache;
use super::driver::renewal;
use super::driver::shutdown::{ShutDown, Shutdown};
use super::driver::unreachable;
use super::driver::verification::{CredentialChecks, VerificationPool};
use super::driver::verifying::WaitingQueries;
use super::driver::{Driver, Role, Start, Stub};
use super::input::{Command, Input, MAX_INPUTS};
use super::links::acceptor::{Acceptor, Handshakes};
use super::links::dialler::{Dialled, Dialler, MakeHello};
use super::links::distrust::Distrusted;
use super::links::endings::Endings;
use super::links::link_cost::{LinkCost, LinkCosts};
use super::links::names::Resolve;
use super::links::neighbours::Neighbours;
use super::links::notary::CertificateNotary;
use super::links::peer_addr::PeerAddr;
use super::links::twin::ReportedTwin;
use super::links::vetting::Vetting;
use super::network::interfaces::Interfaces;
use super::network::outside::Outside;
use super::network::roaming;
use super::network::roaming::Roaming;
use super::peers::detours::Detours;
use super::peers::doubt::Doubts;
use super::peers::paths::Paths;
use super::peers::{self, Peers};
use super::report::convergence::{ConvergeError, Convergence};
use super::report::departures::Departures;
use super::report::events::{Event, Linked};
use super::report::explanation::NodeExplanation;
use super::report::log::{LogLimits, ReachabilityLog};
use super::report::refusal_log::SharedRefusalLog;
use super::report::status::{Status, StatusOptions};
use super::services::at_once::at_once;
use super::services::certificate;
use super::services::connection::{Connection, FirstCause};
use super::services::datagram::{DatagramListener, DatagramSender};
use super::services::ending::Cause;
use super::services::open::{OpenError, OpenHeader, OpenOptions};
use super::services::patience::Patience;
use super::services::serve_error::ServeError;
use super::services::stream::Stream;
use super::services::usage::{Lease, Purpose, StreamLease, Usage};
use super::services::{Listener, Services};
use super::view::{LinkView, View};
use crate::id::{Cost, NodeId, ServiceName};
use crate::router::{self, Router};
use crate::switch::Cookie;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::{Hello, VERSIONS};
use crate::transport::path_mtu::PathMtus;
use crate::transport::renewable::Renewable;
use crate::transport::settings::{MAX_STREAMS, ReceiveLimits, Transports};
use crate::transport::unreachable::Reports;
use crate::transport::{Congestion, Identity, Liveness, Refusal, Socket, random};

/// Events that a slow listener may fall behind, at most; it then misses the oldest, and is told so.
pub(crate) const MAX_EVENTS: usize = 1_024;
/// How long to wait for a route that is not there: the flood that brings it is usually just behind.
const ROUTE_WAIT: Duration = Duration::from_secs(1);
/// How long an explanation waits for the proofs of claims about a stub: an answer is asked for
/// twice, a second each.
const EXPLAIN_WAIT: Duration = Duration::from_millis(2_500);
/// How long an open without a deadline waits for a place or for credit, and [`CREDIT_ROUND_TRIPS`]
/// on top of it.
const PLACE_WAIT: Duration = Duration::from_millis(750);
/// Round trips that pass, at worst, until the other end has permitted as many streams as it ever
/// does: one with the first streams, one with the permission, and as much for packets that are
/// lost.
const CREDIT_ROUND_TRIPS: u32 = 4;
/// How long the neighbours have to take the node's last words.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// How long the driver may take to end, a little longer than it waits for connections; and the
/// system to free the port.
const CLOSE_WAIT: Duration = Duration::from_secs(3);
const PORT_WAIT: Duration = Duration::from_millis(500);

/// The parts that a mesh is made of, checked.
pub(crate) struct Parts {
    pub(crate) id: NodeId,
    pub(crate) identity: Identity,
    pub(crate) socket: Socket,
    /// What is under `socket`, as far as sending can begin anew there; `socket` alone keeps it.
    pub(crate) renewable: Vec<Weak<Renewable>>,
    /// Where those report what does not arrive.
    pub(crate) reports: Reports,
    /// What finds the addresses of configured peers.
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) interfaces: Interfaces,
    /// Whether peers on the local network are announced and found.
    #[cfg(feature = "mdns")]
    pub(crate) lan: bool,
    /// Whether a port of the router is mapped.
    #[cfg(feature = "portmap")]
    pub(crate) map_port: bool,
    /// Whether links from outside are let in; a node that only dials takes none.
    pub(crate) accept_links: bool,
    pub(crate) peers: Vec<PeerAddr>,
    pub(crate) transit: bool,
    pub(crate) ephemeral: bool,
    /// Whether direct paths are looked for, and the addresses that the operator has configured for
    /// them.
    pub(crate) direct: bool,
    pub(crate) external: Vec<SocketAddr>,
    pub(crate) costs: LinkCosts,
    pub(crate) liveness: Liveness,
    pub(crate) congestion: Congestion,
    /// How long a peer may be unreachable before it is given up.
    pub(crate) peer_timeout: Duration,
    /// How many bytes that nobody has read connections may hold.
    pub(crate) receive_limits: ReceiveLimits,
    pub(crate) max_datagram: u16,
    pub(crate) epoch: u64,
    pub(crate) data_dir: Option<DataDir>,
    pub(crate) manifest: datadir::Manifest,
    /// Limits of the log lines that other nodes cause, shared with whatever else logs for this
    /// node.
    pub(crate) logs: LogLimits,
}

/// A running mesh; clones share it. When the last one is dropped, the mesh is closed, without a
/// farewell.
#[derive(Clone)]
pub(crate) struct Mesh(Arc<Inner>);

struct Inner {
    id: NodeId,
    endpoint: Arc<Endpoint>,
    services: Services,
    peers: Peers,
    vetting: Vetting,
    dialled: Vec<Dialled>,
    inputs: mpsc::Sender<Input>,
    capabilities: watch::Sender<bytes::Bytes>,
    view: watch::Receiver<Arc<View>>,
    /// Weak, so that listeners see the end when the tasks that report events have gone.
    events: broadcast::WeakSender<Event>,
    #[cfg(feature = "testing")]
    reports: Reports,
    outside: Outside,
    /// The runtime that drives the node. A caller's may be another one, and end sooner.
    runtime: Handle,
    shutdown: Shutdown,
    /// Dropped, or sent `true`, it ends the driver.
    life: watch::Sender<bool>,
}

/// A reference to a mesh that does not keep it running.
#[derive(Clone)]
pub(crate) struct WeakMesh(Weak<Inner>);

impl WeakMesh {
    /// The mesh, if somebody else keeps it running.
    pub(crate) fn upgrade(&self) -> Option<Mesh> {
        self.0.upgrade().map(Mesh)
    }
}

/// What every HELLO of a node says.
struct Greeting {
    id: NodeId,
    start: Start,
    cost: Cost,
    stub: bool,
    transit: bool,
}

impl MakeHello for Greeting {
    fn hello(&self, remote: SocketAddr) -> Hello {
        Hello {
            versions: VERSIONS.to_vec(),
            id: self.id.clone(),
            epoch: self.start.epoch,
            instance: self.start.instance,
            cost: self.cost,
            stub: self.stub,
            transit: self.transit,
            observed: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            cookie: Cookie(random::bytes()),
            agent: concat!("receptor-quic/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Mesh {
    /// Starts the tasks on the current tokio runtime.
    pub(crate) fn spawn(parts: Parts) -> std::io::Result<Self> {
        let (mesh, driver, queue, life) = Self::assemble(parts)?;
        tokio::spawn(driver.run(queue, life).instrument(info_span!("node", id = %mesh.0.id)));
        Ok(mesh)
    }

    /// Starts the tasks except the driver's, and returns that with its inputs and what ends it.
    pub(super) fn assemble(
        parts: Parts,
    ) -> std::io::Result<(Self, Driver, mpsc::Receiver<Input>, watch::Receiver<bool>)> {
        let now = clock::now();
        let start = Start { epoch: parts.epoch, instance: random::bits() };
        let notary = Arc::new(CertificateNotary::new(&parts.identity, clock::system));
        let socket = Arc::new(parts.socket);
        let measured = parts.costs.usual == LinkCost::RoundTrip;
        let transports = Transports {
            liveness: parts.liveness,
            congestion: parts.congestion,
            max_datagram: parts.max_datagram,
            direct: parts.direct,
            measured,
        };
        let path_mtus = PathMtus::new(!parts.renewable.is_empty());
        let endpoint = Arc::new(
            Endpoint::new(socket, parts.identity, transports, path_mtus)?.with_suffix_of(&parts.id),
        );
        let services = Services::new(parts.receive_limits);
        let dialled: Vec<_> = parts.peers.into_iter().map(Dialled::new).collect();
        let (inputs, queue) = mpsc::channel(MAX_INPUTS);
        let told = parts.direct.then(|| inputs.clone());
        let pool = VerificationPool::new();
        let vetting = Vetting::new(endpoint.clone(), pool.clone(), parts.logs.clone());
        let checks = CredentialChecks::new(pool, notary.clone());
        let renewals =
            services.offer(certificate::service(), true).expect("it is the first service of all");
        let peers = Peers::new(
            endpoint.clone(),
            services.clone(),
            vetting.clone(),
            told,
            inputs.clone(),
            parts.peer_timeout,
        );
        let paths = match parts.direct {
            true => {
                let real_time = !parts.renewable.is_empty();
                Paths::new(
                    parts.id.clone(),
                    parts.interfaces.watch(),
                    parts.external,
                    real_time,
                    now,
                )
            }
            false => Paths::off(),
        };
        let (view, shown) = watch::channel(Arc::default());
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let (life, living) = watch::channel(false);
        let (capabilities, advertised) = watch::channel(bytes::Bytes::new());
        let greeting: Arc<dyn MakeHello> = Arc::new(Greeting {
            id: parts.id.clone(),
            start,
            cost: parts.costs.in_hello(),
            stub: parts.ephemeral,
            transit: parts.transit,
        });
        let handshakes = Handshakes::default();
        let manifest = Manifest::new(parts.data_dir, parts.manifest, now);
        let role = if parts.ephemeral {
            let Start { epoch, instance } = start;
            Role::Stub(Stub::new(Attaching::new(parts.id.clone(), notary, epoch, instance)))
        } else {
            let mut config =
                router::Config::new(parts.id.clone(), start.epoch, start.instance, random::bits());
            config.transit = parts.transit;
            config.notary = Some(notary);
            config.dormant = manifest.known();
            Role::Full(Box::new(Router::new(config, now)))
        };
        let (moves, moved) = watch::channel(0);
        let dialler = Dialler {
            endpoint: endpoint.clone(),
            hello: greeting.clone(),
            inputs: inputs.clone(),
            view: shown.clone(),
            events: events.clone(),
            moved,
            resolver: parts.resolver,
            reports: parts.reports.clone(),
            #[cfg(feature = "mdns")]
            logs: parts.logs.clone(),
        };
        let addresses =
            parts.interfaces.watch().borrow().addresses.iter().map(|address| address.ip).collect();
        let driver = Driver {
            id: parts.id.clone(),
            transit: parts.transit,
            accept_links: parts.accept_links,
            role,
            routes: RouteCache::default(),
            costs: parts.costs,
            neighbours: Neighbours::new(parts.id.clone(), parts.ephemeral),
            manifest,
            endpoint: endpoint.clone(),
            services: services.clone(),
            peers: peers.clone(),
            vetting: vetting.clone(),
            handshakes: handshakes.clone(),
            checks,
            endings: Endings::new(),
            paths,
            detours: Detours::new(now),
            dialled: dialled.clone(),
            inputs: inputs.clone(),
            capabilities: advertised,
            view,
            events: events.clone(),
            started: now,
            published: now,
            withdrawn: now,
            leaving: false,
            yielded: None,
            start,
            next_tick: now,
            next_sweep: now,
            expiry: ExpiryWatch::new(),
            distrusted: Distrusted::default(),
            doubts: Doubts::default(),
            twin: ReportedTwin::default(),
            roaming: Roaming::new(dialler.clone(), addresses, now),
            port_mapping: None,
            signing_failed: false,
            departures: Departures::new(),
            logs: parts.logs.clone(),
            reachability: ReachabilityLog::new(),
            linked: Linked::default(),
            waiting: Waiting::default(),
            queries: WaitingQueries::default(),
            attaching: Vec::new(),
            changed: true,
        };
        let span = info_span!("node", id = %parts.id);
        tokio::spawn(renewal::serve(renewals, vetting.clone()).instrument(span.clone()));
        let mut ended = living.clone();
        let watch = vetting.clone().run();
        let watch = async move {
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => {}
                () = watch => {}
            }
        };
        tokio::spawn(watch.instrument(span.clone()));
        let acceptor = Acceptor {
            endpoint: endpoint.clone(),
            hello: greeting,
            inputs: inputs.clone(),
            peers: peers.clone(),
            events: events.clone(),
            accept_links: parts.accept_links,
            refusals: SharedRefusalLog::default(),
            handshakes,
        };
        tokio::spawn(acceptor.run().instrument(span.clone()));
        let watch = peers::Watch {
            id: parts.id.clone(),
            peers: peers.clone(),
            view: shown.clone(),
            inputs: inputs.clone(),
            logs: parts.logs,
        };
        tokio::spawn(watch.run().instrument(span.clone()));
        let outside = Outside::default();
        #[cfg(feature = "mdns")]
        if parts.lan {
            span.in_scope(|| {
                outside.find_on_lan(&parts.id, parts.accept_links, &dialler, &parts.interfaces)
            });
        }
        #[cfg(feature = "portmap")]
        if parts.map_port {
            span.in_scope(|| outside.map_port(&dialler, &parts.interfaces));
        }
        for socket in parts.renewable.iter().filter_map(Weak::upgrade) {
            tokio::spawn(unreachable::read_icmp(socket, inputs.clone()).instrument(span.clone()));
        }
        let follow = unreachable::follow_reports(parts.reports.subscribe(), inputs.clone());
        tokio::spawn(follow.instrument(span.clone()));
        let follow = roaming::follow(
            parts.interfaces,
            endpoint.clone(),
            parts.renewable,
            moves,
            inputs.clone(),
        );
        tokio::spawn(follow.instrument(span.clone()));
        for peer in &dialled {
            tokio::spawn(dialler.clone().keep_linked(peer.clone()).instrument(span.clone()));
        }
        let mesh = Self(Arc::new(Inner {
            id: parts.id,
            endpoint,
            services,
            peers,
            vetting,
            dialled,
            inputs,
            capabilities,
            view: shown,
            events: events.downgrade(),
            #[cfg(feature = "testing")]
            reports: parts.reports,
            outside,
            runtime: Handle::current(),
            shutdown: Shutdown::default(),
            life,
        }));
        Ok((mesh, driver, queue, living))
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.0.id
    }

    pub(crate) fn downgrade(&self) -> WeakMesh {
        WeakMesh(Arc::downgrade(&self.0))
    }

    /// Plays an ICMP message that says that nothing listens at `addr`.
    #[cfg(feature = "testing")]
    pub(crate) fn report_closed_port(&self, addr: SocketAddr) {
        self.0.reports.report(addr, crate::transport::unreachable::Reason::Port);
    }

    /// Where the node takes packets.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.endpoint.socket().bound_addrs()
    }

    /// Offers a service.
    pub(crate) fn serve(&self, service: ServiceName) -> Result<Listener, ServeError> {
        self.0.services.offer(service, false)
    }

    /// Offers the service of calls, which accepts streams of callers who have no credit left for
    /// others.
    pub(crate) fn serve_calls(&self, service: ServiceName) -> Result<Listener, ServeError> {
        self.0.services.offer(service, true)
    }

    /// Opens a stream to a service of a node. Returns once the header is on its way: the answer
    /// comes with the data.
    pub(crate) async fn open(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        let opened = self.try_open(node, service, options, purpose).await;
        let stream = opened.map_err(|error| self.unless_closed(error))?;
        Ok(stream.counted(&self.0.services.open_streams))
    }

    async fn try_open(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        // Fast path: a connection, a place and credit are there. Nothing has to be watched while
        // nothing is waited for.
        if let Some((connection, lease)) = self.ready(node, options.peer_timeout)
            && let Some(halves) = at_once(connection.open_bi()).await
        {
            connection.need().note(lease.streams());
            let first = connection.first_cause();
            let halves = halves.map_err(|error| OpenError::lost(node, first.of(&error)))?;
            let header = OpenHeader::encoded(service, options, lease.wants_credit());
            let mut beginning = pin!(begin(node, halves, first, lease, header));
            if let Some(begun) = at_once(beginning.as_mut()).await {
                return begun;
            }
            return within(options.deadline, beginning).await;
        }
        let opening = async {
            tokio::select! {
                biased;
                barred = self.barred(node) => Err(barred),
                opened = self.open_in_turn(node, service, options, purpose) => opened,
            }
        };
        within(options.deadline, opening).await
    }

    /// Opens a stream where something has to be waited for: a route, a connection, a place, or
    /// credit.
    async fn open_in_turn(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        let too_many = || OpenError::TooManyStreams { node: node.clone(), max: MAX_STREAMS };
        let (connection, usage, _lease) = self.connection(node, options.peer_timeout).await?;
        let patience = usage.patience(options.peer_timeout);
        let waiting = patience.clone();
        let opening = async {
            let waiting = usage.queue(purpose).ok_or_else(too_many)?;
            let lease = waiting.place().await.waiting_for(patience);
            let lost = |error| OpenError::lost(node, connection.first_cause().of(&error));
            // An open that waited for a place takes credit at once if there is some.
            if usage.may_take_credit()
                && let Some(halves) = at_once(connection.open_bi()).await
            {
                return Ok((halves.map_err(lost)?, lease));
            }
            let turn = waiting.credit_turn().await;
            let halves = connection.open_bi().await.map_err(lost)?;
            drop(turn);
            Ok((halves, lease))
        };
        let opened = async {
            tokio::select! {
                opened = opening => opened,
                cause = connection.closed() => Err(OpenError::lost(node, cause)),
                cause = given_up(waiting) => Err(OpenError::lost(node, cause)),
            }
        };
        let (halves, lease) = match options.deadline {
            // The caller ends the wait.
            Some(_) => opened.await?,
            None => {
                let patience = PLACE_WAIT + CREDIT_ROUND_TRIPS * connection.rtt();
                tokio::time::timeout(patience, opened).await.unwrap_or_else(|_| Err(too_many()))?
            }
        };
        connection.need().note(lease.streams());
        let header = OpenHeader::encoded(service, options, lease.wants_credit());
        begin(node, halves, connection.first_cause(), lease, header).await
    }

    /// A sender of datagrams to a service of a node, on the link or the peer connection, made now
    /// if there is none.
    pub(crate) async fn datagrams(
        &self,
        node: &NodeId,
        service: &ServiceName,
    ) -> Result<DatagramSender, OpenError> {
        tokio::select! {
            biased;
            barred = self.barred(node) => Err(barred),
            connected = self.connection(node, None) => {
                let (connection, _, lease) = connected.map_err(|error| self.unless_closed(error))?;
                Ok(DatagramSender::new(connection, service, self.0.services.datagrams.clone(), lease))
            }
        }
    }

    /// Takes datagrams for a service.
    pub(crate) fn serve_datagrams(
        &self,
        service: ServiceName,
    ) -> Result<DatagramListener, ServeError> {
        self.0.services.datagrams.offer(service)
    }

    /// The link to a neighbour, or the peer connection to another node, and a place for a stream
    /// with this peer timeout, if both are there now.
    fn ready(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Option<(Arc<Connection>, StreamLease)> {
        let view = self.0.view.borrow();
        if view.closed || (view.yielded_to.is_some() && *node != self.0.id) {
            return None;
        }
        if let Some(link) = live_link(&view, node) {
            return Some((link.connection.clone(), link.usage.try_open()?));
        }
        let routed = *node == self.0.id || has_route(&view, node);
        // A stub asks its neighbour first.
        (routed && !view.stub).then(|| self.0.peers.ready(node, peer_timeout)).flatten()
    }

    /// The link to a neighbour, or the peer connection to another node.
    async fn connection(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Result<(Arc<Connection>, Arc<Usage>, Lease), OpenError> {
        let mut view = self.0.view.clone();
        let known = |view: &Arc<View>| {
            view.closed
                || *node == self.0.id
                || live_link(view, node).is_some()
                || has_route(view, node)
        };
        let waiting = async {
            tokio::select! {
                biased;
                found = view.wait_for(known) => found.map(|view| view.clone()),
                never = self.keep_verifying(node) => match never {},
            }
        };
        let view = match tokio::time::timeout(ROUTE_WAIT, waiting).await {
            Ok(Ok(view)) => view,
            Ok(Err(_)) => return Err(OpenError::ShutDown),
            Err(_) => return Err(OpenError::NoRoute { node: node.clone() }),
        };
        if view.closed {
            return Err(OpenError::ShutDown);
        }
        if let Some(link) = live_link(&view, node) {
            return Ok((link.connection.clone(), link.usage.clone(), link.usage.lease()));
        }
        if view.stub && *node != self.0.id && self.ask_for_route(node).await.is_none() {
            return Err(OpenError::NoRoute { node: node.clone() });
        }
        self.0.peers.connection(node, peer_timeout).await
    }

    /// A stub asks its neighbour, more than once: it may hear of the node a moment later.
    async fn ask_for_route(&self, node: &NodeId) -> Option<(u64, u32)> {
        let asking = async {
            loop {
                if let Ok(Some(route)) = self.ask(|reply| Command::Query(node.clone(), reply)).await
                {
                    return route;
                }
                tokio::time::sleep(ROUTE_WAIT / 5).await;
            }
        };
        tokio::time::timeout(ROUTE_WAIT, asking).await.ok()
    }

    /// Waits until this node can open no more streams to `node`, because it is shut down or has
    /// yielded its id.
    async fn barred(&self, node: &NodeId) -> OpenError {
        let mut view = self.0.view.clone();
        // A node that has yielded still reaches itself.
        let yields = *node != self.0.id;
        let ended =
            view.wait_for(|view| view.closed || (yields && view.yielded_to.is_some())).await;
        let to = ended.ok().filter(|view| !view.closed).and_then(|view| view.yielded_to.clone());
        to.map_or(OpenError::ShutDown, |to| OpenError::Yielded { to })
    }

    /// What an error of a closed node is: whatever went wrong first, the node is the reason.
    fn unless_closed(&self, error: OpenError) -> OpenError {
        if self.0.view.borrow().closed { OpenError::ShutDown } else { error }
    }

    /// Waits until there is a way to a node.
    pub(crate) async fn routable(&self, node: &NodeId) -> Result<(), ShutDown> {
        let mut view = self.0.view.clone();
        let known = |view: &Arc<View>| {
            view.closed
                || *node == self.0.id
                || live_link(view, node).is_some()
                || has_route(view, node)
        };
        let closed = tokio::select! {
            biased;
            found = view.wait_for(known) => found.map_or(true, |view| view.closed),
            never = self.keep_verifying(node) => match never {},
        };
        if closed { Err(ShutDown) } else { Ok(()) }
    }

    /// Has the node verified as a stub as long as others list it without a proof that is known
    /// here.
    async fn keep_verifying(&self, node: &NodeId) -> Infallible {
        let mut view = self.0.view.clone();
        loop {
            if view.wait_for(|view| view.table.is_claimed(node)).await.is_err()
                || self.0.inputs.send(Input::Command(Command::Verify(node.clone()))).await.is_err()
            {
                return std::future::pending().await;
            }
            tokio::time::sleep(ROUTE_WAIT).await;
        }
    }

    /// The neighbour that packets for a node go to, and the cost and hops, as far as this node
    /// knows.
    pub(crate) fn next_hop(&self, node: &NodeId) -> Option<(NodeId, u64, u32)> {
        next_hop(&self.0.view.borrow(), node)
    }

    /// The routes and links as they are now, and as they change.
    pub(crate) fn view(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.clone()
    }

    /// Waits until the node is part of the mesh, or every configured peer has refused it. An empty
    /// error: it never will.
    pub(crate) async fn linked(&self) -> Result<(), Vec<(PeerAddr, Refusal)>> {
        let mut events = self.events();
        let mut view = self.0.view.clone();
        loop {
            let refusals: Vec<_> = self
                .0
                .dialled
                .iter()
                .filter_map(|dialled| {
                    Some((dialled.peer.clone(), dialled.with(|state| state.refusal.clone())?))
                })
                .collect();
            if !refusals.is_empty() && refusals.len() == self.0.dialled.len() {
                return Err(refusals);
            }
            tokio::select! {
                biased;
                linked = view.wait_for(|view| view.linked || view.closed || view.yielded_to.is_some()) => {
                    return match linked {
                        Ok(view) if view.linked && view.yielded_to.is_none() => Ok(()),
                        _ => Err(Vec::new()),
                    };
                }
                // Whatever happened, the peers are looked at again.
                _ = events.recv() => {}
            }
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        // Without a sender, it is at its end.
        self.0.events.upgrade().unwrap_or_else(|| broadcast::channel(1).0).subscribe()
    }

    pub(crate) async fn status(&self, options: StatusOptions) -> Result<Status, ShutDown> {
        let snapshot = self.ask(|reply| Command::Status(options, reply)).await?;
        if snapshot.is_small() {
            return Ok(snapshot.into_status());
        }
        // Neither the driver nor this runtime's other tasks wait for it.
        let building = self.0.runtime.spawn_blocking(move || snapshot.into_status());
        building.await.map_err(|_| ShutDown)
    }

    pub(crate) async fn explain(&self, node: &NodeId) -> Result<NodeExplanation, ShutDown> {
        let stub = self.0.view.borrow().stub;
        if stub && *node != self.0.id {
            // Its neighbour knows whether the node has left. What it answers is kept.
            let answer = self.ask(|reply| Command::Query(node.clone(), reply));
            let _ = tokio::time::timeout(ROUTE_WAIT, answer).await;
        }
        let known = self.ask(|reply| Command::Explain(node.clone(), reply)).await?;
        if !known.awaits_proof() {
            return Ok(known);
        }
        // The claims about a stub are verified when somebody asks for it.
        let mut view = self.0.view.clone();
        let verified = async {
            self.0
                .inputs
                .send(Input::Command(Command::Verify(node.clone())))
                .await
                .map_err(|_| ShutDown)?;
            loop {
                view.changed().await.map_err(|_| ShutDown)?;
                let known = self.ask(|reply| Command::Explain(node.clone(), reply)).await?;
                if !known.awaits_proof() {
                    return Ok(known);
                }
            }
        };
        tokio::time::timeout(EXPLAIN_WAIT, verified).await.unwrap_or(Ok(known))
    }

    /// Whether all nodes have the route to this one. Dropped, it gives the request up.
    pub(crate) async fn converged(&self, within: Duration) -> Result<Convergence, ConvergeError> {
        let answer = self.ask(|reply| Command::Converge(within, reply)).await;
        answer.unwrap_or(Err(ConvergeError::ShutDown))
    }

    /// Replaces what the node advertises of itself. `current` is called under a lock, so that of
    /// two changes at once the later one to be made is also the later one to be seen.
    pub(crate) fn set_capabilities(&self, current: impl FnOnce() -> bytes::Bytes) {
        self.0.capabilities.send_modify(|capabilities| *capabilities = current());
    }

    /// Shows another identity from now on, proves it on live connections, and closes those that it
    /// does not accept.
    pub(crate) async fn reload(&self, identity: Identity) -> Result<(), ShutDown> {
        self.0.vetting.reload(identity.clone());
        let reload = Input::Command(Command::Reload(Box::new(identity)));
        self.0.inputs.send(reload).await.map_err(|_| ShutDown)
    }

    /// The shutdown that all callers share.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Runs a task on the runtime that drives the node. It is dropped at once if that is gone.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(task.instrument(info_span!("node", id = %self.0.id)));
    }

    /// Waits until all streams have ended, and what this node had finished sending was delivered.
    /// For one caller.
    pub(crate) async fn streams_ended(&self) {
        self.0.services.open_streams.ended().await;
    }

    /// Takes no more streams.
    pub(crate) fn refuse_streams(&self) {
        self.0.services.leave();
    }

    /// Withdraws, waits for the neighbours to hear it, and closes. The port is free afterwards,
    /// whatever handles are left.
    pub(crate) async fn leave(&self) {
        self.refuse_streams();
        self.0.peers.close().await;
        let farewell = async {
            // An error means that the driver has gone: nobody is left to say farewell to.
            let _ = self.ask(Command::Leave).await;
            let mut view = self.0.view.clone();
            let _ = view.wait_for(|view| view.links.is_empty() || view.closed).await;
        };
        // A neighbour that does not listen is not waited for.
        let _ = tokio::time::timeout(LEAVE_WAIT, async {
            tokio::join!(farewell, self.0.outside.ended())
        })
        .await;
        self.0.life.send_replace(true);
        let mut view = self.0.view.clone();
        // The view's sender is the driver's, and goes when that has let go of the port.
        let gone = async { while view.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(CLOSE_WAIT, gone).await;
        let _ = tokio::time::timeout(PORT_WAIT, self.0.endpoint.socket().released()).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ShutDown> {
        let (reply, answer) = oneshot::channel();
        self.0.inputs.send(Input::Command(command(reply))).await.map_err(|_| ShutDown)?;
        answer.await.map_err(|_| ShutDown)
    }
}

/// The neighbour that packets for a node go to, and the cost and hops.
pub(crate) fn next_hop(view: &View, node: &NodeId) -> Option<(NodeId, u64, u32)> {
    let (cost, hops) = match view.table.route(node) {
        Some(route) => (route.cost, route.hops),
        // A stub's packets go to whom it is attached to, and straight there if that is the node.
        None if view.stub => (0, 0),
        None => return None,
    };
    Some((view.first_hop(node)?, cost, hops))
}

fn live_link<'a>(view: &'a View, node: &NodeId) -> Option<&'a LinkView> {
    view.links.get(node).map(|link| &**link).filter(|link| link.connection.close_reason().is_none())
}

fn has_route(view: &View, node: &NodeId) -> bool {
    view.reaches(node) || (view.stub && view.linked)
}

/// Fails once the deadline has passed, if there is one.
async fn within<T>(
    deadline: Option<Duration>,
    opening: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    match deadline {
        None => opening.await,
        Some(deadline) => tokio::time::timeout(deadline, opening)
            .await
            .unwrap_or(Err(OpenError::Deadline(deadline))),
    }
}

/// Waits until the peer is given up, if that is ever.
async fn given_up(patience: Option<Patience>) -> Cause {
    match patience {
        Some(patience) => patience.ended().await,
        None => std::future::pending().await,
    }
}

/// Sends the header of a stream that was just opened.
async fn begin(
    node: &NodeId,
    (send, recv): (quinn::SendStream, quinn::RecvStream),
    first: &FirstCause,
    lease: StreamLease,
    header: bytes::Bytes,
) -> Result<Stream, OpenError> {
    // The header may have to wait for the send window, which a more patient stream may have filled.
    // An open that fails or is dropped meanwhile drops the stream, which resets it.
    let mut stream = Stream::opened(send, recv, first).leased(lease);
    match stream.send.write_header(header).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(quinn::WriteError::ConnectionLost(error))) => {
            Err(OpenError::lost(node, first.of(&error)))
        }
        Ok(Err(error)) => {
            Err(OpenError::Unreachable { node: node.clone(), why: error.to_string() })
        }
        Err(cause) => Err(OpenError::lost(node, cause)),
    }
}
