//! What the driver does for direct paths.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::LEAD;
use crate::id::NodeId;
use crate::mesh::clock;
use crate::mesh::driver::Driver;
use crate::mesh::network::interfaces::addresses::{AddressKind, LocalAddress};
use crate::mesh::peers::path_input::PathInput;
use crate::mesh::report::events::Event;
use crate::mesh::report::log::LogKind;
use crate::punch::{self, HostAddress, HostKind, Probe, Puncher};
use crate::transport::endpoint::Endpoint;

impl Driver {
    pub(crate) fn path_input(&mut self, input: PathInput, now: Instant) {
        self.paths.handle_input(input, &self.id, now);
    }

    /// Takes everything that the puncher has to say. What lets packets in is in use before the peer
    /// hears of it.
    pub(crate) fn drain_paths(&mut self, now: Instant) {
        let mut rounds_changed = false;
        while let Some(event) = self.paths.puncher.as_mut().and_then(Puncher::poll_event) {
            match event {
                punch::Event::Path { peer, path } => {
                    self.paths.changed = true;
                    self.path_changed(peer, path);
                }
                punch::Event::Round { peer, attempt } => {
                    debug!(%peer, outcome = attempt.outcome.as_str(), cause = attempt.cause.as_str(), took = ?attempt.took, "punched");
                }
                punch::Event::RoundsChanged => rounds_changed = true,
                punch::Event::OpenPorts { peer, count } => self.open_ports(&peer, count, now),
                punch::Event::ClosePort { port } => self.endpoint.socket().close_port(port),
            }
        }
        self.paths.anew = false;
        let Some(puncher) = &mut self.paths.puncher else { return };
        let socket = self.endpoint.socket();
        if rounds_changed {
            socket.probes().set_rounds(puncher.rounds().collect());
        }
        if std::mem::take(&mut self.paths.changed) {
            self.publish_forwarding(self.routes.last());
            self.changed = true;
        }
        let Some(puncher) = &mut self.paths.puncher else { return };
        let socket = self.endpoint.socket();
        while let Some((peer, message)) = puncher.poll_message() {
            if let Some(session) = self.paths.sessions.get(&peer) {
                session.send(&message);
            }
        }
        let mut volley = Vec::new();
        while let Some(probe) = puncher.poll_probe() {
            if probe.at.is_some() {
                volley.push(probe);
            } else {
                socket.send_probe(probe.to, probe.from, probe.local_port, &probe.bytes);
            }
        }
        if let Some(at) = volley.first().and_then(|probe| probe.at) {
            send_at(self.endpoint.clone(), volley, at);
        }
    }

    /// Opens as many ports as the system grants. The puncher copes without any.
    fn open_ports(&mut self, peer: &NodeId, count: usize, now: Instant) {
        let socket = self.endpoint.socket();
        let mut ports = Vec::new();
        for _ in 0..count {
            match socket.open_port() {
                Ok(port) => ports.push(port),
                Err(error) => {
                    debug!(%peer, %error, "no fresh port for a direct path");
                    break;
                }
            }
        }
        if let Some(puncher) = &mut self.paths.puncher {
            puncher.ports_opened(peer, ports, now);
        }
    }

    fn path_changed(&self, peer: NodeId, path: Option<punch::Path>) {
        match path {
            Some(path) => {
                if self.logs.admit(LogKind::Path, &peer) {
                    info!(%peer, address = %path.to, candidate = path.kind.as_str(), rtt = ?path.rtt, "direct: packets go straight to the peer");
                }
                let candidate = path.kind.as_str().into();
                self.emit(Event::PathUp { peer, address: path.to, candidate });
            }
            None => {
                let why = match self.paths.sessions.contains_key(&peer) {
                    false => "the peer connection has ended",
                    true if self.paths.anew => "the peer has connected anew",
                    true => "the direct path does not answer, or an address behind it has gone",
                };
                if self.logs.admit(LogKind::Path, &peer) {
                    info!(%peer, %why, "relayed: packets for the peer go through the mesh again");
                }
                self.emit(Event::PathDown { peer, why: why.into() });
            }
        }
    }

    /// State that changes with time, or without a notification.
    pub(crate) fn tick_paths(&mut self, now: Instant) {
        self.paths.begin_late(&self.id, now);
        self.paths.tell_of_traffic(now);
        self.paths.set_host(self.host_addresses(), now);
    }

    /// The network under this machine is another one. The addresses come first: peers are told them
    /// at once.
    pub(crate) fn paths_follow_network(&mut self, now: Instant) {
        self.paths.set_host(self.host_addresses(), now);
        self.paths.network_changed(now);
    }

    /// The addresses of this machine that the socket is bound to.
    fn host_addresses(&self) -> Vec<HostAddress> {
        let network = self.paths.network.borrow();
        let mut host = Vec::new();
        let bound_addrs = self.endpoint.socket().bound_addrs();
        let only_ipv6 = bound_addrs.iter().all(SocketAddr::is_ipv6);
        for bound in bound_addrs {
            let ip = bound.ip().to_canonical();
            if !ip.is_unspecified() {
                let known = network.addresses.iter().find(|address| address.ip == ip);
                let unknown = HostAddress::new(SocketAddr::new(ip, bound.port()));
                host.push(known.map_or(unknown, |known| host_address(known, bound.port())));
                continue;
            }
            // A socket that is bound to all IPv6 addresses carries IPv4 as well, unless another one
            // does.
            let of_both = bound.is_ipv6() && only_ipv6;
            let taken = network
                .addresses
                .iter()
                .filter(|address| of_both || address.ip.is_ipv6() == bound.is_ipv6());
            host.extend(taken.map(|address| host_address(address, bound.port())));
        }
        host
    }
}

/// Sends probes at a moment that is at most [`LEAD`] from now. Thread timers are far more exact
/// than the runtime's, which count in milliseconds.
fn send_at(endpoint: Arc<Endpoint>, probes: Vec<Probe>, at: Instant) {
    tokio::task::spawn_blocking(move || {
        let wait = at.saturating_duration_since(clock::now()).min(LEAD);
        std::thread::sleep(wait);
        for probe in probes {
            endpoint.socket().send_probe(probe.to, probe.from, probe.local_port, &probe.bytes);
        }
    });
}

fn host_address(address: &LocalAddress, port: u16) -> HostAddress {
    let kind = match address.kind {
        AddressKind::ContainerBridge => HostKind::Bridge,
        _ => HostKind::Ordinary,
    };
    HostAddress { addr: SocketAddr::new(address.ip, port), prefix: address.prefix, kind }
}
