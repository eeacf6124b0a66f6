//! Moving a host to another place.

use std::{io, net::SocketAddr};

use super::{
    nat::Nat,
    network::Network,
    socket::VirtualSocket,
    spot::{Endpoint, Realm},
};

/// Where a host can move to, see [`VirtualSocket::roam`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Place {
    /// This address of the Internet, port included; port 0 keeps the port.
    Internet(SocketAddr),
    /// The next address behind this NAT or firewall; the port stays.
    Behind(Nat),
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(address)
    }
}

impl From<&Nat> for Place {
    fn from(nat: &Nat) -> Self {
        Self::Behind(nat.clone())
    }
}

impl Place {
    /// The endpoint for a socket that had this port.
    pub(super) fn endpoint(&self, port: u16, network: &Network) -> io::Result<Endpoint> {
        match self {
            Self::Internet(address) if address.port() == 0 => {
                Ok(Realm::INTERNET.endpoint(SocketAddr::new(address.ip(), port)))
            }
            Self::Internet(address) => Ok(Realm::INTERNET.endpoint(*address)),
            Self::Behind(nat) if !nat.network.is(network) => {
                Err(io::ErrorKind::AddrNotAvailable.into())
            }
            Self::Behind(nat) => {
                let ip = network.fabric().next_inner(nat.id);
                Ok(nat.inner.endpoint(SocketAddr::new(ip, port)))
            }
        }
    }
}

impl VirtualSocket {
    /// Moves the host elsewhere, as a phone that leaves the Wi-Fi does: the old address is gone at
    /// once, with what is on its way to it; the new one, which is returned, is there at once.
    /// Unlike a [`Network::rebind`] the host notices: see [`interface`](Self::interface).
    ///
    /// # Errors
    ///
    /// Both are the caller's fault, and nothing has changed:
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if another socket is there,
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) for an unspecified address, or a NAT
    /// of another network.
    pub fn roam(&self, to: impl Into<Place>) -> io::Result<SocketAddr> {
        let port = self.address().port();
        self.move_to(to.into().endpoint(port, self.network())?)
    }
}
