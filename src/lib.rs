#![cfg_attr(docsrs, feature(doc_cfg))]
//! Join programs into one mesh over mutually authenticated QUIC.
//!
//! Any node reaches any other by name, over any number of hops, through NATs, with end-to-end
//! encryption. It opens streams to services there, or sends it work and streams the results.
//!
//! # Two nodes and an echo service
//!
#![cfg_attr(feature = "node", doc = "```rust")]
#![cfg_attr(not(feature = "node"), doc = "```rust,ignore")]
//! use receptor_quic::{Authority, Node};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ca = Authority::new("hello", 1)?;
//!     let bob = Node::builder("bob", ca.issue("bob", 1)?).listen("127.0.0.1:0").start().await?;
//!     let mut echo = bob.serve("echo")?;
//!     tokio::spawn(async move {
//!         while let Some(incoming) = echo.accept().await {
//!             let (mut send, mut recv) = incoming.stream.split();
//!             copy(&mut recv, &mut send).await?;
//!             send.shutdown().await?;
//!         }
//!         std::io::Result::Ok(())
//!     });
//!
//!     let alice =
//!         Node::builder("alice", ca.issue("alice", 1)?).peer(bob.local_addrs()[0]).start().await?;
//!     alice.linked().await?;
//!     let mut stream = alice.open("bob", "echo").await?;
//!     stream.write_all(b"hello, mesh").await?;
//!     stream.shutdown().await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     println!("{} echoed: {answer}", bob.id());
//!     Ok(())
//! }
//! ```
//!
//! A **node** authenticates with an **identity**, a certificate that contains its name. It keeps links
//! to its **peers**, offers **services**, and opens **streams** to services of others. A node that
//! forwards traffic of other nodes is a relay.
//!
//! # Architecture
//!
//! Data goes down on the left and up on the right. Lower modules do not depend on higher ones.
//!
//! ```text
//!      application            cli (feature "cli", binary `receptor`)
//!         │ open/call            │ control socket
//!         ▼                      ▼
//!    ┌────────────────────────────────────┐
//!    │                node                │  builder → checked config → parts → spawn
//!    └──────┬──────────────────────┬──────┘
//!           │                      ▼
//!           │                ┌──────────┐  directives, calls, commands
//!           │                │   work   │  (messages over mesh streams)
//!           │                └────┬─────┘
//!           ▼                     ▼
//!    ┌────────────────────────────────────┐  wait → one input → drain → sleep:
//!    │                mesh                │  neighbours, peers, services, streams
//!    └──┬──────────┬──────────┬──────┬────┘
//!       ▼          ▼          │      ▼
//!  ┌─────────┐ ┌─────────┐    │  ┌─────────────────────────────┐
//!  │ router  │ │  punch  │    │  │          transport          │  quinn, rustls, one UDP socket
//!  │ (pure)  │ │ (pure)  │    │  │ identity · tls · endpoint   │
//!  └─────────┘ └─────────┘    │  │ handshake · frames · socket │◀══▶ network
//!    ROUTE2:     how to be    │  └──────────────┬──────────────┘
//!    who is      reached      │                 ▼
//!    where       directly     │            ┌─────────┐
//!                             └───────────▶│ switch  │  the decision for one packet:
//!                                          │ (pure)  │  deliver, forward, drop
//!                                          └─────────┘
//! ```
//!
//! | module | contents | feature |
//! |---|---|---|
//! | [`id`] | names and numbers, parsed once | |
//! | [`router`] | ROUTE2, the link-state router: a state machine without I/O, clock or randomness | |
//! | [`punch`] | direct paths through NATs and firewalls: a state machine like the router | |
//! | [`switch`] | the forwarding decision for one packet | |
//! | [`policy`] | who may do what: rules in, decisions out | |
//! | `transport` | identities, trust, QUIC and TLS | `node` |
//! | `mesh` | links, peer connections, services, streams, status, events | `node` |
//! | `work` | directives, calls, commands, units of work | `node` |
//! | `testing` | a virtual network under real QUIC, in virtual time | `testing` |
//!
//! The crate root re-exports what applications need. `docs/protocol.md` describes the wire protocol.
//!
//! # Features
//!
//! Features are additive.
//!
//! - `node` (default): nodes, links, streams and work, on tokio, quinn and rustls.
//! - `cli`: the binary `receptor`.
//! - `policy`: policies are read from TOML.
//! - `mdns`: discovery of nodes on the local network.
//! - `portmap`: port mapping by the router.
//! - `testing`: the virtual network.
//!
//! Without features the crate contains the router, hole punching and the switch alone: no async runtime,
//! no sockets, no clock, no TLS.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod id;
pub mod policy;
pub mod punch;
pub mod router;
pub mod switch;
#[cfg(feature = "node")]
mod sync;
#[cfg(feature = "node")]
mod unfold;

#[cfg(feature = "node")]
pub mod mesh;
#[cfg(feature = "node")]
mod node;
#[cfg(feature = "node")]
pub mod transport;
#[cfg(feature = "node")]
pub mod work;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(feature = "testing", all(test, feature = "node")))]
#[allow(dead_code, reason = "each build needs a part of it")]
mod rng;
#[cfg(feature = "testing")]
pub mod testing;

pub use id::{Cost, Directive, NodeId, ServiceName};

#[cfg(feature = "node")]
pub use mesh::{
    ConvergeError, Convergence, Datagram, DatagramError, DatagramListener, DatagramSender, Event,
    Events, Incoming, Listener, NodeExplanation, OpenError, OpenOptions, OpenRequest, OpenRequests,
    PeerAddr, RecvHalf, SendHalf, ServeError, ShutDown, Status, StatusOptions, Stream, StreamError,
};
#[cfg(feature = "node")]
pub use node::{LookupError, Node, NodeBuilder, NotLinked, StartError};
#[cfg(feature = "node")]
pub use transport::{
    Authority, AuthorityError, Congestion, Identity, IdentityError, ListenAddr, Liveness, Trust,
};
#[cfg(feature = "node")]
pub use work::{
    Call, CallError, CallOptions, Command, HandlerError, Payload, PayloadWriter, PingError, Pong,
    RegisterError, Request, Responder, Response, Responses, RpcError, TraceHop,
};
