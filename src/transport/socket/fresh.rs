//! Additional UDP sockets for direct paths, each on an ephemeral port of its own.
//!
//! A NAT that has dropped, remapped or answered the first packet of a flow remembers that flow. A fresh local port has
//! no history there. Fresh ports carry direct paths and their probes only: they accept no QUIC packets and no links.

use std::io;
use std::sync::{Arc, Mutex};
use std::{fmt, mem};

use arc_swap::ArcSwap;
use quinn::AsyncUdpSocket;

use super::release::Releasable;
use super::transmit::Bound;
use super::{Socket, lock};

/// Binds one more UDP socket, on any free port.
pub(crate) struct PortOpener(Box<OpenPort>);

type OpenPort = dyn Fn() -> io::Result<Arc<dyn AsyncUdpSocket>> + Send + Sync;

impl PortOpener {
    pub(crate) fn new(
        open: impl Fn() -> io::Result<Arc<dyn AsyncUdpSocket>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(open))
    }
}

impl fmt::Debug for PortOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortOpener")
    }
}

/// The fresh ports that are open.
#[derive(Debug, Default)]
pub(super) struct FreshPorts {
    opener: Option<PortOpener>,
    /// Read per batch without a lock.
    open: ArcSwap<Vec<Bound>>,
    /// Serialises changes of `open`.
    changing: Mutex<()>,
}

impl FreshPorts {
    pub(super) fn load(&self) -> Arc<Vec<Bound>> {
        self.open.load_full()
    }

    pub(super) fn get(&self, port: u16) -> io::Result<Bound> {
        let open = self.open.load();
        let found = open.iter().find(|socket| socket.addr.port() == port).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the local port is closed"))
    }
}

impl Socket {
    /// Fresh ports that may be open at a time, over all peers: each is a file descriptor.
    pub(crate) const MAX_FRESH_PORTS: usize = 64;

    /// Lets the node open fresh ports. Without an opener there are none.
    pub(crate) fn with_port_opener(mut self, opener: Option<PortOpener>) -> Self {
        self.fresh.opener = opener;
        self
    }

    /// Binds a UDP socket to an ephemeral port, receives from it, and returns the port.
    ///
    /// # Errors
    /// The system refused, the node cannot open ports, or [`MAX_FRESH_PORTS`](Self::MAX_FRESH_PORTS) are open. Nothing
    /// has changed.
    pub(crate) fn open_port(&self) -> io::Result<u16> {
        let opener = self.fresh.opener.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let changing = lock(&self.fresh.changing);
        let mut open = Vec::clone(&self.fresh.load());
        if open.len() >= Self::MAX_FRESH_PORTS {
            return Err(io::Error::other("too many local ports are open"));
        }
        let io = Arc::new(Releasable::new((opener.0)()?)?);
        let addr = io.local_addr()?;
        open.push(Bound { io, addr });
        self.fresh.open.store(Arc::new(open));
        drop(changing);
        // The receiving task has registered with the sockets that it knew.
        let waker = mem::take(&mut lock(&self.inbound).waker);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(addr.port())
    }

    /// Closes a fresh port. What is sent from it afterwards is dropped and counted as `send_failed`.
    pub(crate) fn close_port(&self, port: u16) {
        let _changing = lock(&self.fresh.changing);
        let mut open = Vec::clone(&self.fresh.load());
        let closed = open.extract_if(.., |socket| socket.addr.port() == port);
        closed.for_each(|socket| socket.io.release());
        self.fresh.open.store(Arc::new(open));
    }
}
