//! Join programs into one mesh over mutually authenticated QUIC.
//!
//! ```text
//!      application            cli (feature "cli", binary `receptor`)
//!         │ open/call            │ control socket
//!         ▼                      ▼
//!    ┌────────────────────────────────────┐
//!    │                node                │  builder → checked config → parts → spawn
//!    └──────┬──────────────────────┬──────┘
//!           │                      ▼
//!           │                ┌──────────┐  directives, calls, units of work
//!           │                │   work   │  (messages over mesh streams)
//!           │                └────┬─────┘
//!           ▼                     ▼
//!    ┌────────────────────────────────────┐  wait → one input → drain → sleep:
//!    │                mesh                │  neighbours, peers, services, streams
//!    └──┬──────────┬─────────────────┬────┘
//!       ▼          │                 ▼
//!  ┌─────────┐     │   ┌─────────────────────────────┐
//!  │ router  │     │   │          transport          │  quinn, rustls, one UDP socket
//!  │ (pure)  │     │   │ identity · tls · endpoint   │
//!  └─────────┘     │   │ handshake · frames · socket │◀══▶ network
//!                  │   └──────────────┬──────────────┘
//!                  │                  ▼
//!                  │             ┌─────────┐
//!                  └────────────▶│ switch  │  what to do with one packet
//!                                │ (pure)  │
//!                                └─────────┘
//! ```

pub mod id;
pub mod router;
pub mod switch;

#[cfg(feature = "node")]
pub mod mesh;
#[cfg(feature = "node")]
pub mod transport;
#[cfg(feature = "node")]
pub mod work;

#[cfg(feature = "testing")]
pub mod testing;

pub use id::{Cost, InvalidCost, InvalidName, NodeAddr, NodeId, ServiceName, Version};
