//! Out by one of the UDP sockets: which of them, from which address, and in batches that the system takes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use quinn::udp::{EcnCodepoint, Transmit};
use tracing::trace;

use super::Socket;
use crate::switch::{DropReason, NextHop};

/// The largest datagram that IPv4 carries: what one send may hold, all its segments together.
pub(in crate::transport) const MAX_SEND: usize = 65_507;

/// One UDP socket.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) io: Arc<dyn AsyncUdpSocket>,
    pub(super) addr: SocketAddr,
}

/// Why a batch, or the end of it, was not sent.
pub(super) struct Unsent {
    /// The packets that were sent before.
    pub(super) sent: usize,
    pub(super) error: io::Error,
}

impl Socket {
    /// Sends a probe of a direct path, from a fresh port if one is given. A probe that cannot be sent counts as lost.
    pub(crate) fn send_probe(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        local_port: Option<u16>,
        bytes: &[u8],
    ) {
        let (destination, src_ip) = (mapped(to), from);
        let probe = Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip };
        if let Err(unsent) = self.transmit_from(&probe, local_port) {
            trace!(%to, error = %unsent.error, "probe not sent");
        }
    }

    /// Sends to a neighbour, as its link does.
    pub(super) fn transmit(
        &self,
        contents: &[u8],
        segment_size: Option<usize>,
        ecn: Option<EcnCodepoint>,
        next_hop: NextHop,
    ) -> Result<(), Unsent> {
        let NextHop { to, from, local_port, .. } = next_hop;
        let transmit = Transmit { destination: to, ecn, contents, segment_size, src_ip: from };
        self.transmit_from(&transmit, local_port)
    }

    /// Sends a batch, in as many parts as the system asks for.
    pub(super) fn transmit_from(
        &self,
        transmit: &Transmit<'_>,
        local_port: Option<u16>,
    ) -> Result<(), Unsent> {
        let unsent = |error| Unsent { sent: 0, error };
        let is_there = |ip: &IpAddr| !self.gone.load().contains(&ip.to_canonical());
        let from = transmit.src_ip.filter(is_there);
        let fresh = local_port.map(|port| self.fresh.get(port)).transpose().map_err(unsent)?;
        let socket = match &fresh {
            Some(fresh) => fresh,
            None => self.socket_for(transmit.destination, from).map_err(unsent)?,
        };
        let (destination, src_ip) = match socket.addr.is_ipv4() {
            true => (canonical(transmit.destination), from.map(|ip| ip.to_canonical())),
            false => (transmit.destination, from),
        };
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        // Beyond 64 KiB the kernel refuses the whole batch, and quinn-udp takes that for a lost MTU probe.
        // How many packets a batch may have is asked anew: quinn-udp goes back to one when the system refuses more.
        let batch = segment * (MAX_SEND / segment).clamp(1, socket.io.max_transmit_segments().max(1));
        let mut sent = 0;
        for contents in transmit.contents.chunks(batch) {
            let segment_size = transmit.segment_size.filter(|_| contents.len() > segment);
            let part = Transmit { destination, ecn: transmit.ecn, contents, segment_size, src_ip };
            socket.io.try_send(&part).map_err(|error| Unsent { sent, error })?;
            sent += contents.len().div_ceil(segment);
        }
        Ok(())
    }

    /// The socket bound to `src_ip`, else the first that can reach `destination`.
    pub(super) fn socket_for(&self, destination: SocketAddr, src_ip: Option<IpAddr>) -> io::Result<&Bound> {
        if let [only] = self.sockets.as_slice() {
            return Ok(only);
        }
        let destination = destination.ip().to_canonical();
        let from = src_ip.map(|ip| ip.to_canonical());
        let bound_to_source = self.sockets.iter().find(|s| Some(s.addr.ip().to_canonical()) == from);
        bound_to_source
            .or_else(|| {
                let reaches = |s: &&Bound| {
                    let ip = s.addr.ip();
                    (ip.is_ipv4() == destination.is_ipv4() || ip.is_unspecified() && ip.is_ipv6())
                        && ip.is_loopback() == (destination.is_loopback() && !ip.is_unspecified())
                };
                self.sockets.iter().find(reaches)
            })
            .or_else(|| self.sockets.iter().find(|s| s.addr.is_ipv4() == destination.is_ipv4()))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket of the address's family")
            })
    }
}

/// What a packet that was not sent counts as.
pub(super) fn send_failure(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::WouldBlock => DropReason::QueueFull,
        _ => DropReason::SendFailed,
    }
}

/// quinn gets IPv6 addresses only, with IPv4 mapped into them.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
