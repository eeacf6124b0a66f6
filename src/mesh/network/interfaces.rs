//! The addresses of this machine, now and as they change.
//!
//! ```text
//!   netlink (Linux) ─┐                        ┌─▶ driver: links are checked, diallers kicked
//!   every 2 s: slept? ┼─▶ settle ─▶ look ─▶ LocalNetwork ─▶ punching: candidates
//!   every 2 or 30 s ─┘                        └─▶ socket: addresses that are gone
//! ```
//!
//! The system only says *that* something happened; what there is now is then read anew, as a whole, so that nothing is
//! missed and nothing has to be pieced together. Bursts are waited out, see [`settle`].

mod settle;
mod system;
mod wake;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::mesh::clock;
use settle::{Settle, slept};
pub(crate) use system::DefaultRoute;
use wake::Wakes;

/// Addresses of a machine that are looked at, at most: the best of them, in the order of [`AddressKind`].
pub const MAX_LOCAL_ADDRESSES: usize = 256;
/// How often the clocks are compared, and, where the system does not tell of changes, the addresses looked at.
const POLL: Duration = Duration::from_secs(2);
/// How often the addresses are looked at where the system tells of changes: in case that one was lost.
const LOOK: Duration = Duration::from_secs(30);

/// What an address is good for, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AddressKind {
    /// An address like any other.
    Usual,
    /// Of an interface that looks like a bridge to containers or virtual machines: nobody else is behind it.
    ContainerBridge,
    /// Valid on its own network segment only, and of no use without the interface's name.
    LinkLocal,
    /// This machine alone.
    Loopback,
}

/// An address of this machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[non_exhaustive]
pub struct LocalAddress {
    /// What it is good for.
    pub kind: AddressKind,
    /// The address; never a mapped one.
    pub ip: IpAddr,
    /// How many bits of it name its network: neighbours on the segment have the same.
    pub prefix: u8,
    /// The interface's name.
    pub interface: String,
}

impl LocalAddress {
    /// An address of an interface; its kind follows from both.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8, interface: impl Into<String>) -> Self {
        let (ip, interface) = (ip.to_canonical(), interface.into());
        Self { kind: kind(ip, &interface), ip, prefix, interface }
    }
}

/// The network as this machine sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LocalNetwork {
    /// Addresses of interfaces that are up, best first; at most [`MAX_LOCAL_ADDRESSES`].
    pub(crate) addresses: Vec<LocalAddress>,
    /// Where packets to the rest of the world go, as far as the system says.
    pub(crate) routes: Vec<DefaultRoute>,
    /// The addresses that packets to the rest of the world come from, by the system's choice.
    pub(crate) preferred: Vec<IpAddr>,
    /// How often this machine has slept, as far as its clocks tell.
    pub(crate) slept: u64,
}

impl LocalNetwork {
    /// Addresses that were there in `before`, and are not now.
    pub(crate) fn gone_since(&self, before: &Self) -> Vec<IpAddr> {
        let has = |ip: IpAddr| self.addresses.iter().any(|address| address.ip == ip);
        before.addresses.iter().map(|address| address.ip).filter(|ip| !has(*ip)).collect()
    }

    /// Whether connections may have been affected by what changed since `before`. Containers come and go on busy machines, and
    /// link-local addresses with them: those alone are no reason to check a thousand links.
    pub(crate) fn moved_since(&self, before: &Self) -> bool {
        let usual = |network: &Self| {
            let usual = network.addresses.iter().filter(|address| address.kind == AddressKind::Usual);
            usual.map(|address| address.ip).collect::<Vec<_>>()
        };
        self.slept != before.slept
            || self.routes != before.routes
            || self.preferred != before.preferred
            || usual(self) != usual(before)
    }
}

/// The addresses of this machine, now and as they change. Clones share the watching task, which ends with the last of them
/// and of their receivers.
#[derive(Clone, Debug)]
pub(crate) struct Interfaces(watch::Receiver<Arc<LocalNetwork>>);

impl Interfaces {
    /// Watches this machine's interfaces, on the current tokio runtime.
    pub(crate) fn of_this_machine() -> Self {
        let (sender, receiver) = watch::channel(Arc::new(system::look(0)));
        tokio::spawn(watch_machine(sender));
        Self(receiver)
    }

    /// As if these were the machine's: for virtual networks. Each new list is a change.
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "for virtual networks"))]
    pub(crate) fn given(mut addresses: watch::Receiver<Vec<LocalAddress>>) -> Self {
        let network = |addresses: &[LocalAddress]| {
            Arc::new(LocalNetwork { addresses: best(addresses.to_vec()), ..LocalNetwork::default() })
        };
        let first = network(&addresses.borrow_and_update());
        let (sender, receiver) = watch::channel(first);
        tokio::spawn(async move {
            while addresses.changed().await.is_ok() && !sender.is_closed() {
                sender.send_replace(network(&addresses.borrow_and_update()));
            }
        });
        Self(receiver)
    }

    /// A network that nobody looks at: without addresses, and without changes.
    pub(crate) fn unknown() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// The network as it is now, and as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<LocalNetwork>> {
        self.0.clone()
    }
}

/// Looks whenever something may have happened, and tells when something did. Ends when nobody listens.
async fn watch_machine(sender: watch::Sender<Arc<LocalNetwork>>) {
    let mut wakes =
        Wakes::open().inspect_err(|error| debug!(%error, "the system does not tell of changes")).ok();
    let every = if wakes.is_some() { LOOK } else { POLL };
    let mut settle = Settle::default();
    let mut looked = Instant::now();
    let mut clocks = (Instant::now(), clock::system());
    loop {
        let poll = clocks.0 + POLL;
        let wake_at = settle.due().map_or(poll, |due| poll.min(due.into()));
        tokio::select! {
            biased;
            () = sender.closed() => return,
            woken = woken(wakes.as_ref()) => match woken {
                Ok(()) => settle.disturbed(clock::now()),
                Err(error) => {
                    debug!(%error, "the system tells of no more changes");
                    wakes = None;
                }
            },
            () = tokio::time::sleep_until(wake_at) => {}
        }
        let now = Instant::now();
        let mut times_slept = sender.borrow().slept;
        if now >= poll {
            let system = clock::system();
            if slept(POLL, now.saturating_duration_since(clocks.0), advance(clocks.1, system)) {
                times_slept += 1;
                settle.disturbed(clock::now());
            }
            clocks = (now, system);
        }
        let due = settle.due().is_some_and(|due| now >= due.into());
        if due || now >= looked + every || times_slept != sender.borrow().slept {
            settle.settled();
            looked = now;
            tell(&sender, system::look(times_slept));
        }
    }
}

fn tell(sender: &watch::Sender<Arc<LocalNetwork>>, network: LocalNetwork) {
    let before = sender.borrow().clone();
    if network == *before {
        return;
    }
    let addresses: Vec<_> = network.addresses.iter().map(|address| address.ip).collect();
    info!(?addresses, gone = ?network.gone_since(&before), slept = network.slept != before.slept, "the network changed");
    sender.send_replace(Arc::new(network));
}

async fn woken(wakes: Option<&Wakes>) -> std::io::Result<()> {
    match wakes {
        Some(wakes) => wakes.next().await,
        None => std::future::pending().await,
    }
}

fn advance(before: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(before).unwrap_or_default()
}

/// The best of them, in order, each once.
fn best(mut addresses: Vec<LocalAddress>) -> Vec<LocalAddress> {
    addresses.sort();
    addresses.dedup();
    addresses.truncate(MAX_LOCAL_ADDRESSES);
    addresses
}

fn kind(ip: IpAddr, interface: &str) -> AddressKind {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        AddressKind::Loopback
    } else if link_local {
        AddressKind::LinkLocal
    } else if is_container_bridge(interface) {
        AddressKind::ContainerBridge
    } else {
        AddressKind::Usual
    }
}

/// Names that Docker, Podman, libvirt, LXC, LXD, Kubernetes and Hyper-V give to what they make. A guess: nothing but the order
/// of candidates and the reasons to check links depend on it.
fn is_container_bridge(interface: &str) -> bool {
    const PREFIXES: [&str; 13] = [
        "docker",
        "veth",
        "virbr",
        "cni",
        "podman",
        "lxcbr",
        "lxdbr",
        "flannel",
        "cali",
        "cilium",
        "kube-",
        "vethernet (",
        "vmnet",
    ];
    let name = interface.to_ascii_lowercase();
    // Docker's other bridges; a router's own is `br-lan` or the like.
    let numbered = |digits: &str| digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.strip_prefix("br-").is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, interface: &str) -> LocalAddress {
        LocalAddress::new(ip.parse().unwrap(), 24, interface)
    }

    fn network(addresses: &[(&str, &str)]) -> LocalNetwork {
        let addresses = best(addresses.iter().map(|(ip, interface)| address(ip, interface)).collect());
        LocalNetwork { addresses, ..LocalNetwork::default() }
    }

    #[test]
    fn addresses_are_ordered_by_what_they_are_good_for() {
        let network = network(&[
            ("127.0.0.1", "lo"),
            ("fe80::1", "eth0"),
            ("169.254.1.1", "eth0"),
            ("172.17.0.1", "docker0"),
            ("192.168.122.1", "virbr0"),
            ("2001:db8::1", "eth0"),
            ("10.0.0.1", "wlan0"),
        ]);
        let order: Vec<_> = network.addresses.iter().map(|address| address.ip.to_string()).collect();
        assert_eq!(
            order,
            ["10.0.0.1", "2001:db8::1", "172.17.0.1", "192.168.122.1", "169.254.1.1", "fe80::1", "127.0.0.1"]
        );
        assert_eq!(network.addresses[2].kind, AddressKind::ContainerBridge);
        assert_eq!(address("172.18.0.1", "br-0123456789ab").kind, AddressKind::ContainerBridge);
        assert_eq!(address("192.168.1.1", "br-lan").kind, AddressKind::Usual);
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        assert_eq!(address("::ffff:10.0.0.1", "eth0"), address("10.0.0.1", "eth0"));
    }

    #[test]
    fn of_too_many_addresses_the_best_are_kept() {
        let mut addresses: Vec<_> = (0..MAX_LOCAL_ADDRESSES)
            .map(|n| address(&format!("172.17.{}.{}", n / 200, n % 200), "docker0"))
            .collect();
        addresses.push(address("10.0.0.1", "eth0"));
        let addresses = best(addresses);
        assert_eq!(addresses.len(), MAX_LOCAL_ADDRESSES);
        assert_eq!(addresses[0], address("10.0.0.1", "eth0"));
    }

    #[test]
    fn a_container_that_comes_or_goes_does_not_concern_the_links() {
        let before = network(&[("10.0.0.1", "eth0")]);
        let after = network(&[("10.0.0.1", "eth0"), ("172.17.0.1", "docker0"), ("fe80::1", "veth1")]);
        assert!(!after.moved_since(&before));
        assert_eq!(after.gone_since(&before), [] as [IpAddr; 0]);
        assert_eq!(before.gone_since(&after).len(), 2, "but what was sent from them cannot be any more");
    }

    #[test]
    fn another_address_another_route_and_sleep_concern_the_links() {
        let before = network(&[("10.0.0.1", "eth0")]);
        let other = network(&[("10.0.0.2", "eth0")]);
        assert!(other.moved_since(&before));
        assert_eq!(other.gone_since(&before), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(LocalNetwork { slept: 1, ..before.clone() }.moved_since(&before));
        let route = DefaultRoute { interface: "eth0".to_owned(), gateway: "10.0.0.254".parse().unwrap() };
        assert!(LocalNetwork { routes: vec![route], ..before.clone() }.moved_since(&before));
        assert!(
            LocalNetwork { preferred: vec![other.addresses[0].ip], ..before.clone() }.moved_since(&before)
        );
        assert!(!before.moved_since(&before.clone()));
    }

    #[tokio::test(start_paused = true)]
    async fn given_addresses_change_when_they_are_given_anew() {
        let (sender, receiver) = watch::channel(vec![address("10.0.0.1", "eth0")]);
        let mut seen = Interfaces::given(receiver).watch();
        assert_eq!(seen.borrow_and_update().addresses.len(), 1);
        sender.send_replace(Vec::new());
        seen.changed().await.unwrap();
        assert_eq!(seen.borrow().addresses, []);
    }

    #[tokio::test]
    async fn this_machine_has_addresses_that_can_be_bound() {
        let network = Interfaces::of_this_machine().watch().borrow().clone();
        for address in network.addresses.iter().filter(|address| address.kind == AddressKind::Loopback) {
            std::net::UdpSocket::bind((address.ip, 0)).unwrap();
        }
    }
}
