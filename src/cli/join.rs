//! Joining the mesh for one thing, as an ephemeral node.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::args::PlaceArgs;
use super::local::Local;
use crate::cli::process::exit::{Failure, complain};
use crate::cli::setup::env::Env;
use crate::cli::setup::settings::{CERTS, ID, PEER, Sourced};
use crate::id::NodeId;
use crate::mesh::{Event, PeerAddr};
use crate::node::{Node, NotLinked};
use crate::transport::Identity;

/// Timeout for an ephemeral node to link to a neighbour.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the environment alone configures an ephemeral node: id, certificates and peers.
pub(super) fn is_set_up(env: &Env) -> bool {
    ID.text(None, env).is_ok_and(|id| id.is_some())
        && CERTS.path(None, env).is_some()
        && PEER.list(Vec::new(), env, ',').is_ok_and(|peers| !peers.is_empty())
}

/// Starts an ephemeral node and waits until it is linked. It keeps nothing, and serves no control
/// socket.
pub(super) async fn join(args: PlaceArgs, env: &Env) -> Result<Local, Failure> {
    let id = ID.text(args.id, env)?.ok_or_else(|| ID.missing("the ephemeral node's id"))?;
    let id: NodeId = id.parse()?;
    let certs = CERTS
        .path(args.certs, env)
        .ok_or_else(|| CERTS.missing("the directory of the certificates"))?;
    let peers = PEER.list(args.peer, env, ',')?;
    if peers.is_empty() {
        return Err(PEER.missing("a node to link to"));
    }
    let peers: Vec<PeerAddr> = peers.into_iter().map(Sourced::parse).collect::<Result<_, _>>()?;
    let identity = Identity::load(&certs.value, &id).map_err(Failure::usage)?;
    let names = peers.iter().map(PeerAddr::to_string).collect::<Vec<_>>().join(", ");
    let builder = Node::builder(id, identity).one_shot();
    let node = peers.into_iter().fold(builder, |builder, peer| builder.peer(peer)).start().await;
    let node = node.map_err(Failure::failed)?;
    let linked = tokio::select! {
        linked = timeout(JOIN_TIMEOUT, node.linked()) => linked,
        never = explain_waiting(&node) => match never {},
    };
    match linked {
        Ok(Ok(())) => Ok(Local::new(node)),
        Ok(Err(error @ NotLinked::Refused(_))) => Err(Failure::refused(error)),
        Ok(Err(error @ NotLinked::Yielded { .. })) => Err(Failure::yielded(error)),
        Ok(Err(error @ NotLinked::ShutDown)) => Err(Failure::failed(error)),
        Err(_) => {
            let links = node.status().await.map(|status| status.links).unwrap_or_default();
            let why = links
                .into_iter()
                .filter_map(|link| Some(format!("; {}: {}", link.address, link.last_error?)));
            let why: String = why.collect();
            Err(Failure::unreachable(format!(
                "no link within {JOIN_TIMEOUT:?} to any of {names}{why}"
            )))
        }
    }
}

/// Prints the first failure of each peer at once: others may still answer, and so may this one.
async fn explain_waiting(node: &Node) -> Infallible {
    let mut events = node.events();
    let mut printed = BTreeSet::new();
    loop {
        match events.recv().await {
            Ok(Event::DialFailed { address, why }) if printed.insert(address.clone()) => {
                complain(&format!("still trying {address}: {why}"));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
