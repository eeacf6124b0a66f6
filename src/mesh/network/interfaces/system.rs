//! What the system says of the network: a few calls that do not wait.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use if_addrs::{IfAddr, IfOperStatus};
use tracing::debug;

use super::addresses::{DefaultRoute, LocalAddress, LocalNetwork, best};

/// The maximum number of bytes of the system's routes that are read. A router with a full table has
/// millions.
#[cfg(target_os = "linux")]
const MAX_ROUTES: u64 = 256 * 1024;

/// The network as it is now.
pub(crate) fn look(slept: u64) -> LocalNetwork {
    LocalNetwork {
        addresses: best(addresses()),
        routes: default_routes(),
        preferred: preferred(),
        slept,
    }
}

fn addresses() -> Vec<LocalAddress> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        debug!(%error, "the system does not tell its addresses");
        Vec::new()
    });
    // Unix reports only whether an interface is up and has a carrier; elsewhere a status may be
    // unknown.
    let up = |status: &IfOperStatus| match status {
        IfOperStatus::Up => true,
        IfOperStatus::Unknown => cfg!(not(unix)),
        _ => false,
    };
    let usable = interfaces.into_iter().filter(|interface| up(&interface.oper_status));
    usable
        .map(|interface| {
            let (ip, prefix) = match interface.addr {
                IfAddr::V4(addr) => (addr.ip.into(), addr.prefixlen),
                IfAddr::V6(addr) => (addr.ip.into(), addr.prefixlen),
            };
            LocalAddress::new(ip, prefix, interface.name)
        })
        .collect()
}

/// The addresses that packets to the rest of the world come from. Connecting a UDP socket sends
/// nothing; the addresses are reserved for documentation (RFC 5737, RFC 3849).
fn preferred() -> Vec<IpAddr> {
    let anywhere: [IpAddr; 2] =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    anywhere.into_iter().filter_map(source_for).collect()
}

/// The address that packets to `remote` come from, by the system's choice.
fn source_for(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(remote, 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

#[cfg(target_os = "linux")]
fn default_routes() -> Vec<DefaultRoute> {
    // Under this process, since /proc/net is hidden from services that get to see no more of /proc
    // than processes.
    let mut routes = linux::v4_routes(&read("/proc/self/net/route"));
    routes.extend(linux::v6_routes(&read("/proc/self/net/ipv6_route")));
    routes.sort();
    routes.dedup();
    routes
}

/// Elsewhere a change of the route shows in the addresses that packets come from.
#[cfg(not(target_os = "linux"))]
fn default_routes() -> Vec<DefaultRoute> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn read(path: &str) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error is as good as any.
        let _ = file.take(MAX_ROUTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use crate::mesh::network::interfaces::addresses::DefaultRoute;

    /// RTF_UP and RTF_REJECT of the kernel's route flags.
    const UP: u32 = 0x1;
    const REJECT: u32 = 0x200;

    /// The default routes in the text of `/proc/net/route`.
    pub(crate) fn v4_routes(text: &str) -> Vec<DefaultRoute> {
        let route = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (interface, destination, gateway) =
                (*fields.first()?, *fields.get(1)?, *fields.get(2)?);
            let (flags, mask) = (*fields.get(3)?, *fields.get(7)?);
            let zero = |hex: &str| u32::from_str_radix(hex, 16).ok() == Some(0);
            // The kernel prints the address as the number that it is in memory.
            let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
            (usable(flags)? && zero(destination) && zero(mask))
                .then(|| DefaultRoute { interface: interface.to_owned(), gateway: gateway.into() })
        };
        text.lines().filter_map(route).collect()
    }

    /// The default routes in the text of `/proc/net/ipv6_route`.
    pub(crate) fn v6_routes(text: &str) -> Vec<DefaultRoute> {
        let route = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (destination, bits, gateway) = (*fields.first()?, *fields.get(1)?, *fields.get(4)?);
            let (flags, interface) = (*fields.get(8)?, *fields.get(9)?);
            let address = |hex: &str| u128::from_str_radix(hex, 16).ok();
            let gateway = Ipv6Addr::from(address(gateway)?);
            (usable(flags)? && address(destination)? == 0 && bits == "00" && interface != "lo")
                .then(|| DefaultRoute { interface: interface.to_owned(), gateway: gateway.into() })
        };
        text.lines().filter_map(route).collect()
    }

    fn usable(flags: &str) -> Option<bool> {
        let flags = u32::from_str_radix(flags, 16).ok()?;
        Some(flags & UP != 0 && flags & REJECT == 0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn route(interface: &str, gateway: &str) -> DefaultRoute {
            DefaultRoute { interface: interface.to_owned(), gateway: gateway.parse().unwrap() }
        }

        #[test]
        #[cfg(target_endian = "little")]
        fn the_kernels_ipv4_table_is_read() {
            let text = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
ppp0\t00000000\t00000000\t0001\t0\t0\t9\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
broken";
            assert_eq!(v4_routes(text), [route("eth0", "192.0.2.1"), route("ppp0", "0.0.0.0")]);
        }

        #[test]
        fn the_kernels_ipv6_table_is_read() {
            let zero = "0".repeat(32);
            let text = format!(
                "fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 00000001     eth0
{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 3 0 00000003     eth0
{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200       lo
broken"
            );
            assert_eq!(v6_routes(&text), [route("eth0", "fd00::1")]);
        }
    }
}
