//! One quinn endpoint, client and server at once, for links and for peer connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use quinn::{ConnectError, Connection, ConnectionError, Incoming, ServerConfig, TransportConfig};

use super::authenticator::{CredentialHash, credential_hash};
use super::overlay::FlowKind;
use super::path_mtu::PathMtus;
use super::reset::ResetKey;
use super::runtime::Runtime;
use super::settings::{self, Transports};
use super::socket::Socket;
use super::tls::{self, TlsConfig};
use super::{Identity, overlay};
use crate::id::NodeId;

/// How many handshakes may be under way before newcomers must prove their address first.
const RETRY_ABOVE: usize = 64;

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

/// Which of a node's successive identities and trusts judged a handshake, and which credential it showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation {
    /// Grows with every reload.
    pub(crate) number: u64,
    pub(crate) credential: CredentialHash,
}

/// A handshake under way.
#[derive(Debug)]
pub(crate) struct Connecting {
    quinn: quinn::Connecting,
    generation: Generation,
}

impl Connecting {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.quinn.remote_address()
    }
}

impl IntoFuture for Connecting {
    type Output = Result<Authenticated, ConnectionError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { quinn, generation } = self;
        Box::pin(async move { Ok(Authenticated { connection: quinn.await?, generation }) })
    }
}

/// A connection whose other end the trust of that generation has accepted. That may not be the current one.
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
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
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
    pub(crate) fn dial(
        &self,
        addr: SocketAddr,
        expected: Option<&NodeId>,
    ) -> Result<Connecting, ConnectError> {
        self.connect(addr, expected, self.transports.link(self.path_mtus.to(addr)))
    }

    /// Connects to a peer through the switch. The packets of a stub say where it is attached.
    pub(crate) fn connect_peer(&self, node: &NodeId) -> Result<Connecting, ConnectError> {
        let own = self.socket.is_attached_stub();
        self.connect_flow(node, if own { FlowKind::Own } else { FlowKind::Routed })
    }

    /// As [`connect_peer`](Self::connect_peer), by routes alone: nodes of older versions drop packets with an attachment,
    /// and paths that carry 1,280 bytes of IPv6 and no more drop the longest of them.
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
        let tls = match suffix {
            Some(_) => shown.tls.client_naming(expected.cloned()),
            None => shown.tls.client(expected.cloned()),
        };
        let mut config = quinn::ClientConfig::new(tls);
        config.transport_config(Arc::new(transport));
        let quinn = self.quinn.connect_with(config, addr, &tls::server_name(suffix))?;
        Ok(Connecting { quinn, generation: shown.generation })
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
        let (mut config, transport) = if peer.is_some() {
            (shown.accept_peer.clone(), self.transports.peer(self.path_mtus.largest()))
        } else {
            let path_mtu = self.path_mtus.to(incoming.remote_address());
            (shown.accept_link.clone(), self.transports.accepted_link(path_mtu))
        };
        config.transport_config(Arc::new(transport));
        let generation = shown.generation;
        let accepted = incoming.accept_with(Arc::new(config)).map(|quinn| Connecting { quinn, generation });
        match accepted {
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
    Failed(ConnectionError),
}

impl Shown {
    fn new(identity: Identity, number: u64) -> Self {
        let tls = TlsConfig::new(&identity, identity.trust());
        let accept = |migration| {
            let mut config = ServerConfig::with_crypto(tls.server());
            config.migration(migration);
            config
        };
        // A neighbour may get a new address from its NAT, and a stub may be attached elsewhere. The rest of a peer's overlay
        // address is its name.
        let generation = Generation { number, credential: credential_hash(&identity) };
        Self { accept_link: accept(true), accept_peer: accept(true), identity, generation, tls }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.socket).finish_non_exhaustive()
    }
}
