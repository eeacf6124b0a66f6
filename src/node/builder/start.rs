//! Checks the settings, and starts a node.
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::NodeBuilder;
use crate::id::NodeId;
use crate::mesh::access::gate::Gate;
use crate::mesh::data_dir::datadir::{DataDir, Manifest};
use crate::mesh::data_dir::pid_lock::LockError;
use crate::mesh::handle::{Mesh, Parts};
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::{Convergence, ShutDown, clock};
use crate::node::error::{MAX_EXTERNAL, MAX_LISTEN, StartError};
use crate::node::{Inner, Node, check_identity};
use crate::switch::SwitchCounters;
use crate::transport::carrier::ListenTcp;
use crate::transport::unreachable::Reports;
use crate::transport::{ListenAddr, PEER_TIMEOUTS, RECEIVE_WINDOWS, Socket, bind};
use crate::work;
use crate::work::unit::{Engine, OpenUnitsError, OpenedUnits, UnitsConfig};

/// How long [`NodeBuilder::start`] waits for the data directory: a node of this process that was
/// shut down a moment ago may still be writing its last state.
const DATA_DIR_WAIT: Duration = Duration::from_secs(1);
/// Poll interval for the directory's lock, which has no notification.
const DATA_DIR_POLL: Duration = Duration::from_millis(20);

impl NodeBuilder {
    /// Checks the settings, binds, and starts the node's tasks on the current tokio runtime.
    /// Returns at once: links come up in the background, see [`Node::linked`];
    /// [`wait_converged`](Self::wait_converged) has it wait for them.
    ///
    /// # Errors
    /// A setting is wrong, or the system refused something. Nothing is left running.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let id = self.id.clone().map_err(StartError::InvalidId)?;
        if let Some(invalid) = self.invalid.take() {
            return Err(invalid);
        }
        self.check(&id)?;
        let (epoch, data_dir, manifest) = self.open_data_dir().await?;
        let units =
            open_units(self.units.clone(), data_dir.clone().zip(self.data_dir.clone())).await?;
        let accept_links = !self.listen.is_empty() || self.sockets.is_some();
        let reports = Reports::default();
        let listen_tcp = bind_tcp(&self.listen_tcp)?;
        let (sockets, renewable, port_opener) = match self.sockets {
            Some(sockets) => (sockets, Vec::new(), self.port_opener),
            None => {
                let bound = bind::bind(&self.listen, &reports)?;
                let port_opener = bind::port_opener(&bound, &reports);
                let renewable = bound.iter().map(Arc::downgrade).collect();
                let sockets =
                    bound.into_iter().map(|socket| socket as Arc<dyn quinn::AsyncUdpSocket>);
                (sockets.collect(), renewable, port_opener)
            }
        };
        let interfaces = self.interfaces.unwrap_or_else(|| match renewable.is_empty() {
            true => Interfaces::unknown(),
            false => Interfaces::of_this_machine(),
        });
        let socket = Socket::new(sockets, id.addr(), Arc::new(SwitchCounters::default()))?
            .with_port_opener(port_opener);
        if let Some(rate) = self.transit_rate {
            socket.limit_transit(rate);
        }
        let dials = !self.peers.is_empty();
        let logs = self.registry.log_limits().clone();
        let gate = Gate::new(id.clone(), self.policy, logs);
        let mesh = Mesh::spawn(Parts {
            logs: self.registry.log_limits().clone(),
            id,
            identity: gate.judging_transit(self.identity),
            gate,
            socket: Arc::new(socket),
            renewable,
            reports,
            resolver: self.resolver,
            interfaces,
            #[cfg(feature = "mdns")]
            lan: self.lan && !self.ephemeral,
            #[cfg(feature = "portmap")]
            map_port: self.map_port && !self.ephemeral,
            accept_links,
            listen_tcp,
            peers: self.peers,
            transit: self.transit && !self.ephemeral,
            ephemeral: self.ephemeral,
            direct: self.direct.unwrap_or(!self.ephemeral),
            external: self.external,
            costs: self.costs,
            liveness: self.liveness,
            congestion: self.congestion,
            peer_timeout: self.peer_timeout,
            receive_limits: self.receive_limits,
            max_datagram: self.max_datagram,
            epoch,
            data_dir,
            manifest,
        })?;
        let registry = self.registry;
        work::spawn(&mesh, &registry).map_err(not_spawned)?;
        mesh.set_capabilities(|| work::capabilities(&registry));
        let units = match units {
            Some(opened) => Some(Engine::start(opened, &mesh, &registry).await?),
            None => None,
        };
        let node = Node(Arc::new(Inner { mesh, registry, units }));
        if let Some(within) = self.wait_converged {
            node.settle(within, dials).await;
        }
        Ok(node)
    }

    fn check(&self, id: &NodeId) -> Result<(), StartError> {
        check_identity(id, &self.identity)?;
        if self.listen.len() > MAX_LISTEN || self.listen_tcp.len() > MAX_LISTEN {
            return Err(StartError::TooManyListen);
        }
        for (nth, listen) in self.listen.iter().enumerate() {
            let shared = |before: &ListenAddr| {
                before.ips().find(|ip| listen.ips().any(|other| other == *ip))
            };
            if let Some(ip) = self.listen[..nth].iter().find_map(shared) {
                return Err(StartError::ListenTwice(ip));
            }
        }
        if !RECEIVE_WINDOWS.contains(&self.receive_limits.per_peer) {
            return Err(StartError::ReceiveWindow(self.receive_limits.per_peer));
        }
        if !PEER_TIMEOUTS.contains(&self.peer_timeout) {
            return Err(StartError::PeerTimeout(self.peer_timeout));
        }
        if self.external.len() > MAX_EXTERNAL {
            return Err(StartError::TooManyExternal);
        }
        if let Some(addr) =
            self.external.iter().find(|addr| addr.ip().is_unspecified() || addr.port() == 0)
        {
            return Err(StartError::NotExternal(*addr));
        }
        if id.suffix().is_some() && !self.ephemeral {
            return Err(StartError::SuffixedId(id.clone()));
        }
        if self.ephemeral && self.peers.is_empty() {
            return Err(StartError::EphemeralWithoutPeer);
        }
        Ok(())
    }

    async fn open_data_dir(&self) -> Result<(u64, Option<DataDir>, Manifest), StartError> {
        let now = clock::unix_ms();
        let Some(path) = self.data_dir.clone().filter(|_| !self.ephemeral) else {
            return Ok((now, None, Manifest::new()));
        };
        let deadline = tokio::time::Instant::now() + DATA_DIR_WAIT;
        let dir = loop {
            match DataDir::open(path.clone()) {
                Ok(dir) => break dir,
                Err(LockError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(DATA_DIR_POLL).await;
                }
                Err(LockError::Held { pid }) => return Err(StartError::DataDirInUse { path, pid }),
                Err(LockError::Io(error)) => return Err(StartError::DataDir { path, error }),
            }
        };
        Ok((dir.next_epoch(now), Some(dir.clone()), dir.manifest(clock::unix_secs())))
    }
}

impl Node {
    /// Waits until the node is linked, if it dials anybody, and has converged; says in the log if
    /// it has not.
    async fn settle(&self, within: Duration, dials: bool) {
        let start = tokio::time::Instant::now();
        if dials {
            match tokio::time::timeout(within, self.linked()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    return tracing::warn!(node = %self.id(), %error, "started without a link");
                }
                Err(_) => {
                    return tracing::warn!(node = %self.id(), ?within, "started without a link");
                }
            }
        }
        match self.converged(within.saturating_sub(start.elapsed())).await {
            Ok(Convergence::Converged { count }) => {
                tracing::info!(node = %self.id(), count, "converged")
            }
            Ok(Convergence::Partial { count, expected }) => {
                tracing::warn!(node = %self.id(), count, expected, "started before all nodes have its route");
            }
            Err(error) => tracing::warn!(node = %self.id(), %error, "not converged"),
        }
    }
}

/// Listens for links by TLS.
fn bind_tcp(listen: &[ListenAddr]) -> io::Result<Vec<ListenTcp>> {
    let bind = |listen: &ListenAddr| match *listen {
        ListenAddr::At(addr) => ListenTcp::bind(addr),
        // `[::]` includes IPv4, if the host has IPv6 at all.
        ListenAddr::Any(port) => ListenTcp::bind((Ipv6Addr::UNSPECIFIED, port).into())
            .or_else(|_| ListenTcp::bind((Ipv4Addr::UNSPECIFIED, port).into())),
    };
    listen.iter().map(bind).collect()
}

/// Opens the directory of units, and reads what is there.
async fn open_units(
    config: Option<UnitsConfig>,
    data_dir: Option<(DataDir, PathBuf)>,
) -> Result<Option<OpenedUnits>, StartError> {
    let Some(config) = config else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || {
        OpenedUnits::open(
            config,
            data_dir.as_ref().map(|(dir, path)| (dir.clone(), path.as_path())),
        )
    });
    match opened.await {
        Ok(Ok(opened)) => Ok(Some(opened)),
        Ok(Err(OpenUnitsError::NoDirectory)) => Err(StartError::UnitsWithoutDirectory),
        Ok(Err(OpenUnitsError::Io { path, error })) => Err(StartError::Units { path, error }),
        Err(_) => Err(StartError::ShutDown(ShutDown)),
    }
}

fn not_spawned(error: work::SpawnError) -> StartError {
    match error {
        work::SpawnError::Serve(error) => StartError::Serve(error),
        work::SpawnError::Register(error) => StartError::Register(error),
    }
}
