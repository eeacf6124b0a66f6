//! What is compared.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};

/// One row of the table: a system, in one of its variants, with both ends linked or with a relay
/// between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    pub system: &'static str,
    pub variant: &'static str,
    pub relayed: bool,
    /// Whether what passes the relay is sealed from one end to the other.
    pub sealed: bool,
}

const fn contender(
    system: &'static str,
    variant: &'static str,
    relayed: bool,
    sealed: bool,
) -> Contender {
    Contender { system, variant, relayed, sealed }
}

impl Contender {
    /// All of them, as far as they are compiled in.
    pub fn all() -> &'static [Self] {
        const ALL: &[Contender] = &[
            contender("receptor-quic", "", false, true),
            #[cfg(feature = "iroh")]
            contender("iroh", "", false, true),
            #[cfg(feature = "libp2p")]
            contender("libp2p", "quic", false, true),
            contender("receptor-quic", "", true, true),
            #[cfg(feature = "iroh")]
            contender("iroh", "", true, true),
            #[cfg(feature = "libp2p")]
            contender("libp2p", "quic", true, true),
            #[cfg(feature = "zenoh")]
            contender("zenoh", "quic", true, false),
            #[cfg(feature = "zenoh")]
            contender("zenoh", "tls", true, false),
            #[cfg(feature = "zenoh")]
            contender("zenoh", "tcp", true, false),
            #[cfg(feature = "nats")]
            contender("nats", "tls", true, false),
            #[cfg(feature = "nats")]
            contender("nats", "tcp", true, false),
        ];
        ALL
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.system)?;
        if !self.variant.is_empty() {
            write!(f, "-{}", self.variant)?;
        }
        f.write_str(if self.relayed { "-relayed" } else { "-direct" })
    }
}

impl FromStr for Contender {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::all().iter().find(|contender| contender.to_string() == text) {
            Some(contender) => Ok(*contender),
            None => bail!("no contender is called {text}"),
        }
    }
}

/// What a process of a contender is.
#[derive(Clone, Copy)]
pub enum Role {
    Relay,
    Server,
    Client,
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "relay" => Ok(Self::Relay),
            "server" => Ok(Self::Server),
            "client" => Ok(Self::Client),
            _ => bail!("no role is called {text}"),
        }
    }
}

/// Where a process finds the others.
pub struct Place {
    /// A directory that the processes of one contender share: for certificates.
    pub dir: PathBuf,
    pub relayed: bool,
    #[cfg_attr(
        not(any(feature = "zenoh", feature = "nats")),
        expect(dead_code, reason = "only brokers have variants")
    )]
    pub variant: &'static str,
    /// What the relay, if there is one, and the server said when they were ready, in this order.
    pub at: Vec<String>,
}

impl Place {
    /// What the process before this one said: the relay's for a relayed server, the server's for a
    /// client.
    pub fn last(&self) -> &str {
        self.at.last().map_or("", String::as_str)
    }

    /// What the relay said; empty without one.
    pub fn relay(&self) -> &str {
        if self.relayed { self.at.first().map_or("", String::as_str) } else { "" }
    }
}

/// A system under test.
pub trait System {
    type Client: Client;
    /// What lives as long as the relay or the server does.
    type Running;

    /// Starts what is between the two ends, and tells where it is.
    fn relay(place: &Place) -> impl Future<Output = Result<(Self::Running, String)>>;
    /// Starts the end that takes the bulk and answers calls, and tells where it is.
    fn server(place: &Place) -> impl Future<Output = Result<(Self::Running, String)>>;
    /// Connects.
    fn client(place: &Place) -> impl Future<Output = Result<Self::Client>>;
}

/// The end that begins.
pub trait Client: Send + Sync + 'static {
    /// Sends this many bytes, and returns once the server has confirmed their number.
    fn bulk(&self, bytes: u64) -> impl Future<Output = Result<()>> + Send;
    /// Sends 64 bytes, and returns once 64 bytes came back: one of the system's natural small
    /// requests.
    fn call(&self) -> impl Future<Output = Result<()>> + Send;
}

/// What is sent.
pub static DATA: [u8; 1 << 20] = [7; 1 << 20];
