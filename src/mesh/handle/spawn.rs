//! From the parts of a mesh to its running tasks.
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{Instrument, Span, info_span};

use super::{Inner, Mesh};
use crate::id::{Cost, NodeId};
use crate::mesh::access::gate::Gate;
use crate::mesh::data_dir::datadir;
use crate::mesh::data_dir::datadir::DataDir;
use crate::mesh::data_dir::manifest::Manifest;
use crate::mesh::driver::converge::Waiting;
use crate::mesh::driver::forwarding::RouteCache;
use crate::mesh::driver::proofs::expiry::ExpiryWatch;
use crate::mesh::driver::proofs::renewal;
use crate::mesh::driver::proofs::verification::{CredentialChecks, VerificationPool};
use crate::mesh::driver::shutdown::Shutdown;
use crate::mesh::driver::stubs::attaching::Attaching;
use crate::mesh::driver::stubs::verifying::WaitingQueries;
use crate::mesh::driver::{Driver, Role, Start, Stub, unreachable};
use crate::mesh::input::{Input, MAX_INPUTS};
use crate::mesh::links::admission::acceptor::{Acceptor, Handshakes};
use crate::mesh::links::admission::tcp::TcpAcceptor;
use crate::mesh::links::dialling::dialler::{Dialler, MakeHello};
use crate::mesh::links::dialling::dials::Dials;
use crate::mesh::links::dialling::names::Resolve;
use crate::mesh::links::dialling::peer_addr::PeerAddr;
use crate::mesh::links::endings::Endings;
use crate::mesh::links::link_cost::{LinkCost, LinkCosts};
use crate::mesh::links::neighbours::Neighbours;
use crate::mesh::links::trust::distrust::Distrusted;
use crate::mesh::links::trust::notary::CertificateNotary;
use crate::mesh::links::trust::vetting::Vetting;
use crate::mesh::links::twin::ReportedTwin;
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::network::outside::Outside;
use crate::mesh::network::roaming;
use crate::mesh::network::roaming::Roaming;
use crate::mesh::peers::Peers;
use crate::mesh::peers::detours::Detours;
use crate::mesh::peers::doubt::Doubts;
use crate::mesh::peers::paths::Paths;
use crate::mesh::report::departures::Departures;
use crate::mesh::report::events::{Event, Linked};
use crate::mesh::report::log::{LogLimits, ReachabilityLog};
use crate::mesh::report::refusal_log::SharedRefusalLog;
use crate::mesh::services::{Admission, Services, certificate};
use crate::mesh::view::View;
use crate::mesh::{clock, peers};
use crate::router;
use crate::router::Router;
use crate::switch::Cookie;
use crate::transport::carrier::ListenTcp;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::{Hello, VERSIONS};
use crate::transport::path_mtu::PathMtus;
use crate::transport::renewable::Renewable;
use crate::transport::settings::{ReceiveLimits, Transports};
use crate::transport::unreachable::Reports;
use crate::transport::{Congestion, Identity, Liveness, Socket, random};

/// The capacity of the event channel. A slow listener misses the oldest events, and is notified.
pub(crate) const MAX_EVENTS: usize = 1_024;

/// The parts that a mesh is made of, checked.
pub(crate) struct Parts {
    pub(crate) id: NodeId,
    pub(crate) identity: Identity,
    pub(crate) socket: Arc<Socket>,
    /// The UDP sockets below `socket` whose sending can be restarted; `socket` alone owns them.
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
    /// Where links by TLS are let in.
    pub(crate) listen_tcp: Vec<ListenTcp>,
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
    /// Who may do what.
    pub(crate) gate: Gate,
    /// How many received bytes connections may hold that the application has not read.
    pub(crate) receive_limits: ReceiveLimits,
    pub(crate) max_datagram: u16,
    pub(crate) epoch: u64,
    pub(crate) data_dir: Option<DataDir>,
    pub(crate) manifest: datadir::Manifest,
    /// Limits of the log lines that other nodes cause, shared with whatever else logs for this
    /// node.
    pub(crate) logs: LogLimits,
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
    pub(in crate::mesh) fn assemble(
        mut parts: Parts,
    ) -> std::io::Result<(Self, Driver, mpsc::Receiver<Input>, watch::Receiver<bool>)> {
        let start = Start { epoch: parts.epoch, instance: random::bits() };
        let span = info_span!("node", id = %parts.id);
        let (inputs, queue) = mpsc::channel(MAX_INPUTS);
        let (life, living) = watch::channel(false);
        let (capabilities, advertised) = watch::channel(bytes::Bytes::new());
        let (view, shown) = watch::channel(Arc::default());
        let (moves, moved) = watch::channel(0);
        let hello = parts.greeting(start);
        let listen_tcp = std::mem::take(&mut parts.listen_tcp);
        let tcp_addrs: Vec<_> = listen_tcp.iter().map(|listening| listening.addr).collect();
        let shared = Shared::new(&parts, inputs)?;
        let renewals = shared
            .services
            .offer(certificate::service(), true, Admission::Own)
            .expect("it is the first service of all");
        let dialler = shared.dialler(&parts, hello.clone(), shown.clone(), moved);
        let outputs = Outputs { view, capabilities: advertised, span: span.clone() };
        let mut driver = shared.driver(&parts, start, &dialler, outputs);
        driver.listen_tcp.clone_from(&tcp_addrs);

        let spawn = Spawn { span, parts: &parts, shared: &shared };
        spawn.until_ended(living.clone(), shared.vetting.clone().run());
        spawn.task(renewal::serve(renewals, shared.vetting.clone()));
        spawn.accept(hello);
        spawn.accept_carriers(listen_tcp, &living);
        spawn.watch_peers(shown.clone());
        spawn.watch_network(moves);
        let outside = spawn.look_outside(&dialler);
        let mesh = Self(Arc::new(Inner {
            id: parts.id,
            endpoint: shared.endpoint,
            services: shared.services,
            peers: shared.peers,
            vetting: shared.vetting,
            dialled: driver.dials.peers(),
            inputs: shared.inputs,
            reloading: tokio::sync::Mutex::default(),
            capabilities,
            view: shown,
            events: shared.events.downgrade(),
            #[cfg(feature = "testing")]
            reports: parts.reports,
            outside,
            listen_tcp: tcp_addrs,
            runtime: Handle::current(),
            shutdown: Shutdown::default(),
            life,
        }));
        Ok((mesh, driver, queue, living))
    }
}

/// What the driver, the tasks beside it and the handle share.
struct Shared {
    endpoint: Arc<Endpoint>,
    services: Services,
    pool: VerificationPool,
    vetting: Vetting,
    peers: Peers,
    handshakes: Handshakes,
    inputs: mpsc::Sender<Input>,
    events: broadcast::Sender<Event>,
}

/// Where the driver publishes what it knows, and what its node says of itself.
struct Outputs {
    view: watch::Sender<Arc<View>>,
    capabilities: watch::Receiver<bytes::Bytes>,
    /// That of the node's tasks.
    span: Span,
}

impl Shared {
    fn new(parts: &Parts, inputs: mpsc::Sender<Input>) -> std::io::Result<Self> {
        let endpoint = parts.endpoint()?;
        let pool = VerificationPool::new();
        let vetting = Vetting::new(endpoint.clone(), pool.clone(), parts.gate.clone());
        let services = Services::new(parts.receive_limits);
        let peers = Peers::new(
            endpoint.clone(),
            services.clone(),
            vetting.clone(),
            parts.direct.then(|| inputs.clone()),
            inputs.clone(),
            parts.peer_timeout,
        );
        let (events, _) = broadcast::channel(MAX_EVENTS);
        let handshakes = Handshakes::default();
        Ok(Self { endpoint, services, pool, vetting, peers, handshakes, inputs, events })
    }

    fn dialler(
        &self,
        parts: &Parts,
        hello: Arc<dyn MakeHello>,
        view: watch::Receiver<Arc<View>>,
        moved: watch::Receiver<u64>,
    ) -> Dialler {
        Dialler {
            endpoint: self.endpoint.clone(),
            hello,
            inputs: self.inputs.clone(),
            view,
            events: self.events.clone(),
            moved,
            resolver: parts.resolver.clone(),
            reports: parts.reports.clone(),
            #[cfg(feature = "mdns")]
            logs: parts.logs.clone(),
        }
    }

    fn driver(&self, parts: &Parts, start: Start, dialler: &Dialler, outputs: Outputs) -> Driver {
        let now = clock::now();
        let Outputs { view, capabilities, span } = outputs;
        let notary = Arc::new(CertificateNotary::new(&parts.identity, clock::system));
        let manifest = Manifest::new(parts.data_dir.clone(), parts.manifest.clone(), now);
        let role = parts.role(start, notary.clone(), &manifest);
        Driver {
            id: parts.id.clone(),
            transit: parts.transit,
            accept_links: parts.accept_links,
            listen_tcp: Vec::new(),
            role,
            routes: RouteCache::default(),
            costs: parts.costs.clone(),
            neighbours: Neighbours::new(parts.id.clone(), parts.ephemeral),
            manifest,
            endpoint: self.endpoint.clone(),
            services: self.services.clone(),
            peers: self.peers.clone(),
            vetting: self.vetting.clone(),
            handshakes: self.handshakes.clone(),
            checks: CredentialChecks::new(self.pool.clone(), notary),
            endings: Endings::new(),
            paths: parts.paths(now),
            detours: Detours::new(now),
            dials: Dials::start(dialler.clone(), span, parts.peers.clone()),
            inputs: self.inputs.clone(),
            capabilities,
            view,
            events: self.events.clone(),
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
            roaming: Roaming::new(dialler.clone(), parts.addresses(), now),
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
        }
    }
}

impl Parts {
    fn endpoint(&self) -> std::io::Result<Arc<Endpoint>> {
        let transports = Transports {
            liveness: self.liveness,
            congestion: self.congestion,
            max_datagram: self.max_datagram,
            direct: self.direct,
            measured: self.costs.usual == LinkCost::RoundTrip,
        };
        let path_mtus = PathMtus::new(!self.renewable.is_empty());
        let endpoint =
            Endpoint::new(self.socket.clone(), self.identity.clone(), transports, path_mtus)?;
        Ok(Arc::new(endpoint.with_suffix_of(&self.id)))
    }

    /// What routes: all of ROUTE2, or a stub's attachments.
    fn role(&self, start: Start, notary: Arc<CertificateNotary>, known: &Manifest) -> Role {
        let Start { epoch, instance } = start;
        if self.ephemeral {
            let attaching = Attaching::new(self.id.clone(), notary, epoch, instance);
            return Role::Stub(Stub::new(attaching));
        }
        let mut config = router::Config::new(self.id.clone(), epoch, instance, random::bits());
        config.transit = self.transit;
        config.notary = Some(notary);
        config.dormant = known.known();
        Role::Full(Box::new(Router::new(config, clock::now())))
    }

    /// What looks for direct paths.
    fn paths(&self, now: Instant) -> Paths {
        if !self.direct {
            return Paths::off();
        }
        let real_time = !self.renewable.is_empty();
        let interfaces = self.interfaces.watch();
        Paths::new(self.id.clone(), interfaces, self.external.clone(), real_time, now)
    }

    /// The addresses of this machine as they are now.
    fn addresses(&self) -> Vec<IpAddr> {
        let network = self.interfaces.watch();
        network.borrow().addresses.iter().map(|address| address.ip).collect()
    }

    fn greeting(&self, start: Start) -> Arc<dyn MakeHello> {
        Arc::new(Greeting {
            id: self.id.clone(),
            start,
            cost: self.costs.in_hello(),
            stub: self.ephemeral,
            transit: self.transit,
        })
    }
}

/// Starts the tasks beside the driver.
struct Spawn<'a> {
    span: Span,
    parts: &'a Parts,
    shared: &'a Shared,
}

impl Spawn<'_> {
    /// Starts a task that ends by itself when the node does.
    fn task(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task.instrument(self.span.clone()));
    }

    /// Starts a task that does not.
    fn until_ended(
        &self,
        mut ended: watch::Receiver<bool>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.task(async move {
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => {}
                () = task => {}
            }
        });
    }

    /// Takes connections of others: links and peer connections.
    fn accept(&self, hello: Arc<dyn MakeHello>) {
        let acceptor = Acceptor {
            endpoint: self.shared.endpoint.clone(),
            hello,
            inputs: self.shared.inputs.clone(),
            peers: self.shared.peers.clone(),
            events: self.shared.events.clone(),
            accept_links: self.parts.accept_links,
            refusals: SharedRefusalLog::default(),
            handshakes: self.shared.handshakes.clone(),
        };
        self.task(acceptor.run());
    }

    /// Takes TCP connections that carry links.
    fn accept_carriers(&self, listen: Vec<ListenTcp>, living: &watch::Receiver<bool>) {
        for listening in listen {
            let acceptor = TcpAcceptor {
                endpoint: self.shared.endpoint.clone(),
                listening,
                half_open: self.shared.handshakes.carriers.clone(),
            };
            self.until_ended(living.clone(), acceptor.run());
        }
    }

    /// Gives up peers that have been unreachable for too long.
    fn watch_peers(&self, view: watch::Receiver<Arc<View>>) {
        let watch = peers::Watch {
            id: self.parts.id.clone(),
            peers: self.shared.peers.clone(),
            view,
            inputs: self.shared.inputs.clone(),
            logs: self.parts.logs.clone(),
        };
        self.task(watch.run());
    }

    /// Notices what the system says: addresses that change, and packets that do not arrive.
    fn watch_network(&self, moves: watch::Sender<u64>) {
        for socket in self.parts.renewable.iter().filter_map(Weak::upgrade) {
            self.task(unreachable::read_icmp(socket, self.shared.inputs.clone()));
        }
        let reports = self.parts.reports.subscribe();
        self.task(unreachable::follow_reports(reports, self.shared.inputs.clone()));
        self.task(roaming::follow(
            self.parts.interfaces.clone(),
            self.shared.endpoint.clone(),
            self.parts.renewable.clone(),
            moves,
            self.shared.inputs.clone(),
        ));
    }

    /// Asks the local network for peers and the router for a port, as configured.
    #[cfg_attr(not(any(feature = "mdns", feature = "portmap")), allow(unused_variables))]
    fn look_outside(&self, dialler: &Dialler) -> Outside {
        let outside = Outside::default();
        #[cfg(feature = "mdns")]
        if self.parts.lan {
            let Parts { id, accept_links, interfaces, .. } = self.parts;
            self.span.in_scope(|| outside.find_on_lan(id, *accept_links, dialler, interfaces));
        }
        #[cfg(feature = "portmap")]
        if self.parts.map_port {
            self.span.in_scope(|| outside.map_port(dialler, &self.parts.interfaces));
        }
        outside
    }
}
