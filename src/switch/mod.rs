//! The forwarding decision for one packet. Pure: no I/O, no clock, no randomness.
//!
//! A switched packet is a [`Header`] followed by a QUIC packet that the switch cannot decrypt. The
//! node holds a [`ForwardingTable`], an immutable snapshot that is replaced whenever a route or a
//! link changes; [`ForwardingTable::decide`] maps a header to a [`Decision`].
//!
//! ```text
//!   packet ──▶ cookie known? ──▶ source plausible? ──▶ for me? ──▶ transit? ──▶ hops left? ──▶ route? ──▶ forward
//!                  │ no             │ no                │ yes        │ no         │ no           │ no
//!                  ▼                ▼                   ▼            ▼            ▼              ▼
//!                drop             drop               deliver       drop         drop       hold, then drop
//! ```
//!
//! Among next hops of equal cost each [`Flow`] selects one and keeps it. When a link fails, its
//! flows move at once to another next hop, or to the route's alternate, which is a neighbour whose
//! own path does not lead back here; never to the neighbour that the packet arrived from.
//!
//! Each failing step has a [`DropReason`], counted in [`SwitchCounters`]. A packet without a route
//! is held for up to a second in the [`HoldQueue`], because the update that brings the route
//! usually follows shortly.
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
