//! The addresses of this machine, now and as they change.
//!
//! ```text
//!   netlink (Linux) ─┐                        ┌─▶ driver: links are checked, diallers kicked
//!   every 2 s: slept? ┼─▶ settle ─▶ look ─▶ LocalNetwork ─▶ punching: candidates
//!   every 2 or 30 s ─┘                        └─▶ socket: addresses that are gone
//! ```
//!
//! The system only reports *that* something changed; the current state is then read as a whole,
//! so that nothing is missed and nothing has to be pieced together. Bursts are waited out, see
//! [`settle`].

pub(crate) mod addresses;
mod settle;
mod system;
mod wake;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::mesh::clock;
use addresses::{LocalAddress, LocalNetwork, best};
use settle::{Settle, slept};
use wake::Wakes;

/// How often the clocks are compared, and, where the system does not report changes, the addresses
/// looked at.
const POLL: Duration = Duration::from_secs(2);
/// How often the addresses are polled where the system reports changes: in case that one was
/// lost.
const LOOK: Duration = Duration::from_secs(30);

/// The addresses of this machine, now and as they change. Clones share the watching task, which
/// ends with the last of them and of their receivers.
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
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(dead_code, reason = "for virtual networks")
    )]
    pub(crate) fn given(mut addresses: watch::Receiver<Vec<LocalAddress>>) -> Self {
        let network = |addresses: &[LocalAddress]| {
            Arc::new(LocalNetwork {
                addresses: best(addresses.to_vec()),
                ..LocalNetwork::default()
            })
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

    /// A network that is not observed: without addresses, and without changes.
    pub(crate) fn unknown() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// The network as it is now, and as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<LocalNetwork>> {
        self.0.clone()
    }
}

/// Polls whenever something may have changed, and publishes what did. Ends when no receiver
/// listens.
async fn watch_machine(sender: watch::Sender<Arc<LocalNetwork>>) {
    let mut wakes = Wakes::open()
        .inspect_err(|error| debug!(%error, "the system does not tell of changes"))
        .ok();
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

#[cfg(test)]
mod tests {
    use super::addresses::AddressKind;
    use super::*;

    fn address(ip: &str, interface: &str) -> LocalAddress {
        LocalAddress::new(ip.parse().unwrap(), 24, interface)
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
        for address in
            network.addresses.iter().filter(|address| address.kind == AddressKind::Loopback)
        {
            std::net::UdpSocket::bind((address.ip, 0)).unwrap();
        }
    }
}
