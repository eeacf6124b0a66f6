//! From the parts of a mesh to its running tasks.
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{Instrument, info_span};

use super::{Inner, Mesh};
use crate::id::{Cost, NodeId};
use crate::mesh::data_dir::datadir;
use crate::mesh::data_dir::datadir::DataDir;
use crate::mesh::data_dir::manifest::Manifest;
use crate::mesh::driver::attaching::Attaching;
use crate::mesh::driver::converge::Waiting;
use crate::mesh::driver::expiry::ExpiryWatch;
use crate::mesh::driver::forwarding::RouteCache;
use crate::mesh::driver::shutdown::Shutdown;
use crate::mesh::driver::verification::{CredentialChecks, VerificationPool};
use crate::mesh::driver::verifying::WaitingQueries;
use crate::mesh::driver::{Driver, Role, Start, Stub, renewal, unreachable};
use crate::mesh::input::{Input, MAX_INPUTS};
use crate::mesh::links::acceptor::{Acceptor, Handshakes};
use crate::mesh::links::dialler::{Dialler, MakeHello};
use crate::mesh::links::dials::Dials;
use crate::mesh::links::distrust::Distrusted;
use crate::mesh::links::endings::Endings;
use crate::mesh::links::link_cost::{LinkCost, LinkCosts};
use crate::mesh::links::names::Resolve;
use crate::mesh::links::neighbours::Neighbours;
use crate::mesh::links::notary::CertificateNotary;
use crate::mesh::links::peer_addr::PeerAddr;
use crate::mesh::links::twin::ReportedTwin;
use crate::mesh::links::vetting::Vetting;
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::network::outside::Outside;
use crate::mesh::network::roaming;
use crate::mesh::network::roaming::Roaming;
use crate::mesh::peers::Peers;
use crate::mesh::peers::detours::Detours;
use crate::mesh::peers::doubt::Doubts;
use crate::mesh::peers::paths::Paths;
use crate::mesh::report::departures::Departures;
use crate::mesh::report::events::Linked;
use crate::mesh::report::log::{LogLimits, ReachabilityLog};
use crate::mesh::report::refusal_log::SharedRefusalLog;
use crate::mesh::services::{Admission, Services, certificate};
use crate::mesh::{clock, peers};
use crate::router;
use crate::router::Router;
use crate::switch::Cookie;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame::{Hello, VERSIONS};
use crate::transport::path_mtu::PathMtus;
use crate::transport::renewable::Renewable;
use crate::transport::settings::{ReceiveLimits, Transports};
use crate::transport::unreachable::Reports;
use crate::transport::{Congestion, Identity, Liveness, Socket, random};

/// Events that a slow listener may fall behind, at most; it then misses the oldest, and is told so.
pub(crate) const MAX_EVENTS: usize = 1_024;

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
        let (inputs, queue) = mpsc::channel(MAX_INPUTS);
        let told = parts.direct.then(|| inputs.clone());
        let pool = VerificationPool::new();
        let vetting = Vetting::new(endpoint.clone(), pool.clone(), parts.logs.clone());
        let checks = CredentialChecks::new(pool, notary.clone());
        let renewals = services
            .offer(certificate::service(), true, Admission::Everybody)
            .expect("it is the first service of all");
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
        let span = info_span!("node", id = %parts.id);
        let dials = Dials::start(dialler.clone(), span.clone(), parts.peers);
        let dialled = dials.peers();
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
            dials,
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
}
