//! A network namespace: made, entered, and removed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::run::{ip, run};

const PREFIX: &str = "receptor-lab";

/// A network of its own, with nothing but a loopback. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    #[track_caller]
    pub(crate) fn new(role: &str) -> Self {
        Self::try_new(role).unwrap_or_else(|why| panic!("{why}"))
    }

    pub(super) fn try_new(role: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{count}-{role}", process::id());
        run("ip", &format!("netns add {name}"), "")?;
        let namespace = Self { name };
        run("ip", &format!("-n {namespace} link set lo up"), "")?;
        // An address that is still being looked for twice cannot be bound.
        namespace.sysctl("ipv6/conf/default/accept_dad", "0");
        Ok(namespace)
    }

    /// Runs `work` inside; what it makes there, sockets and processes, stays there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        // A thread's namespace is its own, and ends with it.
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Adds to its nftables rules.
    #[track_caller]
    pub(crate) fn nft(&self, rules: &str) {
        self.try_nft(rules).unwrap_or_else(|why| panic!("{why}\n{rules}"));
    }

    pub(super) fn try_nft(&self, rules: &str) -> Result<(), String> {
        self.enter(|| run("nft", "-f -", rules)).map(drop)
    }

    /// What a named counter has counted, in bytes with IP headers.
    #[track_caller]
    pub(crate) fn bytes(&self, table: &str, counter: &str) -> u64 {
        let said =
            self.enter(|| run("nft", &format!("-j list counter {table} {counter}"), "")).unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let list = said["nftables"].as_array().unwrap();
        list.iter().find_map(|item| item["counter"]["bytes"].as_u64()).expect("it is a counter")
    }

    /// A chain's rules, one a line, as `nft` writes them.
    #[cfg(feature = "portmap")]
    pub(super) fn rules(&self, table: &str, chain: &str) -> String {
        self.enter(|| run("nft", &format!("list chain {table} {chain}"), "")).unwrap()
    }

    /// Whether somebody here takes packets at this UDP port.
    #[cfg(feature = "portmap")]
    pub(super) fn listens(&self, port: u16) -> bool {
        let sockets = self.enter(|| fs::read_to_string("/proc/thread-self/net/udp")).unwrap();
        let local = |socket: &str| socket.split_whitespace().nth(1).unwrap_or_default().to_owned();
        sockets.lines().any(|socket| local(socket).ends_with(&format!(":{port:04X}")))
    }

    /// Limits what goes out at an interface, in Mbit/s.
    pub(crate) fn limit(&self, interface: &str, mbit: u32) {
        let shape = format!("rate {mbit}mbit burst 64kb latency 50ms");
        self.enter(|| run("tc", &format!("qdisc replace dev {interface} root tbf {shape}"), ""))
            .unwrap();
    }

    pub(super) fn sysctl(&self, name: &str, value: &str) {
        self.enter(|| fs::write(Path::new("/proc/sys/net").join(name), value))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Lets it route, as a gateway does.
    pub(super) fn route(&self) {
        self.sysctl("ipv4/ip_forward", "1");
        self.sysctl("ipv6/conf/all/forwarding", "1");
    }

    /// Runs `ip` here.
    #[track_caller]
    pub(super) fn ip(&self, words: &str) {
        ip(&format!("-n {self} {words}"));
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // While a process is in it, it lives on without a name; what the lab starts ends with the
        // lab.
        let _ = run("ip", &format!("netns del {self}"), "");
    }
}

/// Removes what test runs left behind that were killed.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let maker = rest.split('-').nth(1).unwrap_or_default();
        if !Path::new("/proc").join(maker).exists() {
            let _ = run("ip", &format!("netns del {name}"), "");
        }
    }
}
