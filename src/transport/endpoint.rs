//! One quinn endpoint, client and server at once, for links and for peer connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::{ConnectError, Connecting, Incoming, ServerConfig, TransportConfig};

use super::runtime::Runtime;
use super::settings::{self, Liveness};
use super::socket::Socket;
use super::tls::{SERVER_NAME, TlsConfig};
use super::{Identity, overlay};
use crate::id::NodeId;

/// How many handshakes may be under way before newcomers must prove their address first.
const RETRY_ABOVE: usize = 64;

/// The node's QUIC endpoint.
pub(crate) struct Endpoint {
    quinn: quinn::Endpoint,
    socket: Arc<Socket>,
    link_transport: Arc<TransportConfig>,
    accepted_transport: Arc<TransportConfig>,
    peer_transport: Arc<TransportConfig>,
    // Replaced as a whole when the certificates are reloaded; read once a dial or accept.
    tls: ArcSwap<Shown>,
}

/// The identity shown, and what makes and accepts connections with it.
struct Shown {
    identity: Identity,
    tls: TlsConfig,
    accept_link: Arc<ServerConfig>,
    accept_peer: Arc<ServerConfig>,
}

impl Endpoint {
    /// Starts the endpoint's task on the current tokio runtime.
    /// `direct` says whether peers may speak about direct paths, `measured` whether the round trips of links that others dialled
    /// count.
    pub(crate) fn new(
        socket: Arc<Socket>,
        identity: Identity,
        liveness: Liveness,
        max_datagram: u16,
        direct: bool,
        measured: bool,
    ) -> io::Result<Self> {
        let link_transport = settings::link_transport(liveness, max_datagram);
        let accepted_transport = settings::accepted_link_transport(max_datagram, measured);
        let peer_transport = settings::peer_transport(max_datagram, direct);
        let config = settings::endpoint_config(&identity);
        let shown = Shown::new(identity, &accepted_transport, &peer_transport);
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(shown.accept_link.as_ref().clone()),
            socket.clone(),
            Arc::new(Runtime::new()),
        )?;
        Ok(Self {
            quinn,
            socket,
            link_transport,
            accepted_transport,
            peer_transport,
            tls: ArcSwap::from_pointee(shown),
        })
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
        let shown = Shown::new(identity, &self.accepted_transport, &self.peer_transport);
        self.quinn.set_server_config(Some(shown.accept_link.as_ref().clone()));
        self.tls.store(Arc::new(shown));
    }

    /// Dials a neighbour at a real address; its certificate must name `expected`, if that is given.
    pub(crate) fn dial(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
    ) -> Result<Connecting, ConnectError> {
        self.connect(addr, expected, &self.link_transport)
    }

    /// Connects to a peer through the switch.
    pub(crate) fn connect_peer(&self, node: &NodeId) -> Result<Connecting, ConnectError> {
        self.connect(overlay::socket_addr(node.addr()), Some(node), &self.peer_transport)
    }

    fn connect(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
        transport: &Arc<TransportConfig>,
    ) -> Result<Connecting, ConnectError> {
        let mut config = quinn::ClientConfig::new(self.tls.load().tls.client(expected.cloned()));
        config.transport_config(transport.clone());
        self.quinn.connect_with(config, addr, SERVER_NAME)
    }

    /// The next connection attempt from outside; `None` once the endpoint is closed.
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        self.quinn.accept().await
    }

    /// Whether an attempt comes through the switch.
    pub(crate) fn is_peer(incoming: &Incoming) -> bool {
        overlay::node_addr(incoming.remote_address()).is_some()
    }

    /// Lets an attempt in, as a link or as a peer connection by where it comes from.
    /// `pending` is how many handshakes are under way.
    pub(crate) fn admit(&self, incoming: Incoming, pending: usize) -> Admission {
        let peer = overlay::node_addr(incoming.remote_address());
        if peer.is_none() && pending > RETRY_ABOVE && !incoming.remote_address_validated() {
            // An attempt that may not be retried was retried before, and is let in below in its turn.
            let _ = incoming.retry();
            return Admission::Retried;
        }
        let shown = self.tls.load();
        let config = if peer.is_some() { &shown.accept_peer } else { &shown.accept_link };
        match incoming.accept_with(config.clone()) {
            Ok(connecting) if peer.is_some() => Admission::Peer(connecting),
            Ok(connecting) => Admission::Link(connecting),
            Err(error) => Admission::Failed(error),
        }
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

/// What became of a connection attempt from outside.
pub(crate) enum Admission {
    /// A neighbour-to-be.
    Link(Connecting),
    /// A peer, through the switch.
    Peer(Connecting),
    /// It must prove its address first.
    Retried,
    /// It is not a connection.
    Failed(quinn::ConnectionError),
}

impl Shown {
    fn new(
        identity: Identity,
        link_transport: &Arc<TransportConfig>,
        peer_transport: &Arc<TransportConfig>,
    ) -> Self {
        let tls = TlsConfig::new(&identity, identity.trust());
        let accept = |transport: &Arc<TransportConfig>, migration| {
            let mut config = ServerConfig::with_crypto(tls.server());
            config.transport_config(transport.clone()).migration(migration);
            Arc::new(config)
        };
        // A neighbour may get a new address from its NAT; a peer's overlay address is its name.
        Self {
            accept_link: accept(link_transport, true),
            accept_peer: accept(peer_transport, false),
            identity,
            tls,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.socket).finish_non_exhaustive()
    }
}
