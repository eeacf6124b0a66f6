//! Binding the UDP sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;

use quinn::AsyncUdpSocket;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::info;

use super::renewable::Renewable;
use super::unreachable::Reports;
use crate::id::{excerpt, text_argument};
use crate::transport::socket::PortOpener;

/// Requested size of socket buffers in bytes; the system may grant less. Handshakes by the thousand
/// and bursts from fast senders overflow the usual 208 KiB.
const BUFFER: usize = 4 * 1024 * 1024;

/// Where a node listens: `IP:PORT`, an IPv6 address in brackets, or `:PORT` for all interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ListenAddr {
    /// On this address. `[::]` includes IPv4, unless an IPv4 address is given as well.
    At(SocketAddr),
    /// On this port of all interfaces, by IPv4 and IPv6 as far as the host has them.
    Any(u16),
}

/// The text is not a [`ListenAddr`]. The caller's fault; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an address with its UDP port: 0.0.0.0:4433, [::]:4433 or :4433")]
pub struct InvalidListenAddr(pub String);

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::At(addr)
    }
}

impl FromStr for ListenAddr {
    type Err = InvalidListenAddr;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddr> {
        let addr = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(Self::Any),
            None => text.parse().ok().map(Self::At),
        };
        addr.ok_or_else(|| InvalidListenAddr(excerpt(text)))
    }
}

text_argument!(InvalidListenAddr: ListenAddr);

impl ListenAddr {
    /// The addresses that it expands to.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        let (first, second) = match self {
            Self::At(addr) => (addr.ip(), None),
            Self::Any(_) => (Ipv6Addr::UNSPECIFIED.into(), Some(Ipv4Addr::UNSPECIFIED.into())),
        };
        [Some(first), second].into_iter().flatten()
    }
}

/// Binds the sockets for `listen`, or one to any port of all interfaces if that is empty. What does
/// not arrive is reported to `reports`.
pub(crate) fn bind(listen: &[ListenAddr], reports: &Reports) -> io::Result<Vec<Arc<Renewable>>> {
    let sockets = bind_by(listen, open)?;
    sockets
        .into_iter()
        .map(|socket| Renewable::new(socket, reports.clone()).map(Arc::new))
        .collect()
}

/// What binds further sockets for direct paths beside these: on the same IPv4 address, any port.
/// `None` without IPv4: fresh ports are for NATs.
pub(crate) fn port_opener(bound: &[Arc<Renewable>], reports: &Reports) -> Option<PortOpener> {
    let addr = bound.iter().filter_map(|socket| socket.local_addr().ok()).find_map(|addr| {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
            IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv4Addr::UNSPECIFIED),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    })?;
    let reports = reports.clone();
    Some(PortOpener::new(move || {
        let socket = open((addr, 0).into(), Stack::Single)?;
        Ok(Arc::new(Renewable::new(socket, reports.clone())?) as Arc<dyn AsyncUdpSocket>)
    }))
}

/// The address families that a socket serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stack {
    /// Those of its address's family.
    Single,
    /// An IPv6 socket that also serves IPv4.
    Dual,
}

fn bind_by<S>(
    listen: &[ListenAddr],
    open: impl Fn(SocketAddr, Stack) -> io::Result<S>,
) -> io::Result<Vec<S>> {
    let listen = if listen.is_empty() { &[ListenAddr::Any(0)] } else { listen };
    let v4_given =
        listen.iter().any(|listen| matches!(listen, ListenAddr::At(addr) if addr.is_ipv4()));
    let stack = if v4_given { Stack::Single } else { Stack::Dual };
    let bound = |addr, stack| open(addr, stack).map_err(|error| refused(addr, &error));
    let mut sockets = Vec::new();
    for listen in listen {
        match *listen {
            ListenAddr::At(addr) => sockets.push(bound(addr, stack)?),
            ListenAddr::Any(port) => {
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
                match open(v6, stack) {
                    Ok(socket) => {
                        sockets.push(socket);
                        if stack == Stack::Dual {
                            continue;
                        }
                    }
                    Err(error) if has_no_ipv6(&error) => {
                        info!(address = %v4, "no IPv6 on this host; listening on IPv4")
                    }
                    Err(error) => return Err(refused(v6, &error)),
                }
                sockets.push(bound(v4, Stack::Single)?);
            }
        }
    }
    Ok(sockets)
}

fn open(addr: SocketAddr, stack: Stack) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(stack == Stack::Single)?;
    }
    // A smaller buffer than requested is not an error: quinn works with any size.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Whether the host refuses IPv6 as a whole, as it does with `ipv6.disable=1`.
fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn refused(addr: SocketAddr, error: &io::Error) -> io::Error {
    let no_ipv6 = addr.is_ipv6() && Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT);
    let why = match (no_ipv6, addr.ip().is_unspecified()) {
        (true, true) => format!(
            "address family not supported; this host has no IPv6, use {}",
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()))
        ),
        (true, false) => "address family not supported; this host has no IPv6".to_owned(),
        (false, _) => error.to_string(),
    };
    io::Error::new(error.kind(), format!("cannot listen on {addr}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addr: &str) -> ListenAddr {
        ListenAddr::At(addr.parse().unwrap())
    }

    /// What is bound on a host with both families.
    fn bound(listen: &[ListenAddr]) -> Vec<(String, Stack)> {
        bind_by(listen, |addr, stack| Ok((addr.to_string(), stack))).unwrap()
    }

    /// The same on a host whose kernel has no IPv6.
    fn without_ipv6(listen: &[ListenAddr]) -> Result<Vec<String>, String> {
        let open = |addr: SocketAddr, _| match addr.is_ipv4() {
            true => Ok(addr.to_string()),
            false => Err(Errno::AFNOSUPPORT.into()),
        };
        bind_by(listen, open).map_err(|error| error.to_string())
    }

    #[test]
    fn one_socket_carries_both_families_where_no_ipv4_address_is_given() {
        let dual = |addr: &str| (addr.to_owned(), Stack::Dual);
        assert_eq!(bound(&[]), [dual("[::]:0")]);
        assert_eq!(bound(&[ListenAddr::Any(4433)]), [dual("[::]:4433")]);
        assert_eq!(bound(&[at("[::]:1"), at("[::1]:2")]), [dual("[::]:1"), dual("[::1]:2")]);
    }

    #[test]
    fn ipv6_sockets_leave_ipv4_to_the_addresses_that_are_given() {
        let single = |addr: &str| (addr.to_owned(), Stack::Single);
        assert_eq!(
            bound(&[at("0.0.0.0:1"), at("[::]:1")]),
            [single("0.0.0.0:1"), single("[::]:1")]
        );
        let any = [at("127.0.0.1:1"), ListenAddr::Any(2)];
        assert_eq!(bound(&any), [single("127.0.0.1:1"), single("[::]:2"), single("0.0.0.0:2")]);
    }

    #[test]
    fn any_address_is_ipv4_where_there_is_no_ipv6() {
        assert_eq!(without_ipv6(&[]).unwrap(), ["0.0.0.0:0"]);
        assert_eq!(without_ipv6(&[ListenAddr::Any(4433)]).unwrap(), ["0.0.0.0:4433"]);
    }

    #[test]
    fn an_ipv6_address_is_refused_with_a_remedy_where_there_is_no_ipv6() {
        assert_eq!(
            without_ipv6(&[at("[::]:4433")]).unwrap_err(),
            "cannot listen on [::]:4433: address family not supported; this host has no IPv6, use 0.0.0.0:4433"
        );
        assert_eq!(
            without_ipv6(&[at("[2001:db8::1]:1")]).unwrap_err(),
            "cannot listen on [2001:db8::1]:1: address family not supported; this host has no IPv6"
        );
    }

    #[tokio::test]
    async fn both_wildcards_share_a_port() {
        let free = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let listen = [
            ListenAddr::At(([0, 0, 0, 0], free).into()),
            ListenAddr::At((Ipv6Addr::UNSPECIFIED, free).into()),
        ];
        match bind(&listen, &Reports::default()) {
            Ok(sockets) => assert_eq!(sockets.len(), 2),
            Err(error) => assert!(error.to_string().contains("this host has no IPv6"), "{error}"),
        }
    }
}
