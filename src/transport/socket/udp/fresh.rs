//! Additional UDP sockets for direct paths, each on its own ephemeral port.
//!
//! A NAT that has dropped, remapped or answered the first packet of a flow remembers that flow. A
//! fresh local port has no history there. Fresh ports are used for direct paths and their probes
//! only: they accept no QUIC packets and no links.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use quinn::AsyncUdpSocket;

use super::bound::Bound;
use super::release::Releasable;
use crate::sync::lock;

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
pub(in crate::transport::socket) struct FreshPorts {
    opener: Option<PortOpener>,
    /// Read per batch without a lock.
    open: ArcSwap<Vec<Bound>>,
    /// Serialises changes of `open`.
    changing: Mutex<()>,
}

impl FreshPorts {
    /// Maximum number of open fresh ports over all peers; each takes a file descriptor.
    pub(in crate::transport::socket) const MAX: usize = 64;

    pub(in crate::transport::socket) fn set_opener(&mut self, opener: Option<PortOpener>) {
        self.opener = opener;
    }

    pub(in crate::transport::socket) fn load(&self) -> Arc<Vec<Bound>> {
        self.open.load_full()
    }

    pub(in crate::transport::socket) fn get(&self, port: u16) -> io::Result<Bound> {
        let open = self.open.load();
        let found = open.iter().find(|socket| socket.addr.port() == port).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the local port is closed"))
    }

    /// Binds one more socket and returns its port.
    pub(in crate::transport::socket) fn open(&self) -> io::Result<u16> {
        let opener = self.opener.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let _changing = lock(&self.changing);
        let mut open = Vec::clone(&self.load());
        if open.len() >= Self::MAX {
            return Err(io::Error::other("too many local ports are open"));
        }
        let io = Arc::new(Releasable::new((opener.0)()?)?);
        let addr = io.local_addr()?;
        open.push(Bound { io, addr });
        self.open.store(Arc::new(open));
        Ok(addr.port())
    }

    pub(in crate::transport::socket) fn close(&self, port: u16) {
        let _changing = lock(&self.changing);
        let mut open = Vec::clone(&self.load());
        let closed = open.extract_if(.., |socket| socket.addr.port() == port);
        closed.for_each(|socket| socket.io.release());
        self.open.store(Arc::new(open));
    }
}
