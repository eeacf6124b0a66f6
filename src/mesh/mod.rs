//! The mesh: neighbours, peers, services and streams.
//!
//! One task, the driver, owns all that changes: the router, the links, the contests between links.
//! It waits for one `Input`, hands it to whom it concerns, drains what comes out, and sleeps until
//! the next deadline. It reads the clock once an input, and everything below gets the time by
//! argument; beside it only the diallers, which time their attempts, and the peer connections, for
//! their age, ask `clock`. What others need to read the driver publishes as a whole: the switch's
//! table to the socket, the `View` to those who open streams.
//!
//! ```text
//!   dialler ─┐                                    ┌─▶ socket: forwarding table
//!   acceptor ┼─ Established ─▶ ┌────────┐ ────────┤
//!   link ────┼─ Frame ───────▶ │ driver │         ├─▶ view: links and routes ─▶ open ─▶ link or peer connection
//!   roaming ─┼─ NetworkChanged▶│        │         │
//!   ICMP ────┼─ Unreachable ─▶ │        │         │
//!   node ────┴─ Command ─────▶ └───┬────┘         ├─▶ events
//!                              router, contests   └─▶ link outboxes
//! ```

pub(crate) mod access;
pub(crate) mod clock;

pub(crate) mod data_dir;
pub(crate) mod driver;
pub(crate) mod handle;
mod input;
pub(crate) mod links;
pub(crate) mod network;
pub(crate) mod peers;
pub(crate) mod report;
pub(crate) mod services;
pub(crate) mod view;

pub use crate::mesh::links::admission::half_open::HandshakeCounts;
pub use crate::mesh::links::dialling::peer_addr::{Carrier, InvalidPeerAddr, PeerAddr};
pub use crate::mesh::links::trust::notary::CertificateNotary;
pub use crate::mesh::services::datagrams::datagram::{
    DatagramError, DatagramListener, DatagramSender,
};
pub use crate::mesh::services::datagrams::datagram_queue::{Datagram, MAX_WAITING_DATAGRAMS};
pub use crate::mesh::services::opening::open::{OpenError, OpenOptions};
pub use crate::mesh::services::opening::refuse::{RefuseCode, RefusedOpen};
pub use crate::mesh::services::opening::request::{OpenRequest, OpenRequests};
pub use crate::transport::CarrierStatus;
pub use crate::transport::settings::MAX_STREAMS;
pub use driver::shutdown::ShutDown;
pub(crate) use links::link_cost::LinkCosts;
pub use links::link_cost::{InvalidLinkCost, LinkCost};
pub use network::interfaces::addresses::{AddressKind, LocalAddress, MAX_LOCAL_ADDRESSES};
pub use peers::MAX_PEERS;
pub use report::convergence::{ConvergeError, Convergence};
pub use report::departures::LeftStatus;
pub use report::event_stream::{Events, MissedEvents};
pub use report::events::Event;
pub use report::explanation::{
    AttemptStatus, CandidateStatus, Candidates, NatPair, NodeExplanation, PathExplanation,
    StreamUse,
};
pub use report::status::{
    CertificateStatus, DatagramStatus, Detour, Direction, DuplicateStatus, EdgeStatus,
    HandshakeStatus, LinkState, LinkStatus, NetworkStatus, NotTrusted, PairStatus, PathsStatus,
    PeerPath, PeerStatus, PolicyStatus, PortMappingStatus, ProcessStatus, RecordStatus,
    RouteStatus, Status, StatusOptions, StubsStatus, WindowStatus,
};
pub use services::ending::{EndReason, EndedBy, Ending};
pub use services::serve_error::{MAX_SERVICES, ServeError};
pub use services::stream::{RecvHalf, SendHalf, Stream, StreamError};
pub use services::{Incoming, Listener, MAX_WAITING};

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
