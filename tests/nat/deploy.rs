//! Relays and edges as `deploy/` has them: its configuration files word for word, its command
//! lines, and walls like those of its units: a user of their own, no privileges, a file system that
//! they cannot write, and no more of `/proc` than processes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::clock::{until, within};
use crate::lab::{Family, Host, Internet, Nat, skipped};
use crate::process::Process;

/// What the container's user is; any that is nobody else's would do.
const USER: u32 = 10_001;
const BINARY: &str = env!("CARGO_BIN_EXE_receptor");

/// A node of `deploy/systemd`.
struct Deployed {
    dir: PathBuf,
    process: Process,
    _host: Host,
}

/// Where certificates and names are kept.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new(names: &[(&str, &Host)]) -> Self {
        let dir = tempfile::Builder::new().prefix("receptor-lab-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let hosts: String =
            names.iter().map(|(name, host)| format!("{} {name}\n", host.addr)).collect();
        fs::write(dir.path().join("hosts"), hosts).unwrap();
        let site = Self { dir };
        site.receptor(&["cert", "init", "--dir", "ca"]);
        site
    }

    /// Starts `id` as the unit for `role` does, from its configuration file, in which ids that end
    /// in 1 are this node's own.
    fn start(&self, role: &str, id: &str, host: Host) -> Deployed {
        self.receptor(&["cert", "issue", id, "--dir", "ca"]);
        let dir = self.dir.path().join(id);
        let certs = dir.join("etc/certs");
        fs::create_dir_all(&certs).unwrap();
        for own in ["root", "run", "state"] {
            fs::create_dir(dir.join(own)).unwrap();
        }
        for own in ["run", "state"] {
            chown(dir.join(own), Some(USER), Some(USER)).unwrap();
        }
        for file in ["ca.crt", &format!("{id}.crt"), &format!("{id}.key")] {
            fs::copy(self.dir.path().join("ca").join(file), certs.join(file)).unwrap();
        }
        let key = certs.join(format!("{id}.key"));
        chown(&key, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        let config = shipped(&format!("{role}.toml"));
        let own_id = format!("id = \"{role}-1\"");
        assert!(config.contains(&own_id), "{config}");
        fs::write(
            dir.join(format!("etc/{role}.toml")),
            config.replace(&own_id, &format!("id = \"{id}\"")),
        )
        .unwrap();
        let unit = shipped(&format!("receptor-{role}.service"));
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let at = |file: &str| dir.join(file).display().to_string();
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            include_str!("walls.sh"),
            "walls",
        ]);
        command.args([&at("root"), role, &USER.to_string(), &at("etc"), &at("run"), &at("state")]);
        command.arg(self.dir.path().join("hosts")).arg(BINARY);
        command.args(line.split_whitespace()).arg("--until-stdin-ends");
        let process = Process::start(&host.namespace, command, dir.join("log"));
        Deployed { dir, process, _host: host }
    }

    fn receptor(&self, args: &[&str]) {
        let output = Command::new(BINARY).args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Deployed {
    /// A client as the operator runs it: as root, with the node's runtime directory in `/run`,
    /// where only root can have made it.
    fn client(&self, args: &[&str]) -> Command {
        let script = "mount -t tmpfs -o mode=0755 tmpfs /run && mkdir /run/receptor && mount --bind \"$0\" /run/receptor && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command
            .arg(self.dir.join("run"))
            .arg(BINARY)
            .args(args)
            .args(["--control", "/run/receptor/control.sock"]);
        command
    }

    fn ask(&self, args: &[&str]) -> Result<Value, String> {
        let output = self.client(args).arg("--json").stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        match output.status.success() {
            true => serde_json::from_str(&said).map_err(|error| format!("{error}: {said}")),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// It may do nothing that others may not, and never will.
    fn assert_confined(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!(field("Uid:"), USER.to_string());
        assert_eq!((field("CapEff:"), field("CapBnd:")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!(field("NoNewPrivs:"), "1");
    }
}

#[test]
fn the_shipped_relay_and_edges_run_within_their_walls_and_find_a_direct_path() {
    if skipped("the_shipped_relay_and_edges_run_within_their_walls_and_find_a_direct_path") {
        return;
    }
    let internet = Internet::new(Family::V4);
    let relays = ["relay-1", "relay-2"].map(|id| internet.host(id));
    let site = Site::new(&[("relay-1.example", &relays[0]), ("relay-2.example", &relays[1])]);
    let [first, second] = relays;
    let relays = [site.start("relay", "relay-1", first), site.start("relay", "relay-2", second)];
    let gateways = [(); 2].map(|()| internet.gateway("gw", Nat::PortRestricted));
    let [a, b] = ["edge-1", "edge-2"]
        .map(|id| site.start("edge", id, gateways[usize::from(id == "edge-2")].host(id)));
    let nodes = relays.iter().chain([&a, &b]);
    nodes.clone().for_each(Deployed::assert_confined);

    until("both edges have their links and a route to the other", || {
        [(&a, "edge-2"), (&b, "edge-1")]
            .iter()
            .all(|(edge, other)| {
                let Ok(status) = edge.ask(&["status"]) else { return false };
                let up = crate::mesh::list(&status["links"])
                    .iter()
                    .filter(|link| link["state"] == "up")
                    .count();
                up == 2
                    && crate::mesh::list(&status["routes"])
                        .iter()
                        .any(|route| route["node"] == **other)
            })
            .then_some(())
    });
    a.ask(&["ping", "edge-2", "--count", "1"]).unwrap();
    let direct = |from: &Deployed, to| {
        from.ask(&["explain", to]).is_ok_and(|said| said["path"]["kind"] == "direct")
    };
    within(Duration::from_secs(5), || (direct(&a, "edge-2") && direct(&b, "edge-1")).then_some(()))
        .unwrap_or_else(|| panic!("no direct path: {:#}", a.ask(&["explain", "edge-2"]).unwrap()));
    // The command of the configuration file runs within the walls, too.
    let upper = a.client(&["send", "edge-2", "text:upper", "quiet"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&upper.stdout).trim(), "QUIET", "{upper:?}");
    for node in nodes {
        let log = node.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
        assert!(node.dir.join("state/epoch").exists(), "its state outlives it");
    }
}

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
