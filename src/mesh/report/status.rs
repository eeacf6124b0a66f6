//! What a node knows and does, as plain data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::departures::LeftStatus;
use crate::id::NodeId;
use crate::mesh::links::admission::half_open::HandshakeCounts;
use crate::mesh::links::dialling::peer_addr::Carrier;
use crate::router::Distrust;
use crate::switch::SwitchStatus;
use crate::transport::CarrierStatus;

/// How much a [`Status`] lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusOptions {
    /// Maximum number of stubs in each of [`links`](Status::links), [`routes`](Status::routes),
    /// [`edges`](Status::edges) and [`peers`](Status::peers); 0 lists none. `None`, the default,
    /// lists all of them. A hub has thousands, which take milliseconds to collect and print.
    pub max_stubs: Option<usize>,
}

/// A node's policy, and what it has done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyStatus {
    /// The number of its rules. `None` without a policy: everybody may do everything.
    pub rules: Option<usize>,
    /// Whether what no rule allows is allowed.
    pub allows_by_default: bool,
    /// Requests that were not allowed, since the node started.
    pub denied: u64,
    /// What was in use and ended because it is no longer allowed, since the node started.
    pub revoked: u64,
    /// Why the last new policy was not accepted, if none was accepted since: this one stays.
    pub rejected: Option<String>,
}

/// A snapshot of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub node_id: NodeId,
    /// Random per process start, in hexadecimal.
    pub instance: String,
    /// Greater than that of any earlier start.
    pub epoch: u64,
    /// The crate's version.
    pub version: Cow<'static, str>,
    /// How long the node has run, in milliseconds.
    pub uptime_ms: u64,
    /// Whether it carries other nodes' packets.
    pub transit: bool,
    /// The rules for who may carry transit, as this node sees it; `None` if every member may.
    pub relays: Option<Vec<String>>,
    /// Who may do what on it.
    #[serde(default)]
    pub policy: PolicyStatus,
    /// Whether it is an ephemeral: an entry in its neighbour's record, without a database.
    pub ephemeral: bool,
    /// Where it takes links; empty if it only dials.
    pub listen: Vec<SocketAddr>,
    /// The TCP addresses where it takes links by TLS.
    #[serde(default)]
    pub listen_tcp: Vec<SocketAddr>,
    /// Its links' carriers: TCP connections, where UDP does not pass.
    #[serde(default)]
    pub carriers: CarrierStatus,
    /// The machine's network.
    pub network: NetworkStatus,
    /// The other live process with this node's id that was proven last. A node that has yielded to
    /// it has no links, and stays silent until it is started again.
    pub duplicate: Option<DuplicateStatus>,
    /// The certificate it shows.
    pub certificate: CertificateStatus,
    /// The stubs of the mesh, as counts: the lists below may leave some out.
    pub stubs: StubsStatus,
    /// Its links, and the peers it tries to link to.
    pub links: Vec<LinkStatus>,
    /// Every node it can reach.
    pub routes: Vec<RouteStatus>,
    /// Every link of the mesh that its database knows, from each end that lists it.
    pub edges: Vec<EdgeStatus>,
    /// Its peer connections, neighbours included.
    pub peers: Vec<PeerStatus>,
    /// The records of others, and whether they were genuine.
    pub records: RecordStatus,
    /// The nodes that have left the mesh within the last hour and are not back, the latest first;
    /// at most 1,024. An ephemeral node knows of its neighbours only.
    pub left: Vec<LeftStatus>,
    /// Its direct paths; `None` if they are disabled.
    pub paths: Option<PathsStatus>,
    /// How often packets for a peer began to avoid a neighbour through which they got no answer,
    /// see [`Event::NextHopAvoided`](crate::mesh::Event::NextHopAvoided). The count only grows.
    pub detours: u64,
    /// Its packet switch.
    pub switch: SwitchStatus,
    /// The services it offers.
    pub services: Vec<String>,
    /// Streams refused because the service, or the caller, had too many. The count only grows.
    pub refused_streams: u64,
    /// What came in as datagrams for them.
    pub datagrams: DatagramStatus,
    /// Calls that run here.
    pub running_calls: usize,
    /// Handshakes that others have begun with it.
    pub handshakes: HandshakeStatus,
    /// What peers may send before it is read.
    pub receive_windows: WindowStatus,
    /// What peers may be sent before they acknowledge it.
    pub send_windows: WindowStatus,
}

/// The stubs of the mesh, which are the ephemeral nodes attached to others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StubsStatus {
    /// Stubs that this node can reach, including those attached to it.
    pub reachable: usize,
    /// Links of this node to stubs, including those that are held back or being replaced.
    pub links: usize,
    /// Stubs by the node that they are attached to, this node included. A stub with two neighbours
    /// counts at both. Nodes without stubs are left out.
    pub attached: BTreeMap<NodeId, usize>,
    /// Maximum number of stubs in each list of this status. `None` if it lists all of them.
    pub max_listed: Option<usize>,
}

/// The receive or send windows of a node's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WindowStatus {
    /// Bytes of all of them together: so much may wait to be read, or to be acknowledged.
    pub bytes: u64,
    /// How often one could not grow as far as its connection needed, because of the limit of its
    /// peer or of the node.
    pub limited: u64,
}

/// Handshakes that others have begun with a node, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandshakeStatus {
    /// Links, until the other end is authenticated.
    pub links: HandshakeCounts,
    /// Links whose other end is authenticated and has not sent its HELLO.
    pub greeting: HandshakeCounts,
    /// Peer connections.
    pub peers: HandshakeCounts,
    /// TCP connections, until there is a link on them.
    #[serde(default)]
    pub carriers: HandshakeCounts,
}

/// The network of the machine that a node runs on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkStatus {
    /// The machine's addresses, best first.
    pub addresses: Vec<IpAddr>,
    /// How often they, the default route, or the machine's being awake have changed since the node
    /// was started.
    pub changes: u64,
    /// The state of the router's port mapping; `None` if none is requested.
    pub port_mapping: Option<PortMappingStatus>,
}

/// How it goes with the mapping of a port of the router.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PortMappingStatus {
    /// The router is being asked.
    Asking,
    /// The machine's own address is a public one.
    NotNeeded,
    /// The world reaches this node there.
    Mapped {
        /// The router's outer address, with the port there.
        #[serde(with = "super::as_text")]
        external: SocketAddr,
        /// How it was asked: `pcp`, `nat-pmp` or `upnp`.
        protocol: Cow<'static, str>,
    },
    /// There is no usable mapping. It is retried after a minute, then ever less often
    /// up to a quarter of an hour, and at once when the network changes.
    Failed {
        /// Why, by each protocol that was tried.
        why: String,
    },
}

/// Another live process with a node's id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DuplicateStatus {
    /// The other process's instance, in hexadecimal.
    pub instance: String,
    /// The address at which a neighbour sees it, as far as it is known.
    pub address: Option<String>,
    /// Whether this node has yielded to it, for good.
    pub yielded: bool,
    /// Whether a neighbour refuses this node as long as the other process lives. The node keeps
    /// trying.
    pub refused: bool,
}

/// One of two processes with the same id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// Its instance, in hexadecimal.
    pub instance: String,
    /// The address at which a neighbour sees it, as far as it is known.
    pub address: Option<String>,
}

/// The certificate that a node shows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CertificateStatus {
    /// The ids it may claim.
    pub names: Vec<NodeId>,
    /// When it expires, in seconds since the Unix epoch.
    pub not_after: u64,
    /// Whole days until then; negative once it has expired.
    pub days_left: i64,
    /// Seconds until it becomes valid; `None` once it has. Until then every node refuses it.
    pub valid_in_s: Option<u64>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

/// The state of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LinkState {
    /// An attempt is under way.
    Dialling,
    /// Waiting for the next attempt.
    Backoff,
    /// Connected; the databases are being brought together.
    Syncing,
    /// Connected and synced, but not advertised for now, because the link flaps; see
    /// [`LinkStatus::held_ms`].
    Held,
    /// Connected, synced and advertised.
    Up,
    /// Another link to the same neighbour took its place; its streams run out.
    Draining,
}

/// Which end opened a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// This node dialled.
    Outgoing,
    /// The neighbour dialled.
    Incoming,
}

/// A link, or the attempt at one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The neighbour, where it is known.
    pub peer: Option<NodeId>,
    /// Where the link stands.
    pub state: LinkState,
    /// Who dialled.
    pub direction: Direction,
    /// What its packets travel in.
    #[serde(default)]
    pub carrier: Carrier,
    /// The neighbour's address, or the name that is dialled.
    pub address: String,
    /// The smoothed round trip, in milliseconds, of a connected link.
    pub rtt_ms: Option<f64>,
    /// The largest UDP payload that is known to pass, in bytes, of a connected link.
    pub mtu: Option<u16>,
    /// The cost, of a connected link: the larger of the two ends'.
    pub cost: Option<u32>,
    /// How long it has been in use, in milliseconds.
    pub up_ms: Option<u64>,
    /// How long this node holds the link back at most, in milliseconds, because it flaps: it was
    /// lost several times within five minutes, and another path leads to the neighbour. `None` if
    /// it is not held back.
    pub held_ms: Option<u64>,
    /// Whether the neighbour is an ephemeral.
    pub ephemeral: bool,
    /// The address at which the neighbour sees this node.
    pub observed: Option<SocketAddr>,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Why the last attempt or link ended.
    pub last_error: Option<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RouteStatus {
    /// The node.
    pub node: NodeId,
    /// The neighbour that its packets go to.
    pub next_hop: NodeId,
    /// All neighbours that lead there at this cost, ascending: flows are spread over them.
    pub next_hops: Vec<NodeId>,
    /// The neighbours that stand in at once when the links to all of those are gone, best first.
    pub alternates: Vec<NodeId>,
    /// The sum of the link costs.
    pub cost: u64,
    /// How many links.
    pub hops: u32,
    /// The directives that it says it handles, beside the built-in ones.
    pub directives: Vec<String>,
    /// What the directives are read from; empty once they have been.
    #[serde(skip)]
    pub(crate) capabilities: bytes::Bytes,
}

/// One end's claim of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EdgeStatus {
    /// Who claims it.
    pub from: NodeId,
    /// The other end.
    pub to: NodeId,
    /// What the claimant says it costs; 100 for a dormant one, which carries no traffic.
    pub cost: u32,
    /// `active`, `stub` or `dormant`.
    pub class: Cow<'static, str>,
}

/// What became of the records of others. The counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecordStatus {
    /// Records whose signature was verified and held.
    pub verified: u64,
    /// Records that were forged or not signed; each cost the neighbour that sent it the link.
    pub forged: u64,
    /// Times that a record was not taken because its certificate is not trusted here.
    pub untrusted: u64,
    /// Records that were dropped because no neighbour that had sent them had the certificate.
    pub unproven: u64,
    /// Proofs of other nodes' ephemerals that were verified and are valid.
    pub attachments: u64,
    /// Claims to be the neighbour of an ephemeral node that were ignored: no proof, or none that
    /// counts.
    pub claims_rejected: u64,
    /// Certificates that neighbours were asked for and gave.
    pub credentials_pulled: u64,
    /// Certificates that were given to neighbours.
    pub credentials_sent: u64,
    /// Whose certificates are not trusted, and why: as seen since the last reload, at most 1,024,
    /// the latest of them.
    pub not_trusted: Vec<NotTrusted>,
}

/// A node that others may reach, and this one may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NotTrusted {
    /// The node.
    pub node: NodeId,
    /// What is wrong with its certificate, for this node.
    pub why: Distrust,
}

/// Direct paths of a node to peers that are not neighbours. The counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PathsStatus {
    /// The NAT in front of the node: `unknown`, `public`, `endpoint-independent` or
    /// `endpoint-dependent`.
    pub nat: Cow<'static, str>,
    /// Peers that packets go to directly now.
    pub direct: usize,
    /// Attempts begun.
    pub attempts: u64,
    /// Attempts by what became of them.
    pub outcomes: BTreeMap<Cow<'static, str>, u64>,
    /// Attempts that came to something, and those of them that got a path, by the NATs of both
    /// ends: `mine/theirs`. Pairs without any are left out.
    pub pairs: BTreeMap<String, PairStatus>,
    /// The mean time from the start of an attempt to its path, in milliseconds; `None` before the
    /// first.
    pub time_to_direct_ms: Option<f64>,
    /// Paths that became usable.
    pub opened: u64,
    /// Paths that died.
    pub died: u64,
    /// Probes sent, answers included.
    pub probes_sent: u64,
    /// Probes taken, answers included.
    pub probes_received: u64,
    /// Probes that were not taken: forged, repeated, late, too many, or no probes.
    pub probes_refused: u64,
}

/// Attempts between two kinds of NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairStatus {
    /// Attempts that came to something.
    pub attempts: u64,
    /// Those that got a path.
    pub direct: u64,
}

/// How the packets of a peer travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PeerPath {
    /// The peer is a neighbour: its streams ride the link.
    Link,
    /// Through other nodes.
    Relayed,
    /// Directly to the peer, which is not a neighbour.
    Direct,
}

/// A node that this one has a connection to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The node.
    pub node: NodeId,
    /// How its packets travel.
    pub path: PeerPath,
    /// The neighbour they go to first, if relayed.
    pub via: Option<NodeId>,
    /// The neighbours that its packets avoid; `None` if they follow the route.
    pub detour: Option<Detour>,
    /// The address of the peer that they go to, if direct.
    pub address: Option<SocketAddr>,
    /// For how long they have taken this path, in seconds; `None` if it is not a neighbour and
    /// direct paths are off.
    pub since_s: Option<f64>,
    /// The smoothed round trip, in milliseconds.
    pub rtt_ms: f64,
    /// Streams that are open now, whichever of the two nodes opened them.
    pub streams: usize,
    /// Opens by this node that wait for a place or for the peer's permission.
    pub opening: usize,
}

/// Counts of datagrams since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DatagramStatus {
    /// Came in for a service that is offered.
    pub received: u64,
    /// Of these, dropped because the listener was too slow.
    pub overflowed: u64,
    /// Came in for a service that is not offered, and were dropped.
    pub unknown_service: u64,
    /// Came in for a service that their sender may not use, and were dropped.
    #[serde(default)]
    pub not_allowed: u64,
    /// Could not be read, and were dropped.
    pub malformed: u64,
    /// Sent by [`DatagramSender::send`](crate::DatagramSender::send) while 1 MiB waited for the
    /// network, so that older datagrams to the same node were dropped: one for each, if all have
    /// the same length.
    pub displaced: u64,
}

/// A detour of this node's packets for a peer: they avoid neighbours through which they got no
/// answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Detour {
    /// The neighbours that are avoided, in the order in which they were tried.
    pub avoided: Vec<NodeId>,
    /// The neighbour that is used instead.
    pub via: NodeId,
    /// For how long, in seconds.
    pub since_s: f64,
    /// Whether the peer answers through it. If not, this is an attempt.
    pub settled: bool,
}
