//! A virtual network of UDP sockets under real quinn, in virtual time.
//!
//! ```text
//!    quinn::Endpoint                                        quinn::Endpoint
//!          │ try_send                                   poll_recv ▲
//!          ▼                                                      │
//!   ┌───────────────┐                                     ┌───────────────┐
//!   │ VirtualSocket │                                     │ VirtualSocket │
//!   │ 10.0.0.1:7400 │                                     │ 10.0.0.2:7400 │
//!   └──────┬────────┘                                     └───────▲───────┘
//!          │                       Network                        │
//!   ┌──────▼──────────────────────────────────────────────────────┴─────────┐
//!   │ bound? ─▶ cut? ─▶ mtu? ─▶ queue, bandwidth ─▶ loss ─▶ latency, jitter │
//!   └───────────────────────────────────────────────────────────────────────┘
//!             every "no" drops the datagram and counts it by reason
//! ```
//!
//! A [`Network`] binds [`VirtualSocket`]s, which quinn takes in place of a UDP socket. What happens
//! to a datagram on its way is decided when it is sent: by the [`LinkQuality`] between the two
//! *hosts* (an IP address is a host), by cuts, and by one random generator that the network is
//! seeded with. There is no background task: each receiving socket keeps what is on its way to it,
//! in order of arrival, and sleeps until the first of it is due.
//!
//! # NATs
//!
//! ```text
//!   192.168.1.2 ─┐                                   ┌─ 192.168.1.2
//!                ├─ Nat 198.18.0.1 ── 198.18.0.2 Nat ┤
//!   192.168.1.3 ─┘       │        ╲                  └─ Nat 100.64.0.1 ── 192.168.1.2
//!                    10.0.0.1      2001:db8:3::2 (behind a firewall)
//! ```
//!
//! [`Network::nat`] puts a [`Nat`] between the Internet and hosts with addresses of their own; it
//! can have others behind it. It decides when a datagram reaches it, for which there is one task a
//! network. It can be flushed, renumbered and blocked, and its access link be made as bad as any.
//!
//! ```
//! use receptor_quic::testing::{LinkQuality, NatKind, Network};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::new(7);
//! let relay = network.bind_host();
//! let home = network.nat(NatKind::PortRestricted);
//! home.set_access(LinkQuality { latency: Duration::from_millis(20), loss: 0.1, ..LinkQuality::default() });
//! let (laptop, phone) = (home.host(), home.host());
//! assert_eq!(laptop.address(), "192.168.1.2:7400".parse()?);
//!
//! let carrier = network.nat(NatKind::Symmetric);
//! let behind_two = carrier.nat(NatKind::PortRestricted).host();
//! phone.roam(&carrier)?; // it leaves the Wi-Fi
//! home.renumber(); // and the provider gives the home another address
//! # Ok(())
//! # }
//! ```
//!
//! # Virtual time
//!
//! The network reads tokio's clock. On a paused clock (`#[tokio::test(start_paused = true)]`) time
//! stands still while any task can run, then jumps to the next timer: a minute of idling takes no
//! time at all, and latencies are exact. What to know:
//!
//! - Only a current-thread runtime can pause its clock. On a multi-thread runtime the network works
//!   too, in real time.
//! - Time does not advance while a `spawn_blocking` task runs, and a task that waits for something
//!   outside of the runtime (a real socket, a thread, a child process) is not waited for: time
//!   races ahead of it.
//! - Tokio's timers tick in milliseconds: a datagram arrives at the first whole millisecond after
//!   it is due. Bandwidth is reckoned in nanoseconds all the same.
//! - Give quinn [`TokioRuntime`](quinn::TokioRuntime); it reads the same clock.
//!
//! # Determinism
//!
//! The same seed and the same sends, at the same times, give the same deliveries. For a whole run
//! to repeat itself, what is above the network must repeat too:
//!
//! - Quinn draws its own randomness unless `EndpointConfig::rng_seed` is set.
//! - A `ClientConfig` used before holds tickets and tokens that make the next handshake another
//!   one.
//! - Keep the certificates: two made alike differ in length now and then, and so do ECDSA
//!   signatures. Ed25519 signatures do not.
//! - `tokio::select!` polls in random order unless it is `biased`.
//!
//! # Example
//!
//! ```
//! use receptor_quic::testing::{LinkQuality, Network};
//! use std::{sync::Arc, time::Duration};
//!
//! # fn tls() -> (quinn::ServerConfig, quinn::ClientConfig) {
//! #     let issued = rcgen::generate_simple_self_signed(["there".to_owned()]).unwrap();
//! #     let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
//! #     let mut roots = rustls::RootCertStore::empty();
//! #     roots.add(issued.cert.der().clone()).unwrap();
//! #     (
//! #         quinn::ServerConfig::with_single_cert(vec![issued.cert.der().clone()], key.into()).unwrap(),
//! #         quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap(),
//! #     )
//! # }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::new(7);
//! network.set_default(LinkQuality { latency: Duration::from_millis(40), loss: 0.01, ..LinkQuality::default() });
//!
//! let (here, there) = (network.bind_host(), network.bind_host());
//! let address = there.address();
//! let (server, client) = tls();
//! let endpoint = |config, socket| {
//!     quinn::Endpoint::new_with_abstract_socket(Default::default(), config, socket, Arc::new(quinn::TokioRuntime))
//! };
//! let server = endpoint(Some(server), there)?;
//! let caller = endpoint(None, here)?;
//!
//! let start = tokio::time::Instant::now();
//! let accepting = tokio::spawn(async move { server.accept().await.unwrap().await });
//! let connection = caller.connect_with(client, address, "there")?.await?;
//! assert!(start.elapsed() >= Duration::from_millis(80)); // a round trip, in virtual time
//! assert_eq!(connection.remote_address(), address);
//! # accepting.await??;
//! # Ok(())
//! # }
//! ```

mod counters;
mod delivery;
mod fabric;
mod mesh;
mod nat;
mod network;
mod place;
mod pump;
mod quality;
mod socket;
mod spot;

#[cfg(test)]
mod nat_tests;
#[cfg(test)]
mod quic_tests;

pub use counters::NetCounters;
pub use mesh::{Mesh, MeshBuilder, mesh};
pub use nat::Nat;
pub use nat::behaviour::{Blocked, Filtering, Mapping, NatBehaviour, NatKind, PortAssignment};
pub use network::Network;
pub use place::Place;
pub use quality::LinkQuality;
pub use socket::VirtualSocket;
