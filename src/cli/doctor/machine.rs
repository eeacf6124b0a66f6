//! Diagnoses of the machine: files, directories, and system limits.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::SystemTime;

use super::finding::Finding;
use crate::cli::setup::config::NodeConfig;
use crate::mesh::data_dir::datadir::create_private_dir;
use crate::transport::ListenAddr;
use crate::transport::{Identity, IdentityProblem};

/// The socket buffers that a busy node can use, in bytes.
const BUFFERS: u64 = 4 << 20;

/// The certificate, its names and validity, and the permissions of the key.
pub(super) fn certificate(config: &NodeConfig, now: SystemTime) -> Vec<Finding> {
    let check = "certificate";
    let renew = format!("issue a new one: receptor cert issue {} --dir DIR", config.id);
    let identity = match Identity::load(&config.certs, &config.id) {
        Ok(identity) => identity,
        Err(error) => return vec![Finding::fail(check, error.to_string(), renew)],
    };
    let certificate = match identity.check(now) {
        Ok(()) => {
            let names: Vec<_> = identity.ids().iter().map(ToString::to_string).collect();
            let days =
                identity.not_after().duration_since(now).unwrap_or_default().as_secs() / 86_400;
            Finding::ok(check, format!("names {}, and expires in {days} days", names.join(", ")))
        }
        Err(problem @ IdentityProblem::ExpiresSoon { .. }) => {
            Finding::warn(check, problem.to_string(), renew)
        }
        Err(problem @ IdentityProblem::NotYetValid { .. }) => {
            let advice = "set this machine's clock; if it is correct, reissue the certificate";
            Finding::fail(check, problem.to_string(), advice)
        }
        Err(problem @ IdentityProblem::Expired { .. }) => {
            Finding::fail(check, problem.to_string(), renew)
        }
        Err(problem) => Finding::fail(
            check,
            problem.to_string(),
            "use the mesh's CA as ca.crt, or have that CA reissue the certificate",
        ),
    };
    let mut findings = vec![certificate];
    findings.extend(key(&config.certs.join(format!("{}.key", config.id))));
    findings
}

#[cfg(unix)]
fn key(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let file = path.display();
    Some(match mode & 0o077 {
        0 => Finding::ok("key", format!("{file} is readable by its user only")),
        // Services often get keys owned by root through a dedicated group.
        0o040 => Finding::ok("key", format!("{file} is readable by its user and group")),
        _ => Finding::warn(
            "key",
            format!("others on this machine may use {file} (mode {mode:04o})"),
            format!("chmod 600 {file}"),
        ),
    })
}

#[cfg(not(unix))]
fn key(_: &Path) -> Option<Finding> {
    None
}

/// Whether the data directory can be written.
pub(super) fn data_dir(config: &NodeConfig) -> Option<Finding> {
    let check = "data directory";
    let Some(dir) = &config.data_dir else {
        let text = "none: if the clock is set back across a restart, the node has to learn its last epoch from the mesh";
        return Some(Finding::warn(check, text, "configure one with --data-dir"));
    };
    let shown = dir.display();
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    // A link at a name that can be guessed must not be followed.
    let create = || fs::File::options().write(true).create_new(true).open(&probe).map(drop);
    let written =
        create_private_dir(dir).and_then(|()| create()).and_then(|()| fs::remove_file(&probe));
    Some(match written {
        Ok(()) => Finding::ok(check, format!("{shown} is writable")),
        Err(error) => Finding::warn(
            check,
            format!("{shown} is not writable: {error}; the node runs without it"),
            "free space, or give it to the node's user",
        ),
    })
}

/// Whether the addresses to listen at are free.
pub(super) fn listening(config: &NodeConfig) -> Vec<Finding> {
    let look = |addr: SocketAddr| match UdpSocket::bind(addr) {
        Ok(_) => Finding::ok(
            "listen",
            format!("UDP {addr} is free; it must be open in this host's firewall"),
        ),
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process uses it: stop that process, or listen elsewhere"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are privileged: use a higher one"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "use an address of this machine, or `:PORT` for all"
                }
                _ => "listen elsewhere",
            };
            Finding::fail("listen", format!("cannot bind UDP {addr}: {error}"), advice)
        }
    };
    let v6_any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let addrs = config.listen.iter().map(|listen| match *listen {
        ListenAddr::At(addr) => addr,
        // Like the node does without IPv6.
        ListenAddr::Any(port) if UdpSocket::bind(v6_any(0)).is_err() => {
            (Ipv4Addr::UNSPECIFIED, port).into()
        }
        ListenAddr::Any(port) => v6_any(port),
    });
    addrs.map(look).collect()
}

/// The socket buffer sizes that the system grants.
pub(super) fn socket_buffers() -> Option<Finding> {
    let most = |name: &str| {
        fs::read_to_string(Path::new("/proc/sys/net/core").join(name))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let least = most("rmem_max")?.min(most("wmem_max")?);
    Some(if least >= BUFFERS {
        Finding::ok("socket buffers", format!("the system grants {} KiB", least >> 10))
    } else {
        Finding::warn(
            "socket buffers",
            format!("the system grants {} KiB: bursts may be lost on a busy node", least >> 10),
            format!("as root: sysctl -w net.core.rmem_max={BUFFERS} net.core.wmem_max={BUFFERS}"),
        )
    })
}
