//! Sending through one of the UDP sockets: selects the socket and the source address, and splits
//! batches to what the system accepts.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn::AsyncUdpSocket as _;
use quinn::udp::{EcnCodepoint, Transmit};
use tracing::trace;

use super::Socket;
use super::udp::bound::{Bound, MAX_SEND, Unsent, canonical, carries, mapped};
use crate::switch::NextHop;
use crate::transport::carrier;

impl Socket {
    /// Sends a probe of a direct path, from a fresh port if one is given. A probe that cannot be
    /// sent counts as lost.
    pub(crate) fn send_probe(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        local_port: Option<u16>,
        bytes: &[u8],
    ) {
        let (destination, src_ip) = (mapped(to), from);
        let probe =
            Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip };
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

    /// Sends a batch in as many parts as the system requires.
    pub(super) fn transmit_from(
        &self,
        transmit: &Transmit<'_>,
        local_port: Option<u16>,
    ) -> Result<(), Unsent> {
        let unsent = |error| Unsent { sent: 0, error };
        if carrier::is_carrier(transmit.destination) {
            let now = tokio::time::Instant::now().into_std();
            return self.carriers.send(transmit, now).map_err(unsent);
        }
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
        // Beyond 64 KiB the kernel rejects the whole batch, and quinn-udp mistakes that for a lost
        // MTU probe. The limit is queried for every batch, because quinn-udp lowers it to one when
        // the system rejects more.
        let batch =
            segment * (MAX_SEND / segment).clamp(1, socket.io.max_transmit_segments().max(1));
        let mut sent = 0;
        for contents in transmit.contents.chunks(batch) {
            let segment_size = transmit.segment_size.filter(|_| contents.len() > segment);
            let part = Transmit { destination, ecn: transmit.ecn, contents, segment_size, src_ip };
            socket.io.try_send(&part).map_err(|error| Unsent { sent, error })?;
            sent += contents.len().div_ceil(segment);
        }
        Ok(())
    }

    /// The socket by which a packet leaves: the one on which its destination was heard, else one
    /// that is bound to `src_ip`, else the first that can reach the destination.
    pub(super) fn socket_for(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
    ) -> io::Result<&Bound> {
        if let [only] = self.sockets.as_slice() {
            return Ok(only);
        }
        let destination = canonical(destination);
        let (to, from) = (destination.ip(), src_ip.map(|ip| ip.to_canonical()));
        let bound_to = |socket: &Bound| Some(socket.addr.ip().to_canonical()) == from;
        let has_source = |socket: &Bound| {
            from.is_none() || bound_to(socket) || socket.addr.ip().is_unspecified()
        };
        let reaches = |socket: &Bound| carries(&self.sockets, socket, to.is_ipv4());
        let heard =
            self.heard.as_ref().and_then(|heard| self.sockets.get(heard.socket(destination)?));
        if let Some(heard) = heard.filter(|socket| reaches(socket) && has_source(socket)) {
            return Ok(heard);
        }
        let suits = |socket: &Bound| match to.is_loopback() {
            true => socket.addr.ip().is_loopback(),
            false => !socket.addr.ip().is_loopback(),
        };
        // From the best choice to the last resort.
        let choices: [&dyn Fn(&Bound) -> bool; 5] = [
            &|socket| reaches(socket) && bound_to(socket),
            &|socket| reaches(socket) && has_source(socket) && suits(socket),
            &|socket| reaches(socket) && has_source(socket),
            &|socket| reaches(socket) && suits(socket),
            &|socket| reaches(socket),
        ];
        let chosen =
            choices.iter().find_map(|fits| self.sockets.iter().find(|socket| fits(socket)));
        chosen.ok_or_else(|| {
            io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket of the address's family")
        })
    }
}
