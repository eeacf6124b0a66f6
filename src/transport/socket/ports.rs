//! Opening and closing fresh ports on a live socket.

use std::{io, mem};

use super::Socket;
use super::fresh::PortOpener;
use crate::sync::lock;

impl Socket {
    /// Permits fresh ports, which `opener` binds. With `None`, [`open_port`](Self::open_port) fails.
    pub(crate) fn with_port_opener(mut self, opener: Option<PortOpener>) -> Self {
        self.fresh.set_opener(opener);
        self
    }

    /// Binds a UDP socket to an ephemeral port, receives from it, and returns the port.
    ///
    /// # Errors
    /// Binding failed, the socket has no opener, or `FreshPorts::MAX` ports are open. Nothing has changed.
    pub(crate) fn open_port(&self) -> io::Result<u16> {
        let port = self.fresh.open()?;
        // The receiving task registered with the sockets that existed when it last polled: wake it,
        // so that it polls the new one too.
        let waker = mem::take(&mut lock(&self.inbound).waker);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(port)
    }

    /// Closes a fresh port. Packets sent from it afterwards are dropped and counted as
    /// `send_failed`.
    pub(crate) fn close_port(&self, port: u16) {
        self.fresh.close(port);
    }
}
