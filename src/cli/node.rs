//! `receptor node`: runs a node until it is stopped.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::control::listen::ControlSocket;
use super::control::server;
use super::local::Local;
use super::policy::running::RunningPolicy;
use super::reload::reloader::Reloader;
use super::reload::report::{self, Asker};
use crate::cli::process::descriptors;
use crate::cli::process::exit::Failure;
use crate::cli::process::signals::{self, Stop};
use crate::cli::setup::config::{CommandSpec, NodeConfig};
use crate::cli::setup::identity;
use crate::node::Node;
use crate::transport::Identity;

/// Runs a node, and its control socket, until SIGTERM or Ctrl-C; then drains and withdraws. Another
/// one, more than a second later, exits at once; during the start, the first one does.
///
/// `again` reads the configuration as it is now.
pub(super) async fn run(
    config: NodeConfig,
    again: impl Fn() -> Result<NodeConfig, Failure>,
) -> Result<(), Failure> {
    let mut stop = Stop::watch()?;
    let mut hangups = signals::reload()?;
    descriptors::raise_limit();
    let start_up = async {
        let identity = identity::load(&config.certs, &config.id, &config.trust).await?;
        // First, so that a second node on the same socket does not disturb the mesh.
        let socket = ControlSocket::bind(&config.control)?;
        Ok((start(&config, identity).await?, socket))
    };
    let (node, socket) = tokio::select! {
        started = start_up => started?,
        () = stop.wait() => return Ok(()),
    };
    announce(&node, &socket, config.listen.is_empty());
    let until_stdin_ends = config.until_stdin_ends;
    let (asking, mut asked) = report::requests();
    let policy = RunningPolicy::default();
    let local = Local::new(node.clone()).reloading(asking, policy.clone());
    let mut reloader = Reloader::new(&node, config, policy, &again);
    // The control socket serves to the end, so that clients get an answer while the node shuts
    // down.
    let mut serve = pin!(server::serve(&socket, &local));
    let mut yielded = None;
    tokio::select! {
        () = &mut serve => {}
        () = stop.wait() => {}
        Some(to) = node.yielded() => yielded = Some(to),
        () = parent_gone(until_stdin_ends) => {}
        () = reload_when_asked(&mut reloader, &mut hangups, &mut asked) => {}
    }
    tracing::info!("leaving");
    tokio::select! {
        () = node.shutdown_within(reloader.running().grace) => {
            yielded.map_or(Ok(()), |to| Err(yielded_to(&node, &to)))
        }
        () = serve => Ok(()),
        () = stop.wait_again() => Err(Failure::failed("stopped at once, by a second signal")),
    }
}

/// A node that has yielded its id stays silent for good, so a supervisor must see its end.
fn yielded_to(node: &Node, to: &str) -> Failure {
    Failure::yielded(format!(
        "{} has yielded its id to another live process at {to}; stop one of the two, or give it another id",
        node.id()
    ))
}

async fn start(config: &NodeConfig, identity: Identity) -> Result<Node, Failure> {
    let mut builder =
        Node::builder(config.id.clone(), identity).transit(config.transit).cost(config.cost);
    builder = builder.liveness(config.liveness).congestion(config.congestion);
    if let Some(timeout) = config.peer_timeout {
        builder = builder.peer_timeout(timeout);
    }
    builder = builder.direct(config.direct);
    builder = config.external.iter().fold(builder, |builder, addr| builder.external_addr(*addr));
    builder = config.listen.iter().fold(builder, |builder, listen| builder.listen(*listen));
    builder = config.listen_tcp.iter().fold(builder, |builder, listen| builder.listen_tcp(*listen));
    builder = config.peers.iter().fold(builder, |builder, peer| builder.peer(peer.clone()));
    builder = config
        .cost_to
        .iter()
        .fold(builder, |builder, (id, cost)| builder.cost_to(id.clone(), *cost));
    if let Some(rate) = config.transit_rate {
        builder = builder.transit_rate(rate);
    }
    #[cfg(feature = "mdns")]
    {
        builder = builder.lan(config.lan);
    }
    #[cfg(not(feature = "mdns"))]
    debug_assert!(!config.lan, "refused where it was set");
    #[cfg(feature = "portmap")]
    {
        builder = builder.map_port(config.map_port);
    }
    #[cfg(not(feature = "portmap"))]
    debug_assert!(!config.map_port, "refused where it was set");
    if let Some(dir) = &config.data_dir {
        builder = builder.data_dir(dir.clone());
    }
    if let Some(file) = &config.policy {
        builder = builder.policy(file.policy.clone());
    }
    if let Some(units) = &config.units {
        builder = builder.units(units.config());
    }
    for CommandSpec { directive, command } in &config.commands {
        builder = builder.command(directive.clone(), command.clone()).map_err(Failure::usage)?;
    }
    builder.start().await.map_err(Failure::usage)
}

/// Prints the node's id and listen addresses in one line. A parent process reads the ports there.
fn announce(node: &Node, socket: &ControlSocket, dials_only: bool) {
    let addrs: Vec<_> = node.local_addrs().iter().map(ToString::to_string).collect();
    let (id, addrs, socket) = (node.id(), addrs.join(" "), socket.path().display());
    let mut out = io::stdout();
    let place = if dials_only { DIALLING } else { LISTENING };
    // A node runs on without anyone reading along.
    let _ = writeln!(out, "receptor node {id}{place}{addrs}{CONTROL}{socket}")
        .and_then(|()| out.flush());
}

const LISTENING: &str = ", listening on ";
const DIALLING: &str = ", dialling out only, from ";
const CONTROL: &str = ", control socket ";

/// The addresses in the line with which a node announces itself.
pub(super) fn announced_addrs(line: &str) -> Option<Vec<SocketAddr>> {
    let (_, rest) = line.split_once(LISTENING).or_else(|| line.split_once(DIALLING))?;
    let (addrs, _) = rest.split_once(CONTROL)?;
    addrs.split(' ').map(|addr| addr.parse().ok()).collect()
}

/// Reloads on each SIGHUP and for each client that asks, and certificates when their files change.
async fn reload_when_asked(
    reloader: &mut Reloader<'_>,
    hangups: &mut Signal,
    asked: &mut mpsc::Receiver<Asker>,
) {
    loop {
        tokio::select! {
            Some(()) = hangups.recv() => {
                // The log says what came of it.
                let _ = reloader.reload().await;
            }
            Some(asker) = asked.recv() => {
                let reloaded = reloader.reload().await;
                // A client that has gone asked for it nevertheless.
                let _ = asker.send(reloaded);
            }
            () = reloader.certificates_changed() => reloader.renew().await,
            else => return,
        }
    }
}

/// Waits for the end of standard input if requested.
async fn parent_gone(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 256];
    while stdin.read(&mut ignored).await.is_ok_and(|len| len > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_reads_the_addresses_in_the_announcement() {
        let line =
            "receptor node a, listening on 127.0.0.1:1 [::1]:2, control socket /run/x y.sock";
        assert_eq!(
            announced_addrs(line),
            Some(vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()])
        );
        assert_eq!(announced_addrs("something else"), None);
    }
}
