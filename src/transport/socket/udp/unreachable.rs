//! What the system and the network report about packets that did not arrive.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use tokio::sync::broadcast;

/// Maximum number of reports queued for a slow subscriber, which then misses the oldest. A report
/// only accelerates what a timeout does anyway.
const MAX_REPORTS: usize = 1_024;

/// A packet did not reach `to`.
///
/// A report by ICMP is a hint, not a proof: anyone who knows both addresses and ports can forge it
/// (RFC 8085 §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unreachable {
    /// The destination, never an IPv4-mapped address.
    pub(crate) to: SocketAddr,
    pub(crate) why: Reason,
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reason {
    /// ICMP: the host has no socket on that port.
    Port,
    /// ICMP: a router, or this host's neighbour discovery, cannot reach the host.
    Host,
    /// ICMP: a router has no route to the network.
    Network,
    /// ICMP: a firewall on the path rejects the packets.
    Prohibited,
    /// This machine has no route to the address.
    NoRoute,
    /// This machine's firewall or security policy does not let the packet out.
    NotPermitted,
}

impl Reason {
    /// The reason in a send error; `None` if the error does not concern the destination.
    pub(crate) fn of_send_error(error: &io::Error) -> Option<Self> {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Some(Self::NotPermitted);
        }
        match Errno::from_io_error(error)? {
            // The latter two: a host without IPv6, or without an address of that family.
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL => {
                Some(Self::NoRoute)
            }
            _ => None,
        }
    }

    /// The reason that an ICMP message gives, by the error number that Linux assigns to it.
    #[cfg(target_os = "linux")]
    pub(in crate::transport) fn of_icmp_error(errno: i32) -> Option<Self> {
        let error = io::Error::from_raw_os_error(errno);
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Port),
            io::ErrorKind::HostUnreachable => Some(Self::Host),
            io::ErrorKind::NetworkUnreachable => Some(Self::Network),
            io::ErrorKind::PermissionDenied => Some(Self::Prohibited),
            _ => None,
        }
    }

    /// Whether the report came from elsewhere, by ICMP, and not from this machine's own routing or
    /// firewall.
    pub(crate) fn is_remote(self) -> bool {
        !matches!(self, Self::NoRoute | Self::NotPermitted)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "port unreachable: no process listens there",
            Self::Host => "host unreachable",
            Self::Network => "network unreachable: a router on the way has no route",
            Self::Prohibited => "rejected by a firewall on the way",
            Self::NoRoute => "network unreachable: this machine has no route there",
            Self::NotPermitted => {
                "not permitted: this machine's firewall or security policy blocks the packet"
            }
        })
    }
}

/// Where sockets report to, and others subscribe. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Reports(broadcast::Sender<Unreachable>);

impl Default for Reports {
    fn default() -> Self {
        Self(broadcast::channel(MAX_REPORTS).0)
    }
}

impl Reports {
    /// Reports to all subscribers. Never blocks.
    pub(crate) fn report(&self, to: SocketAddr, why: Reason) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        // Sending fails without a subscriber, which is fine.
        let _ = self.0.send(Unreachable { to, why });
    }

    /// Receives the reports from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Unreachable> {
        self.0.subscribe()
    }
}
