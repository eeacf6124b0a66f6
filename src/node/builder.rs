//! The settings of a node.

mod start;

use std::future::Future;
#[cfg(feature = "testing")]
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::error::{MAX_EXTERNAL, MAX_LISTEN, StartError};
use super::names::name;
use crate::id::{Cost, Directive, InvalidDirective, InvalidName, NodeId};
#[cfg(feature = "testing")]
use crate::mesh::LocalAddress;
use crate::mesh::links::dialling::names::{Resolve, SystemResolver};
use crate::mesh::network::interfaces::Interfaces;
use crate::mesh::{InvalidPeerAddr, LinkCost, LinkCosts, PeerAddr};
use crate::policy::Policy;
use crate::transport::settings::ReceiveLimits;
use crate::transport::{
    Congestion, DEFAULT_PEER_TIMEOUT, Identity, InvalidListenAddr, ListenAddr, Liveness,
    PortOpener, random, settings,
};
use crate::work::unit::UnitsConfig;
use crate::work::{Command, HandlerError, RegisterError, Registry, Request, Responder};

impl Node {
    /// Begins a node with this id, which the identity's certificate must carry.
    ///
    /// The id is a [`NodeId`], or text to be parsed; if that is not valid,
    /// [`start`](NodeBuilder::start) fails.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ca = receptor_quic::Authority::new("example", 1)?;
    /// use receptor_quic::Node;
    ///
    /// let node = Node::builder("alice", ca.issue("alice", 1)?).listen("127.0.0.1:0").start().await?;
    /// assert_eq!(node.id().as_str(), "alice");
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(
        id: impl TryInto<NodeId, Error: Into<InvalidName>>,
        identity: Identity,
    ) -> NodeBuilder {
        NodeBuilder {
            id: name(id),
            invalid: None,
            identity,
            listen: Vec::new(),
            listen_tcp: Vec::new(),
            peers: Vec::new(),
            transit: false,
            transit_rate: None,
            ephemeral: false,
            direct: None,
            external: Vec::new(),
            data_dir: None,
            costs: LinkCosts::default(),
            liveness: Liveness::default(),
            congestion: Congestion::default(),
            peer_timeout: DEFAULT_PEER_TIMEOUT,
            receive_limits: ReceiveLimits::default(),
            max_datagram: settings::MAX_DATAGRAM,
            wait_converged: None,
            registry: Registry::new(),
            units: None,
            policy: None,
            sockets: None,
            port_opener: None,
            resolver: Arc::new(SystemResolver),
            interfaces: None,
            #[cfg(feature = "mdns")]
            lan: false,
            #[cfg(feature = "portmap")]
            map_port: false,
        }
    }
}

impl Node {
    /// The TCP addresses where the node takes links by TLS, with the ports that the system chose.
    ///
    /// # Examples
    /// ```
    /// # use receptor_quic::{Authority, Node};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ca = Authority::new("example", 1)?;
    /// # let identity = ca.issue("alice", 1)?;
    /// let node = Node::builder("alice", identity).listen_tcp("127.0.0.1:0").start().await?;
    /// println!("tls://{}", node.local_tcp_addrs()[0]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn local_tcp_addrs(&self) -> Vec<SocketAddr> {
        self.0.mesh.local_tcp_addrs()
    }
}

/// What a node will be.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder {
    id: Result<NodeId, InvalidName>,
    /// The first argument of a setter that is not valid.
    invalid: Option<StartError>,
    identity: Identity,
    listen: Vec<ListenAddr>,
    listen_tcp: Vec<ListenAddr>,
    peers: Vec<PeerAddr>,
    transit: bool,
    transit_rate: Option<NonZeroU64>,
    ephemeral: bool,
    direct: Option<bool>,
    external: Vec<SocketAddr>,
    data_dir: Option<PathBuf>,
    costs: LinkCosts,
    liveness: Liveness,
    congestion: Congestion,
    peer_timeout: Duration,
    receive_limits: ReceiveLimits,
    max_datagram: u16,
    wait_converged: Option<Duration>,
    registry: Registry,
    units: Option<UnitsConfig>,
    policy: Option<Policy>,
    sockets: Option<Vec<Arc<dyn quinn::AsyncUdpSocket>>>,
    port_opener: Option<PortOpener>,
    resolver: Arc<dyn Resolve>,
    interfaces: Option<Interfaces>,
    #[cfg(feature = "mdns")]
    lan: bool,
    #[cfg(feature = "portmap")]
    map_port: bool,
}

impl NodeBuilder {
    /// The maximum number of addresses to listen on.
    pub const MAX_LISTEN: usize = MAX_LISTEN;
    /// The maximum number of external addresses.
    pub const MAX_EXTERNAL: usize = MAX_EXTERNAL;

    /// Listens on this UDP address; port 0 lets the system choose. May be given up to
    /// [`MAX_LISTEN`](Self::MAX_LISTEN) times, each with another IP address. Without any, the node
    /// only dials: it uses any port, and does not answer incoming links.
    ///
    /// `[::]` includes IPv4, unless an IPv4 address is given as well: then each family has sockets
    /// of its own. On a host without IPv6 it is an error; see [`listen_any`](Self::listen_any).
    ///
    /// Takes a `SocketAddr`, or text such as `127.0.0.1:0`; `:4433` is
    /// [`listen_any`](Self::listen_any). If the text is not valid, [`start`](Self::start) fails.
    pub fn listen(
        mut self,
        addr: impl TryInto<ListenAddr, Error: Into<InvalidListenAddr>>,
    ) -> Self {
        match addr.try_into() {
            Ok(addr) => self.listen.push(addr),
            Err(invalid) => self.reject(StartError::InvalidListen(invalid.into())),
        }
        self
    }

    /// Listens on this UDP port of all interfaces, by IPv4 and IPv6, or by IPv4 alone on a host
    /// without IPv6. Port 0 lets the system choose. Counts as one address of
    /// [`listen`](Self::listen).
    pub fn listen_any(mut self, port: u16) -> Self {
        self.listen.push(ListenAddr::Any(port));
        self
    }

    /// Takes links by TLS on this TCP address as well, from nodes whose networks drop UDP; port 0
    /// lets the system choose. May be given up to [`MAX_LISTEN`](Self::MAX_LISTEN) times. They dial
    /// `tls://HOST:PORT`.
    ///
    /// The TLS shows this node's certificate and asks for none: it hides the packets from
    /// middleboxes. The QUIC connection in it authenticates both ends, as it does over UDP. Whoever
    /// wants another protocol gets an HTTP response with the status 404.
    ///
    /// Takes what [`listen`](Self::listen) takes.
    pub fn listen_tcp(
        mut self,
        addr: impl TryInto<ListenAddr, Error: Into<InvalidListenAddr>>,
    ) -> Self {
        match addr.try_into() {
            Ok(addr) => self.listen_tcp.push(addr),
            Err(invalid) => self.reject(StartError::InvalidListen(invalid.into())),
        }
        self
    }

    /// Keeps a link to this neighbour. May be given several times.
    ///
    /// Takes a [`PeerAddr`], a `SocketAddr`, or text such as `relay@host:7400`, or
    /// `tls://relay@host:443` to reach it by TLS over TCP. If the text is not
    /// valid, [`start`](Self::start) fails.
    pub fn peer(mut self, peer: impl TryInto<PeerAddr, Error: Into<InvalidPeerAddr>>) -> Self {
        match peer.try_into() {
            Ok(peer) => self.peers.push(peer),
            Err(invalid) => self.reject(StartError::InvalidPeer(invalid.into())),
        }
        self
    }

    /// Whether the node carries other nodes' packets. Off by default: relays grant it, edges do
    /// not.
    pub fn transit(mut self, transit: bool) -> Self {
        self.transit = transit;
        self
    }

    /// What each neighbour may have sent on to others, in bytes a second, headers included; packets
    /// beyond that are dropped, and counted as `rate_limited`. No limit by default. Half a second's
    /// worth may come at once, or a second's after a silence; what ends at this node is not
    /// limited.
    pub fn transit_rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.transit_rate = Some(bytes_per_second);
        self
    }

    /// Makes the node an ephemeral: it dials, has no record and no database of its own, and leaves
    /// nothing behind.
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.ephemeral = ephemeral;
        self
    }

    /// Makes the node an [ephemeral](Self::ephemeral) named `NAME~SUFFIX`, where NAME is the base
    /// of its id and the suffix is drawn at random, so that any number of them run at a time under
    /// one certificate. Others see the whole id; [`NodeId::base`] is what the certificate carries.
    ///
    /// Every node of the mesh must run a version that knows such ids; nodes of older versions close
    /// links over them.
    pub fn one_shot(mut self) -> Self {
        let suffix = format!("{:012x}", random::bits() >> 16);
        self.ephemeral = true;
        // A base that leaves no room for a suffix is used as it is.
        self.id = self.id.map(|id| id.with_suffix(&suffix).unwrap_or(id));
        self
    }

    /// Whether the node looks for direct paths to the peers that it has traffic with, and takes
    /// them, where they are not neighbours. On by default, off for ephemeral nodes, which are
    /// seldom there for long enough. Off, all packets for such peers go through other nodes, and
    /// both ends say why.
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = Some(direct);
        self
    }

    /// An address at which others reach this node's UDP port, where they cannot see that
    /// themselves: a static mapping of the NAT in front. Peers try it for direct paths. May be
    /// given up to [`MAX_EXTERNAL`](Self::MAX_EXTERNAL) times.
    pub fn external_addr(mut self, addr: SocketAddr) -> Self {
        self.external.push(addr);
        self
    }

    /// Where the node keeps its epoch and its connection manifest between runs. Without, it keeps
    /// nothing, and is recognised after a restart all the same; it then needs one flood more.
    ///
    /// The directory is created if it does not exist, and locked while the node runs: a second node
    /// with the same directory does not start. A directory that cannot be written costs a warning,
    /// and the node runs without it.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// What this node says that its links cost: a [`Cost`], 1 by default, or
    /// [`LinkCost::RoundTrip`]. The larger of the two ends' counts.
    pub fn cost(mut self, cost: impl Into<LinkCost>) -> Self {
        self.costs.usual = cost.into();
        self
    }

    /// The cost that this node advertises for links to `neighbour`, dialled by either end.
    /// Overrides [`cost`](Self::cost); given twice for a neighbour, the last counts.
    pub fn cost_to(
        mut self,
        neighbour: impl TryInto<NodeId, Error: Into<InvalidName>>,
        cost: Cost,
    ) -> Self {
        match name(neighbour) {
            Ok(neighbour) => drop(self.costs.to.insert(neighbour, cost)),
            Err(invalid) => self.reject(StartError::InvalidNeighbour(invalid)),
        }
        self
    }

    /// Keeps the first argument that is not valid, for [`start`](Self::start).
    fn reject(&mut self, invalid: StartError) {
        self.invalid.get_or_insert(invalid);
    }

    /// How eagerly the loss of a neighbour is noticed, on the links that this node dials.
    pub fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Congestion control of what this node sends, on its links and to its peers. By default
    /// [`Congestion::Cubic`]; [`Congestion::Westwood`] keeps its rate on paths with random loss.
    /// The other end chooses for what it sends.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }

    /// How long a node that is not a neighbour may be unreachable, without a route to it and
    /// without a packet from it, before its streams and calls end and connecting to it fails. 5 s
    /// by default, which is what the mesh takes to notice a silent death: then callers learn of it
    /// as soon as routing does. From 0.5 s to 10 min, or the node does not start.
    ///
    /// A longer time carries streams over longer outages of the only path, if both ends wait as
    /// long: set both so, or use
    /// [`OpenOptions::peer_timeout`](crate::mesh::OpenOptions::peer_timeout) or
    /// [`CallOptions::peer_timeout`](crate::work::CallOptions::peer_timeout) for a single stream or
    /// call, which the other end then follows. As long as there is a route, a silent node is given
    /// up after 15 s, or this if that is longer; and an attempt to connect takes at most 10 s.
    /// Streams to a neighbour end with their link, see [`liveness`](Self::liveness).
    pub fn peer_timeout(mut self, timeout: Duration) -> Self {
        self.peer_timeout = timeout;
        self
    }

    /// Bytes that one peer may have sent and the application not read, in all of its streams to
    /// this node together; ephemerals that share a certificate count as one peer. 56 MiB by
    /// default, the windows of 46 streams: a peer whose streams hold that much waits until some of
    /// it is read, and delays no other. From 2 MiB to 4 GiB, or the node does not start.
    ///
    /// The window of a single stream is 1.25 MB, which is 100 Mbit/s over a round trip of 100 ms.
    /// As long as the peer has not reached its limit, a stream that is not read delays no other.
    ///
    /// At its limit, everything that it sends on the connection waits: new calls and pings, and its
    /// answers to calls and pings of this node. QUIC's credit for a connection (RFC 9000 §4.1) is
    /// spent by whichever stream sends first, so no part of it can be reserved for the built-in
    /// directives. The connection itself stays up, since keepalives take no credit.
    pub fn receive_window(mut self, bytes: u64) -> Self {
        self.receive_limits.per_peer = bytes;
        self
    }

    /// Bytes that all peers together may have sent and the application not read, beside 1.6 MB for
    /// each connection. 256 MiB by default. A peer gets at most half of what is left, so that those
    /// who come later get something.
    pub fn receive_memory(mut self, bytes: u64) -> Self {
        self.receive_limits.all = bytes;
        self
    }

    /// Sends UDP payloads of at most so many bytes, however much the path carries: at least 1,226.
    /// For benches, where loopback would carry jumbo frames.
    #[doc(hidden)]
    pub fn max_datagram(mut self, bytes: u16) -> Self {
        self.max_datagram = bytes.min(settings::MAX_DATAGRAM);
        self
    }

    /// Has [`start`](Self::start) wait, for `within` at most, until the node is linked and has
    /// [`converged`](Node::converged). By default it does not wait.
    ///
    /// It is not an error if the mesh has not converged by then: the node is started, a warning is
    /// logged, and [`Node::converged`] can be asked again. Dropping the future stops the node. A
    /// node without configured peers does not wait for somebody to link to it.
    pub fn wait_converged(mut self, within: Duration) -> Self {
        self.wait_converged = Some(within);
        self
    }

    /// Handles calls for a directive with a function, from the first moment on.
    ///
    /// # Errors
    /// As [`Node::handle`].
    pub fn handle<F, Fut>(
        self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<Self, RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.registry.handle(directive, handler)?;
        Ok(self)
    }

    /// Handles calls for a directive with an external command, from the first moment on.
    ///
    /// # Errors
    /// As [`Node::handle`].
    pub fn command(
        self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<Self, RegisterError> {
        self.registry.command(directive, command)?;
        Ok(self)
    }

    /// Maximum number of calls that run at the same time:
    /// [`DEFAULT_MAX_RUNNING`](crate::work::DEFAULT_MAX_RUNNING), which is 1,024, by default. Calls
    /// beyond are refused; [`Registry::with_max_running`] has the share of a single caller. The
    /// built-in directives have places of their own.
    pub fn max_running_calls(self, max: usize) -> Self {
        self.registry.set_max_running(max);
        self
    }

    /// Keeps units of work: those that this node [submits](Node::submit), and those that it
    /// executes for others. Needs a [data directory](Self::data_dir), or a directory in the
    /// configuration; off by default.
    pub fn units(mut self, config: UnitsConfig) -> Self {
        self.units = Some(config);
        self
    }

    /// Who may do what on this node. Without a policy, which is the default, everybody whom the node
    /// trusts may do everything, and the [status](crate::Status) says so. What is not allowed is
    /// refused, counted and logged with the nearest rule; the caller learns only that it is not
    /// allowed. [`Node::set_policy`] changes it.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Whether nodes on the local network are found and linked to, by multicast DNS. Off by
    /// default.
    ///
    /// A node that listens on an address other than loopback is announced there as well: with its
    /// id, its port, and its addresses on the segment, and nothing else. Nodes that are found, up
    /// to 32 nodes, is dialled, and authenticated as any other neighbour. An announcement is taken
    /// back at [`Node::shutdown`]; else it ends within two minutes.
    #[cfg(feature = "mdns")]
    pub fn lan(mut self, lan: bool) -> Self {
        self.lan = lan;
        self
    }

    /// Whether a UDP port of the router is mapped to this node's, by PCP, NAT-PMP or UPnP IGD,
    /// whatever the router speaks. Off by default.
    ///
    /// The mapping lasts an hour, is renewed at half of that, requested again when the network
    /// changes, and removed at [`Node::shutdown`]. A failure is not an error; the reason is in
    /// [`Status`](crate::mesh::Status), under `network`.
    #[cfg(feature = "portmap")]
    pub fn map_port(mut self, map_port: bool) -> Self {
        self.map_port = map_port;
        self
    }

    /// Uses this socket instead of binding one: the virtual network's.
    #[cfg(feature = "testing")]
    pub fn socket(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        self.sockets.get_or_insert_default().push(socket);
        self
    }

    /// Opens fresh local ports for direct paths with this function, beside the sockets that were
    /// [given](Self::socket). Default: no ports can be opened.
    #[cfg(feature = "testing")]
    pub fn fresh_ports(
        mut self,
        open: impl Fn() -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> + Send + Sync + 'static,
    ) -> Self {
        self.port_opener = Some(PortOpener::new(open));
        self
    }

    /// Uses these as the machine's addresses instead of asking the system: for the virtual network.
    /// Each new list is a change of the network. Needs a tokio runtime. Without, a node on sockets
    /// of its own knows no addresses, and sees no changes.
    #[cfg(feature = "testing")]
    pub fn local_addresses(
        mut self,
        addresses: tokio::sync::watch::Receiver<Vec<LocalAddress>>,
    ) -> Self {
        self.interfaces = Some(Interfaces::given(addresses));
        self
    }

    /// Uses this resolver instead of the system's.
    #[cfg(all(test, feature = "testing"))]
    pub(crate) fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }
}
