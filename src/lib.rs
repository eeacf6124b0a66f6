#![cfg_attr(docsrs, feature(doc_cfg))]
//! Join programs into one mesh over mutually authenticated QUIC.
//!
//! Any node reaches any other by name, over as many hops as it takes, sealed end to end: it opens streams to services
//! there, or hands it work and gets the results as they come.
//!
//! # Two nodes and an echo service
//!
#![cfg_attr(feature = "node", doc = "```rust")]
#![cfg_attr(not(feature = "node"), doc = "```rust,ignore")]
//! use receptor_quic::{Authority, Node, NodeId};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let ca = Authority::new("hello", 1)?;
//!     let (alice, bob): (NodeId, NodeId) = ("alice".parse()?, "bob".parse()?);
//!     let bob = Node::builder(bob.clone(), ca.issue(&bob, 1)?).listen("127.0.0.1:0".parse()?).start().await?;
//!     let mut echo = bob.serve("echo".parse()?)?;
//!     tokio::spawn(async move {
//!         while let Some(mut incoming) = echo.accept().await {
//!             copy(&mut incoming.stream.recv, &mut incoming.stream.send).await?;
//!             incoming.stream.shutdown().await?;
//!         }
//!         std::io::Result::Ok(())
//!     });
//!
//!     let alice = Node::builder(alice.clone(), ca.issue(&alice, 1)?).peer(bob.local_addrs()[0]).start().await?;
//!     alice.linked().await?;
//!     let mut stream = alice.open(bob.id(), &"echo".parse()?).await?;
//!     stream.write_all(b"hello, mesh").await?;
//!     stream.shutdown().await?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     println!("{} echoed: {answer}", bob.id());
//!     Ok(())
//! }
//! ```
//!
//! A **node** shows an **identity**, a certificate that carries its name. It keeps links to its **peers**, offers
//! **services**, and opens **streams** to those of others. A node that carries other nodes' packets is a relay.
//!
//! # The house
//!
//! Data goes down on the left and comes up on the right. The left is imported by the right, never the other way.
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
//!                             └───────────▶│ switch  │  what to do with one packet:
//!                                          │ (pure)  │  deliver, forward, drop
//!                                          └─────────┘
//! ```
//!
//! | module | what it is | needs |
//! |---|---|---|
//! | [`id`] | names and numbers, parsed once | |
//! | [`router`] | ROUTE2, the link-state router: a state machine without I/O, clock or randomness | |
//! | [`punch`] | direct paths through NATs and firewalls: a state machine likewise | |
//! | [`switch`] | the decision about one packet | |
//! | `transport` | identities, trust, QUIC and TLS | `node` |
//! | `mesh` | links, peer connections, services, streams, status, events | `node` |
//! | `work` | directives, calls, commands | `node` |
//! | `testing` | a virtual network under real QUIC, in virtual time | `testing` |
//!
//! What a program needs stands at the top of the crate. Every byte on the wire is described in `docs/protocol.md`.
//!
//! # Features
//!
//! They only ever add.
//!
//! - `node` (default): nodes, links, streams and work, by tokio, quinn and rustls.
//! - `cli`: the binary `receptor`.
//! - `mdns`: nodes on the local network are announced and found.
//! - `portmap`: a port of the router is mapped to the node.
//! - `testing`: the virtual network.
//!
//! Without any, there are the router, the puncher and the switch alone: no async, no sockets, no clock, no TLS.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod id;
pub mod punch;
pub mod router;
pub mod switch;
#[cfg(feature = "node")]
mod sync;

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

pub use id::{Cost, InvalidCost, InvalidName, NodeAddr, NodeId, ServiceName, Version};

#[cfg(feature = "node")]
pub use mesh::{
    ConvergeError, Convergence, Datagram, DatagramError, DatagramListener, DatagramSender, EndReason,
    EndedBy, Ending, Event, Incoming, LinkCost, Listener, NodeExplanation, OpenError, PeerAddr, ServeError,
    ShutDown, Status, Stream, StreamError,
};
#[cfg(feature = "node")]
pub use node::{MAX_EXTERNAL, MAX_LISTEN, Node, NodeBuilder, NotLinked, SHUTDOWN_GRACE, StartError};
#[cfg(feature = "node")]
pub use router::Explanation;
#[cfg(feature = "node")]
pub use transport::{Authority, Identity, Liveness, Refusal, RefusalReason, Refuser, RelayRule, Trust};
#[cfg(feature = "node")]
pub use work::{
    Call, CallError, CallOptions, Command, CommandStderr, Directive, HandlerError, InheritEnv, Pong, Request,
    Responder, Response,
};
