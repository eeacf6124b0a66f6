//! A running mesh in one line.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Network, VirtualSocket};
use crate::id::NodeId;
use crate::switch::Header;
use crate::{Authority, Identity, Node, NodeBuilder, PeerAddr};

/// The seed of the network under [`mesh`].
const SEED: u64 = 1;

/// The addresses that the sockets of killed nodes are moved to.
const GRAVEYARD: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 255, 0, 0);

/// The role of a node in the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Part {
    /// A relay: provides transit.
    #[default]
    Relay,
    /// An edge: provides no transit.
    Edge,
    /// It is an ephemeral.
    Ephemeral,
}

/// Builds a mesh in which some nodes are not relays: see [`Mesh::builder`].
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct MeshBuilder {
    network: Network,
    links: Vec<String>,
    parts: BTreeMap<NodeId, Part>,
}

impl MeshBuilder {
    /// Uses this network. Default: one without latency and loss.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Nodes that refuse transit.
    ///
    /// # Panics
    /// A name is not a node id.
    pub fn without_transit<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.with_part(Part::Edge, names)
    }

    /// Nodes that are ephemeral, under exactly these names. They dial, so each must be the first
    /// name of a link.
    ///
    /// # Panics
    /// A name is not a node id.
    pub fn ephemeral<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.with_part(Part::Ephemeral, names)
    }

    /// Starts the nodes. Returns when every node has a route to every other one, which must be
    /// possible.
    ///
    /// # Panics
    /// As [`mesh`].
    pub async fn start(self) -> Mesh {
        let links = self.links.iter().map(String::as_str);
        Mesh::launch(self.network, links, self.parts, |builder| builder).await
    }

    fn with_part<'a>(mut self, part: Part, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(|name| name.parse::<NodeId>().expect("a node id"));
        self.parts.extend(names.map(|name| (name, part)));
        self
    }
}

/// A running mesh over a virtual network.
#[derive(Debug)]
pub struct Mesh {
    network: Network,
    authority: Authority,
    nodes: BTreeMap<NodeId, Node>,
    addrs: BTreeMap<NodeId, SocketAddr>,
    /// As a key file, an identity outlives the process.
    identities: BTreeMap<NodeId, Identity>,
    /// The roles of nodes that are not relays.
    parts: BTreeMap<NodeId, Part>,
    graves: u32,
}

/// Starts a mesh of the named nodes and links: `mesh(["a-r", "r-b"])` is a, b, and r between them.
///
/// A link is written `DIALLER-LISTENER`; a name alone is a node without links. Names consist of the
/// characters of node ids except `-`. Every node is a relay. Traffic takes the named links: direct
/// paths are off. Returns when every node has a route to every other connected node. Must be called
/// on a paused current-thread runtime, see the [module's docs](super).
///
/// # Panics
/// A name is not a node id, or the mesh does not come up within a minute of virtual time.
pub async fn mesh<'a>(links: impl IntoIterator<Item = &'a str>) -> Mesh {
    Mesh::on(Network::new(SEED), links).await
}

impl Mesh {
    /// Builds a mesh of these links, in the format of [`mesh`], in which some nodes are not relays.
    pub fn builder<'a>(links: impl IntoIterator<Item = &'a str>) -> MeshBuilder {
        let links = links.into_iter().map(str::to_owned).collect();
        MeshBuilder { network: Network::new(SEED), links, parts: BTreeMap::new() }
    }

    /// Like [`mesh`], on a prepared network.
    ///
    /// # Panics
    /// As [`mesh`].
    pub async fn on<'a>(network: Network, links: impl IntoIterator<Item = &'a str>) -> Self {
        Self::with(network, links, |builder| builder).await
    }

    /// Like [`on`](Self::on), with these additional settings of the nodes.
    ///
    /// # Panics
    /// As [`mesh`].
    pub async fn with<'a>(
        network: Network,
        links: impl IntoIterator<Item = &'a str>,
        settings: impl Fn(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        Self::launch(network, links, BTreeMap::new(), settings).await
    }

    async fn launch<'a>(
        network: Network,
        links: impl IntoIterator<Item = &'a str>,
        parts: BTreeMap<NodeId, Part>,
        settings: impl Fn(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        let authority = Authority::new("testing", 1).expect("a CA can be made");
        let (nodes, addrs, identities) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut mesh = Self { network, authority, nodes, addrs, identities, parts, graves: 0 };
        let mut dials: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for link in links {
            let mut ends = link.split('-').map(|name| name.parse::<NodeId>().expect("a node id"));
            let dialler = ends.next().expect("split gives at least one");
            let dialled = dials.entry(dialler).or_default();
            dialled.extend(ends.next());
            let listener = dialled.last().cloned();
            listener.map(|listener| dials.entry(listener).or_default());
        }
        let mut sockets = BTreeMap::new();
        for id in dials.keys() {
            let socket = mesh.network.bind_host();
            mesh.addrs.insert(id.clone(), socket.address());
            sockets.insert(id.clone(), socket);
        }
        for (id, dialled) in &dials {
            let socket = sockets.remove(id).expect("bound above");
            let node = mesh.start_with(id, socket, dialled, &settings).await;
            mesh.nodes.insert(id.clone(), node);
        }
        mesh.converge().await;
        mesh
    }

    /// A node by its name.
    ///
    /// # Panics
    /// There is no node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).expect("a node of this mesh")
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node's address on the network.
    ///
    /// # Panics
    /// There is no node of that name.
    #[must_use]
    pub fn addr(&self, name: &str) -> SocketAddr {
        *self.addrs.get(name).expect("a node of this mesh")
    }

    /// The network, to degrade it.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The issuer of the nodes' certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A builder for one more node with its own certificate and host, which dials the named nodes.
    /// Direct paths are off by default.
    ///
    /// # Panics
    /// A name is not a node id, or not in this mesh.
    pub fn joiner(&self, name: &str, peers: &[&str]) -> NodeBuilder {
        self.joiner_on(self.network.bind_host(), name, peers)
    }

    /// Like [`joiner`](Self::joiner), on an existing host of the network, such as one behind a NAT.
    ///
    /// # Panics
    /// As [`joiner`](Self::joiner).
    pub fn joiner_on(
        &self,
        socket: std::sync::Arc<VirtualSocket>,
        name: &str,
        peers: &[&str],
    ) -> NodeBuilder {
        let id: NodeId = name.parse().expect("a node id");
        let identity = self.authority.issue(&id, 1).expect("the CA can issue");
        let fresh = socket.clone();
        let builder =
            Node::builder(id, identity).socket(socket).fresh_ports(move || Ok(fresh.sibling()?));
        let builder = builder.direct(false);
        peers.iter().fold(builder, |builder, peer| {
            builder.peer(self.peer_addr(&peer.parse().expect("a node id")))
        })
    }

    /// Removes a node from the mesh without stopping it. Its address is free for
    /// [`restart`](Self::restart) once it is dropped or shut down.
    ///
    /// # Panics
    /// There is no node of that name.
    pub fn remove(&mut self, name: &str) -> Node {
        self.nodes.remove(name).expect("a node of this mesh")
    }

    /// Makes a node a black hole: its links stay up, and what it forwards for others is lost.
    ///
    /// # Panics
    /// There is no node of that name.
    pub fn swallow(&self, name: &str) {
        let hole = self.addr(name).ip();
        let others = self.addrs.values().map(SocketAddr::ip).filter(|ip| *ip != hole);
        others.for_each(|to| self.network.lose_where(hole, to, is_switched));
    }

    /// Undoes [`swallow`](Self::swallow).
    ///
    /// # Panics
    /// There is no node of that name.
    pub fn swallow_no_more(&self, name: &str) {
        let hole = self.addr(name).ip();
        let others = self.addrs.values().map(SocketAddr::ip).filter(|ip| *ip != hole);
        others.for_each(|to| self.network.lose_nothing(hole, to));
    }

    /// Stops a node like a power failure: without farewell, and nothing from or to its host passes
    /// any more.
    ///
    /// # Panics
    /// There is no node of that name.
    pub fn kill(&mut self, name: &str) {
        let addr = self.addr(name);
        self.network.isolate(addr.ip());
        // The socket of the dead process moves to an unreachable address, so that its own is free
        // for the next process.
        self.graves += 1;
        let grave = std::net::Ipv4Addr::from_bits(GRAVEYARD.to_bits() + self.graves).into();
        self.network.isolate(grave);
        // A node that was shut down has already freed it.
        let _ = self.network.rebind(addr, SocketAddr::new(grave, addr.port()));
        self.nodes.remove(name).expect("a node of this mesh");
    }

    /// Restarts a killed node: the same id, certificate and key, another process, on a new port.
    ///
    /// # Panics
    /// The node was not in this mesh.
    pub async fn restart(&mut self, name: &str, peers: &[&str]) {
        let id: NodeId = name.parse().expect("a node id");
        let ip = self.addr(name).ip();
        self.network.rejoin(ip);
        let socket = self.network.bind(SocketAddr::new(ip, 0)).expect("a free port");
        self.addrs.insert(id.clone(), socket.address());
        let peers: Vec<NodeId> =
            peers.iter().map(|peer| peer.parse().expect("a node id")).collect();
        let node = self.start_with(&id, socket, &peers, |builder| builder).await;
        self.nodes.insert(id, node);
    }

    /// Like [`restart`](Self::restart), at the node's previous address: a relay that its edges find
    /// again.
    ///
    /// # Panics
    /// The node was not in this mesh.
    pub async fn restart_in_place(&mut self, name: &str, peers: &[&str]) {
        let addr = self.addr(name);
        self.network.rejoin(addr.ip());
        let socket = self.network.bind(addr).expect("the address is free");
        let id: NodeId = name.parse().expect("a node id");
        let peers: Vec<NodeId> =
            peers.iter().map(|peer| peer.parse().expect("a node id")).collect();
        let node = self.start_with(&id, socket, &peers, |builder| builder).await;
        self.nodes.insert(id, node);
    }

    /// Waits until every node has a route to every other one.
    ///
    /// # Panics
    /// That takes more than a minute of virtual time.
    pub async fn converge(&self) {
        let all = async {
            let ephemeral = |id: &NodeId| self.parts.get(id) == Some(&Part::Ephemeral);
            for (id, from) in &self.nodes {
                if ephemeral(id) {
                    // An ephemeral node has no routes of its own.
                    from.linked().await.expect("an ephemeral is let in");
                    continue;
                }
                for to in self.nodes.keys() {
                    from.routable(to).await.expect("the node runs");
                }
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, all).await.expect("the mesh converges within a minute");
    }

    async fn start_with(
        &mut self,
        id: &NodeId,
        socket: std::sync::Arc<VirtualSocket>,
        peers: &[NodeId],
        settings: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Node {
        let identity = self.identities.entry(id.clone());
        let identity =
            identity.or_insert_with(|| self.authority.issue(id, 1).expect("the CA can issue"));
        let identity = identity.clone();
        let part = self.parts.get(id).copied().unwrap_or_default();
        let builder = Node::builder(id.clone(), identity)
            .transit(part == Part::Relay)
            .ephemeral(part == Part::Ephemeral);
        let builder = settings(builder.socket(socket).direct(false));
        let builder =
            peers.iter().fold(builder, |builder, peer| builder.peer(self.peer_addr(peer)));
        builder.start().await.expect("a node can be started")
    }

    fn peer_addr(&self, id: &NodeId) -> PeerAddr {
        let addr = self.addrs.get(id).expect("a node of this mesh");
        PeerAddr { expected: Some(id.clone()), ..PeerAddr::from(*addr) }
    }
}

/// Whether a datagram is a packet of a peer connection, with the switch's header in front.
fn is_switched(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first < Header::FIRST_QUIC_BYTE)
}
