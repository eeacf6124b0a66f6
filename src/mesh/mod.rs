//! The mesh: neighbours, peers, services and streams.
//!
//! One task, the driver, owns all that changes: the router, the links, the contests between links. It waits for one
//! `Input`, hands it to whom it concerns, drains what comes out, and sleeps until the next deadline. It reads the
//! clock once an input, and everything below gets the time by argument; beside it only the diallers, which time their
//! attempts, and the peer connections, for their age, ask `clock`. What others need to read the driver publishes as a
//! whole: the switch's table to the socket, the `View` to those who open streams.
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

mod acceptor;
mod at_once;
mod attaching;
mod black_holes;
pub(crate) mod budget;
mod callers;
pub(crate) mod clock;
pub(crate) mod connection;
mod converge;
pub(crate) mod core;
pub(crate) mod credit;
pub(crate) mod datadir;
pub(crate) mod datagram;
mod departures;
mod detours;
mod dialler;
mod distrust;
mod doubt;
mod driver;
mod ending;
mod events;
mod expiry;
mod explain;
pub(crate) mod fair;
mod forwarding;
mod half_open;
mod input;
pub(crate) mod interfaces;
#[cfg(feature = "mdns")]
pub(crate) mod lan;
pub(crate) mod link;
mod link_cost;
pub(crate) mod links;
pub(crate) mod log;
mod manifest;
pub(crate) mod names;
mod neighbours;
mod notary;
pub(crate) mod open;
pub(crate) mod open_streams;
mod outside;
mod path_messages;
mod paths;
pub(crate) mod patience;
pub(crate) mod peer_addr;
mod peers;
pub(crate) mod pid_lock;
#[cfg(feature = "portmap")]
mod portmap;
pub(crate) mod receive_window;
mod refusal_log;
mod renewal;
mod roaming;
mod send_window;
mod services;
pub(crate) mod shutdown;
mod snapshot;
mod status;
pub mod stream;
mod stub_waiting;
mod twin;
mod unreachable;
pub(crate) mod usage;
mod verification;
mod verifying;
mod vetting;
pub(crate) mod view;
pub(crate) mod window_budget;

pub use crate::transport::settings::MAX_STREAMS;
pub use converge::{ConvergeError, Convergence};
pub use datagram::{
    Datagram, DatagramError, DatagramListener, DatagramSender, DatagramStatus, MAX_WAITING_DATAGRAMS,
};
pub use departures::LeftStatus;
pub use detours::Detour;
pub use ending::{EndReason, EndedBy, Ending};
pub use events::Event;
pub use explain::{
    AttemptStatus, CandidateStatus, Candidates, NatPair, NodeExplanation, PathExplanation, StreamUse,
};
pub use half_open::HandshakeCounts;
pub use interfaces::{AddressKind, LocalAddress, MAX_LOCAL_ADDRESSES};
pub(crate) use link_cost::LinkCosts;
pub use link_cost::{InvalidLinkCost, LinkCost};
pub use notary::CertificateNotary;
pub use open::{OpenError, OpenOptions, RefuseCode, RefusedOpen};
pub use peer_addr::{InvalidPeerAddr, PeerAddr};
pub use peers::MAX_PEERS;
pub use services::{Incoming, Listener, MAX_SERVICES, MAX_WAITING, ServeError};
pub use shutdown::ShutDown;
pub use status::{
    CertificateStatus, Direction, DuplicateStatus, EdgeStatus, HandshakeStatus, LinkState, LinkStatus,
    NetworkStatus, NotTrusted, PairStatus, PathsStatus, PeerPath, PeerStatus, PortMappingStatus,
    ProcessStatus, RecordStatus, RouteStatus, Status, WindowStatus,
};
pub use stream::{RecvHalf, SendHalf, Stream, StreamError};

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
