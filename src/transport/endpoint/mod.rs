//! One quinn endpoint, client and server at once, for links and for peer connections.

mod reset;
pub(super) mod runtime;
pub(crate) mod settings;
pub(crate) mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::{
    ConnectError, Connection, ConnectionError, Incoming, ServerConfig, TransportConfig,
    ZeroRttAccepted,
};

use self::reset::ResetKey;
use self::runtime::Runtime;
use self::settings::Transports;
use self::tls::TlsConfig;
use super::authenticator::{CredentialHash, credential_hash};
use super::carrier::{self, Carried};
use super::identity::presented::Sighting;
use super::overlay::FlowKind;
use super::socket::Socket;
use super::socket::udp::path_mtu::PathMtus;
use super::{Identity, overlay};
use crate::id::{NodeAddr, NodeId};
use crate::sync::lock;

/// Samples per silence limit of whether anything has arrived.
const SILENCE_SAMPLES: u32 = 4;

/// The node's QUIC endpoint.
pub(crate) struct Endpoint {
    quinn: quinn::Endpoint,
    socket: Arc<Socket>,
    transports: Transports,
    path_mtus: PathMtus,
    reset_key: Arc<ResetKey>,
    reloading: Mutex<()>,
    /// The suffix of this node's id, if it is an ephemeral that has one.
    suffix: Option<String>,
    // Replaced as a whole when the certificates are reloaded; read once a dial or accept.
    tls: ArcSwap<Shown>,
}

/// Which of a node's successive identities and trusts judged a handshake, and which credential it
/// showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation {
    /// Grows with every reload.
    pub(crate) number: u64,
    pub(crate) credential: CredentialHash,
}

/// An outgoing handshake in progress.
#[derive(Debug)]
pub(crate) struct Connecting {
    quinn: quinn::Connecting,
    generation: Generation,
    sighting: Sighting,
}

/// An incoming handshake in progress. Dropping it ends it.
pub(crate) struct Accepting {
    /// Must not be used before `finished`: until then the other end is not authenticated.
    connection: Connection,
    finished: ZeroRttAccepted,
    generation: Generation,
    sighting: Sighting,
}

/// Why a handshake that the other end began did not finish.
#[derive(Debug)]
pub(crate) enum Unfinished {
    /// The connection ended.
    Lost(ConnectionError),
    /// Nothing more arrived for the time given.
    Silent,
}

impl Accepting {
    /// Where the other end is.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Where the certificate will be found if this node refuses it.
    pub(crate) fn sighting(&self) -> Sighting {
        self.sighting.clone()
    }

    /// Waits for the end of the handshake, as long as the peer is never silent for longer than
    /// `patience`, plus or minus a quarter.
    pub(crate) async fn finish(mut self, patience: Duration) -> Result<Authenticated, Unfinished> {
        let mut heard = 0;
        let mut silent = 0;
        while tokio::time::timeout(patience / SILENCE_SAMPLES, &mut self.finished).await.is_err() {
            let received = self.connection.stats().udp_rx.datagrams;
            silent = if received == heard { silent + 1 } else { 0 };
            heard = received;
            if silent >= SILENCE_SAMPLES {
                return Err(Unfinished::Silent);
            }
        }
        // The future resolves on success and failure alike; only success leaves the connection
        // open.
        match self.connection.close_reason() {
            Some(error) => Err(Unfinished::Lost(error)),
            None => Ok(Authenticated { connection: self.connection, generation: self.generation }),
        }
    }
}

/// Where the first packet of a peer connection came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The neighbour that it arrived through. `None` if it came by a direct path or from this node.
    pub(crate) through: Option<NodeAddr>,
    /// The node that the sender claims to be attached to as a stub. Nothing proves it.
    pub(crate) attached_to: Option<NodeAddr>,
    /// The sender according to the packet, not verified.
    pub(crate) node: Option<NodeAddr>,
}

impl Connecting {
    /// Where the certificate will be found if this node refuses it.
    pub(crate) fn sighting(&self) -> Sighting {
        self.sighting.clone()
    }
}

impl IntoFuture for Connecting {
    type Output = Result<Authenticated, ConnectionError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { quinn, generation, sighting: _ } = self;
        Box::pin(async move { Ok(Authenticated { connection: quinn.await?, generation }) })
    }
}

/// A connection whose other end the trust of that generation has accepted. That may not be the
/// current one.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    connection: Connection,
    pub(crate) generation: Generation,
}

impl Deref for Authenticated {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// The identity shown, and what makes and accepts connections with it.
struct Shown {
    identity: Identity,
    generation: Generation,
    tls: TlsConfig,
    /// Without the transports, which differ from path to path.
    accept_link: ServerConfig,
    accept_peer: ServerConfig,
}

impl Endpoint {
    /// Starts the endpoint's task on the current tokio runtime.
    pub(crate) fn new(
        socket: Arc<Socket>,
        identity: Identity,
        transports: Transports,
        path_mtus: PathMtus,
    ) -> io::Result<Self> {
        let (config, reset_key) = settings::endpoint_config(&identity);
        let shown = Shown::new(identity, 0);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(shown.accept_link.clone()),
            socket.clone(),
            Arc::new(Runtime::new()),
        )?;
        Ok(Self {
            quinn,
            socket,
            transports,
            path_mtus,
            reset_key,
            suffix: None,
            reloading: Mutex::default(),
            tls: ArcSwap::from_pointee(shown),
        })
    }

    /// Reports the suffix of this node's id to the peers that it connects to.
    pub(crate) fn with_suffix_of(mut self, id: &NodeId) -> Self {
        self.suffix = id.suffix().map(str::to_owned);
        self
    }

    /// The socket, to publish forwarding tables to.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The identity shown to others.
    pub(crate) fn identity(&self) -> Identity {
        self.tls.load().identity.clone()
    }

    /// Shows another identity from now on. Connections that are up stay up.
    pub(crate) fn reload(&self, identity: Identity) {
        let _one_at_a_time = lock(&self.reloading);
        let shown = Shown::new(identity, self.generation().number + 1);
        self.reset_key.renew(&shown.identity);
        self.quinn.set_server_config(Some(shown.accept_link.clone()));
        self.tls.store(Arc::new(shown));
    }

    /// The generation of the identity shown.
    pub(crate) fn generation(&self) -> Generation {
        self.tls.load().generation
    }

    /// Dials a neighbour at a real address; its certificate must name `expected`, if that is given.
    /// `rtt` is the round trip of the link before: lost packets of the handshake are sent again the
    /// sooner, the shorter it was.
    pub(crate) fn dial(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
        rtt: Option<Duration>,
    ) -> Result<Connecting, ConnectError> {
        let transport = match carrier::is_carrier(addr) {
            true => self.transports.carried_link(rtt),
            false => self.transports.link(self.path_mtus.to(addr), rtt),
        };
        self.connect(addr, expected, transport)
    }

    /// Opens a carrier to a TCP address, for a link.
    ///
    /// # Errors
    /// Neither TCP nor TLS came about. Nothing is left.
    pub(crate) async fn dial_carrier(
        &self,
        addr: SocketAddr,
        host: &str,
    ) -> Result<Carried, carrier::DialError> {
        carrier::dial(self.socket.carriers(), addr, host).await
    }

    /// Has the carrier of a link, if it has one, end with the link.
    pub(crate) fn follow_carrier(&self, link: &Connection) {
        self.socket.carriers().follow(link);
    }

    /// Where the other end of a link is: of one through a carrier, its TCP address.
    pub(crate) fn place(&self, remote: SocketAddr) -> SocketAddr {
        self.socket.carriers().remote(remote).unwrap_or(remote)
    }

    /// Connects to a peer through the switch. Packets of a stub carry its attachment.
    pub(crate) fn connect_peer(&self, node: &NodeId) -> Result<Connecting, ConnectError> {
        let own = self.socket.is_attached_stub();
        self.connect_flow(node, if own { FlowKind::Own } else { FlowKind::Routed })
    }

    /// Like [`connect_peer`](Self::connect_peer), without attachment: nodes of older versions drop
    /// packets that have one, and paths with an MTU of 1,280 bytes of IPv6 drop the longest of
    /// them.
    pub(crate) fn connect_peer_by_routes(&self, node: &NodeId) -> Result<Connecting, ConnectError> {
        self.connect_flow(node, FlowKind::Routed)
    }

    fn connect_flow(&self, node: &NodeId, kind: FlowKind) -> Result<Connecting, ConnectError> {
        self.connect(
            overlay::flow_addr(node.addr(), kind),
            Some(node),
            self.transports.peer(self.path_mtus.largest()),
        )
    }

    fn connect(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
        transport: TransportConfig,
    ) -> Result<Connecting, ConnectError> {
        // On links HELLO has the whole id.
        let suffix = self.suffix.as_deref().filter(|_| overlay::node_addr(addr).is_some());
        let shown = self.tls.load();
        let sighting = Sighting::default();
        let tls = match suffix {
            Some(_) => shown.tls.client_naming(expected.cloned(), &sighting),
            None => shown.tls.client_reporting(expected.cloned(), &sighting),
        };
        let mut config = quinn::ClientConfig::new(tls);
        config.transport_config(Arc::new(transport));
        let quinn = self.quinn.connect_with(config, addr, &tls::server_name(suffix))?;
        Ok(Connecting { quinn, generation: shown.generation, sighting })
    }

    /// The next connection attempt from outside; `None` once the endpoint is closed.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        self.quinn.accept().await
    }

    /// Whether an attempt comes through the switch.
    pub(crate) fn is_peer(incoming: &Incoming) -> bool {
        overlay::node_addr(incoming.remote_address()).is_some()
    }

    /// Where an attempt through the switch comes from.
    pub(crate) fn origin(&self, incoming: &Incoming) -> Origin {
        let source = incoming.remote_address();
        // The socket reports the neighbour as the local address: see `sort`.
        let through = incoming.local_ip().and_then(|ip| overlay::node_addr(SocketAddr::new(ip, 0)));
        let attached_to = self.socket.attached_to(overlay::flow_kind(source));
        Origin { through, attached_to, node: overlay::node_addr(source) }
    }

    /// Begins the handshake of an attempt, as a link or as a peer connection by where it comes
    /// from.
    ///
    /// # Errors
    /// The attempt does not start a connection.
    pub(crate) fn accept_attempt(&self, incoming: Incoming) -> Result<Accepting, ConnectionError> {
        let shown = self.tls.load();
        let (mut config, transport) = if Self::is_peer(&incoming) {
            (shown.accept_peer.clone(), self.transports.peer(self.path_mtus.largest()))
        } else {
            let remote = incoming.remote_address();
            let path_mtu = match carrier::is_carrier(remote) {
                true => u16::MAX,
                false => self.path_mtus.to(remote),
            };
            (shown.accept_link.clone(), self.transports.accepted_link(path_mtu))
        };
        config.transport_config(Arc::new(transport));
        let sighting = Sighting::default();
        config.crypto = shown.tls.server_reporting(&sighting);
        let generation = shown.generation;
        let connecting = incoming.accept_with(Arc::new(config))?;
        // No data is sent before the handshake completes. Whether packets arrive is known from the
        // connection, not from the handshake alone.
        let (connection, finished) =
            connecting.into_0rtt().expect("a connection that was accepted is there at once");
        Ok(Accepting { connection, finished, generation, sighting })
    }

    /// Waits until every connection has closed, and the last words are out.
    pub(crate) async fn wait_idle(&self) {
        self.quinn.wait_idle().await;
    }

    /// Closes every connection, and accepts no more.
    pub(crate) fn close(&self, code: super::code::CloseCode, reason: &str) {
        self.quinn.close(code.to_quic(), reason.as_bytes());
    }
}

impl Shown {
    fn new(identity: Identity, number: u64) -> Self {
        let tls = TlsConfig::new(&identity, identity.trust());
        let accept = |migration| {
            let mut config = ServerConfig::with_crypto(tls.server());
            config.migration(migration);
            config
        };
        // A neighbour may get a new address from its NAT, and a stub may be attached elsewhere. The
        // rest of a peer's overlay address is its name.
        let generation = Generation { number, credential: credential_hash(&identity) };
        Self { accept_link: accept(true), accept_peer: accept(true), identity, generation, tls }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.socket).finish_non_exhaustive()
    }
}
