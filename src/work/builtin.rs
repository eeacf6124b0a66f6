//! Work over the mesh: the service of calls, and the directives that every node handles.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::call::{Call, CallError, CallOptions, call};
use super::handler::{HandlerError, Request};
use super::registry::{RegisterError, Registry};
use super::responder::Responder;
use crate::id::{Directive, NodeId, ServiceName};
use crate::mesh::handle::{Mesh, next_hop};
use crate::mesh::services::usage::Purpose;
use crate::mesh::{OpenError, OpenOptions, ServeError, clock};

/// The service that calls go to.
const SERVICE: &str = "work";
const PING: &str = "receptor:ping";
const ROUTE: &str = "receptor:route";
/// The longest request or reply of a built-in directive, in bytes.
const MAX_BUILTIN: usize = 64 * 1024;
/// The maximum number of calls that a ping's answer lists.
const MAX_ACTIVE: usize = 128;
/// How long a node may take to answer a built-in directive.
const BUILTIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a trace waits for a route to the node.
const ROUTE_WAIT: Duration = Duration::from_secs(1);
/// The maximum number of hops that a trace follows.
const MAX_TRACE: usize = 255;

/// A node's answer to a ping.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pong {
    /// Who answered.
    pub node: NodeId,
    /// From the request to the answer, in milliseconds.
    pub rtt_ms: f64,
    /// When the ping was sent, by this node's clock, in milliseconds since the Unix epoch.
    pub initial_time: u64,
    /// When it was answered, by the other node's clock, in milliseconds since the Unix epoch.
    pub response_time: u64,
    /// The calls that run there, the first 128 of them.
    pub active_work: Vec<ActiveWork>,
}

/// A call that runs on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActiveWork {
    /// The call.
    pub id: Uuid,
    /// What it asks for.
    pub directive: Directive,
    /// Who called.
    pub sender: NodeId,
}

/// One node on the way to another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TraceHop {
    /// The node.
    pub node: NodeId,
    /// The round trip to it, in milliseconds; `None` if it did not answer.
    pub rtt_ms: Option<f64>,
}

/// Why a ping or a trace failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The node could not be asked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was asked, and did not answer as it should.
    #[error("{node}: {error}")]
    Call {
        /// The node.
        node: NodeId,
        /// What happened.
        error: CallError,
    },
    /// Its answer cannot be read: its fault.
    #[error("{node} gave an answer that cannot be read: {why}")]
    BadReply {
        /// The node.
        node: NodeId,
        /// Why.
        why: String,
    },
}

/// What goes over the wire, as JSON, so that people can read it, too.
#[derive(Serialize, Deserialize)]
struct PingRequest {
    initial_time: u64,
}

#[derive(Serialize, Deserialize)]
struct PingReply {
    initial_time: u64,
    response_time: u64,
    active_work: Vec<ActiveWork>,
}

#[derive(Serialize, Deserialize)]
struct RouteReply {
    next_hop: Option<NodeId>,
}

/// Serves calls, and handles the built-in directives.
pub(crate) fn spawn(mesh: &Mesh, registry: &Registry) -> Result<(), SpawnError> {
    let served = registry.clone();
    registry.handle_built_in(builtin(PING), move |request, responder| {
        pong(served.clone(), request, responder)
    })?;
    let view = mesh.view();
    registry.handle_built_in(builtin(ROUTE), move |mut request, responder| {
        let view = view.clone();
        async move {
            let text =
                request.payload.collect(NodeId::MAX_LEN).await.map_err(HandlerError::from)?;
            let text = String::from_utf8_lossy(&text);
            let node = NodeId::try_from(text.trim()).map_err(HandlerError::from)?;
            let next_hop = next_hop(&view.borrow(), &node).map(|(neighbour, ..)| neighbour);
            answer(&responder, &RouteReply { next_hop })
        }
    })?;
    let mut listener = mesh.serve_calls(service())?;
    let registry = registry.clone();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            let registry = registry.clone();
            // Bounded by the registry's own limit on running calls, which refuses what is beyond.
            tokio::spawn(async move { registry.serve(incoming).await });
        }
    });
    Ok(())
}

/// Why calls cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Lets go of the registry, which the handlers hold.
pub(crate) fn remove_builtins(registry: &Registry) {
    registry.remove(&builtin(PING));
    registry.remove(&builtin(ROUTE));
}

/// Calls a directive on a node.
pub(crate) async fn call_node(
    mesh: &Mesh,
    node: &NodeId,
    directive: Directive,
    options: CallOptions,
    purpose: Purpose,
) -> Result<Call, OpenError> {
    let CallOptions { deadline, peer_timeout } = options;
    let stream =
        mesh.open(node, &service(), OpenOptions { deadline, peer_timeout }, purpose).await?;
    call(stream, directive, Uuid::now_v7(), options).await.map_err(|error| match error {
        CallError::Lost(ending) => OpenError::lost(node, ending.cause()),
        CallError::Deadline => OpenError::Deadline(deadline.unwrap_or_default()),
        lost => OpenError::Unreachable { node: node.clone(), why: lost.to_string() },
    })
}

/// Asks a node whether it is there.
pub(crate) async fn ping(mesh: &Mesh, node: &NodeId) -> Result<Pong, PingError> {
    let started = clock::now();
    let request = PingRequest { initial_time: clock::unix_ms() };
    let reply: PingReply = ask(mesh, node, PING, encode(&request)).await?;
    Ok(Pong {
        node: node.clone(),
        // Microseconds are what people can use.
        rtt_ms: clock::now().saturating_duration_since(started).as_micros() as f64 / 1_000.0,
        initial_time: reply.initial_time,
        response_time: reply.response_time,
        active_work: reply.active_work,
    })
}

/// Follows the next hops to a node, asking each for the one after it.
pub(crate) async fn trace(mesh: &Mesh, node: &NodeId) -> Result<Vec<TraceHop>, PingError> {
    let mut hops: Vec<TraceHop> = Vec::new();
    let mut next = if node == mesh.id() { Some(node.clone()) } else { first_hop(mesh, node).await };
    while let Some(hop) = next.take() {
        let pong = ping(mesh, &hop).await;
        let reached = hop == *node;
        let looped = hops.iter().any(|before| before.node == hop);
        let answered = pong.is_ok();
        hops.push(TraceHop {
            node: hop.clone(),
            rtt_ms: pong.as_ref().ok().map(|pong| pong.rtt_ms),
        });
        match pong {
            Err(error) if reached => return Err(error),
            _ if reached => return Ok(hops),
            _ if looped || !answered || hops.len() >= MAX_TRACE => break,
            _ => {}
        }
        let reply: RouteReply =
            ask(mesh, &hop, ROUTE, Bytes::from(String::from(node.clone()))).await?;
        next = reply.next_hop;
    }
    Err(OpenError::NoRoute { node: node.clone() }.into())
}

/// The first hop to a node. Waits for it for a moment: the route to a new neighbour is published
/// after its link.
async fn first_hop(mesh: &Mesh, node: &NodeId) -> Option<NodeId> {
    let mut view = mesh.view();
    let found = async {
        loop {
            let closed = view.borrow_and_update().closed;
            if let Some((hop, ..)) = mesh.next_hop(node) {
                return Some(hop);
            }
            if closed {
                return None;
            }
            view.changed().await.ok()?;
        }
    };
    tokio::time::timeout(ROUTE_WAIT, found).await.ok().flatten()
}

async fn ask<T: for<'de> Deserialize<'de>>(
    mesh: &Mesh,
    node: &NodeId,
    directive: &str,
    request: Bytes,
) -> Result<T, PingError> {
    let options = CallOptions { deadline: Some(BUILTIN_DEADLINE), ..CallOptions::default() };
    let call = call_node(mesh, node, builtin(directive), options, Purpose::BuiltIn).await?;
    let reply = call
        .exchange(request, MAX_BUILTIN)
        .await
        .map_err(|error| PingError::Call { node: node.clone(), error })?;
    serde_json::from_slice(&reply)
        .map_err(|error| PingError::BadReply { node: node.clone(), why: error.to_string() })
}

async fn pong(
    registry: Registry,
    mut request: Request,
    responder: Responder,
) -> Result<(), HandlerError> {
    let payload = request.payload.collect(MAX_BUILTIN).await.map_err(HandlerError::from)?;
    let initial_time =
        serde_json::from_slice::<PingRequest>(&payload).map_or(0, |request| request.initial_time);
    let active_work = registry
        .running()
        .into_iter()
        .filter(|call| call.id != request.id)
        .take(MAX_ACTIVE)
        .map(|call| ActiveWork { id: call.id, directive: call.directive, sender: call.caller })
        .collect();
    answer(&responder, &PingReply { initial_time, response_time: clock::unix_ms(), active_work })
}

fn answer<T: Serialize>(responder: &Responder, reply: &T) -> Result<(), HandlerError> {
    responder.set_last(encode(reply)).map_err(HandlerError::from)
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("plain data can be written as JSON").into()
}

fn service() -> ServiceName {
    ServiceName::try_from(SERVICE).expect("the name is valid")
}

fn builtin(name: &str) -> Directive {
    name.parse().expect("the built-in names are valid")
}
