//! What to do with one packet. Pure: no I/O, no clock, no randomness.
//!
//! A switched packet is a [`Header`] and, behind it, a QUIC packet of somebody else's connection, which the switch
//! cannot read. The node holds a [`ForwardingTable`], an immutable snapshot that is replaced as a whole whenever a
//! route or a link changes; [`ForwardingTable::decide`] maps a header to a [`Decision`].
//!
//! ```text
//!   packet ──▶ cookie known? ──▶ source plausible? ──▶ for me? ──▶ transit? ──▶ hops left? ──▶ route? ──▶ forward
//!                  │ no             │ no                │ yes        │ no         │ no           │ no
//!                  ▼                ▼                   ▼            ▼            ▼              ▼
//!                drop             drop               deliver       drop         drop       hold, then drop
//! ```
//!
//! Of several next hops at equal cost each [`Flow`] takes one, and keeps it. A link that is gone is not used from that
//! moment: its flows take another next hop, or the route's alternate, a neighbour whose own way does not lead back
//! here; never the neighbour that a packet came from.
//!
//! Each step's failure is a [`DropReason`], counted in [`SwitchCounters`]. A packet without a route is held for up to
//! a second in the [`HoldQueue`], because the flood that brings the route is usually just behind.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod backlog;
mod counters;
mod flow;
mod header;
mod hold;
mod meter;
mod routes;
mod table;

pub use backlog::Backlog;
pub use counters::{DropReason, SwitchCounters, SwitchStatus};
pub use flow::Flow;
pub use header::{Attachment, Cookie, Header, HeaderBytes, HeaderError};
pub use hold::{HeldPacket, HoldQueue};
pub use meter::Meter;
pub use routes::{Place, Routes};
#[cfg(feature = "node")]
pub(crate) use table::DIRECT_HOP_LIMIT;
pub use table::{Decision, ForwardingTable, Ingress, NextHop};
