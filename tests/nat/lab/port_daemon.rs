//! What a home router runs to map ports when it is asked: miniupnpd.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use tempfile::TempDir;

use super::namespace::Namespace;
use crate::clock::until;

/// The port that NAT-PMP and PCP are asked at, and the one that UPnP gateways are searched at.
const PCP: u16 = 5351;
const SSDP: u16 = 1900;
const TABLE: &str = "inet miniupnpd";
const CHAIN: &str = "prerouting_miniupnpd";

/// In what way the router is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaks {
    /// PCP and NAT-PMP.
    Pcp,
    /// UPnP IGD.
    Upnp,
}

/// Runs until it is dropped, or until this test run ends in whatever way.
#[derive(Debug)]
pub(crate) struct PortDaemon {
    namespace: Rc<Namespace>,
    shell: Child,
    // Its settings, leases and log.
    _dir: TempDir,
}

impl PortDaemon {
    /// Starts it on a gateway, and waits until it can be asked.
    pub(super) fn start(namespace: &Rc<Namespace>, speaks: Speaks) -> Self {
        let dir = tempfile::Builder::new().prefix("receptor-lab-").tempdir().unwrap();
        let yes = |whether| if whether { "yes" } else { "no" };
        let settings = format!(
            "ext_ifname=wan\nlistening_ip=lan\nenable_natpmp={}\nenable_upnp={}\nlease_file={}\n\
             upnp_table_name=miniupnpd\nupnp_nat_table_name=miniupnpd\nuuid=00000000-0000-0000-0000-000000000001\n",
            yes(speaks == Speaks::Pcp),
            yes(speaks == Speaks::Upnp),
            dir.path().join("leases").display(),
        );
        fs::write(dir.path().join("settings"), settings).unwrap();
        // It fills the chains; what comes in at a mapped port is sent where they say before the
        // gateway's own rules look at it.
        namespace.nft(&format!(
            "table {TABLE} {{
               chain miniupnpd {{ }}
               chain {CHAIN} {{ }}
               chain postrouting_miniupnpd {{ }}
               chain prerouting {{
                 type nat hook prerouting priority -110
                 jump {CHAIN}
               }}
             }}"
        ));
        // It does not end with its standard input by itself.
        let script = "miniupnpd -d -f settings -P pid & read -r _; kill $!; wait";
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(dir.path());
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let shell = namespace.enter(|| command.spawn()).unwrap();
        let daemon = Self { namespace: namespace.clone(), shell, _dir: dir };
        let asked_at = if speaks == Speaks::Pcp { PCP } else { SSDP };
        until("miniupnpd can be asked", || namespace.listens(asked_at).then_some(()));
        daemon
    }

    /// What is mapped now: the kernel's rules for it.
    pub(crate) fn mapped(&self) -> Vec<String> {
        let rules = self.namespace.rules(TABLE, CHAIN);
        rules
            .lines()
            .filter(|rule| rule.contains("dnat"))
            .map(|rule| rule.trim().to_owned())
            .collect()
    }
}

impl Drop for PortDaemon {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
