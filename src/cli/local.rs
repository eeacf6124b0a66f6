//! What commands do with a node of this process: behind the control socket, or as an ephemeral one.
//!
//! The errors of the node become exit statuses here, and nowhere else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::policy::running::{RunningPolicy, ShownPolicy};
use super::reload::report::{Asker, Reloaded};
use super::work::local::LocalUnits;
use crate::cli::output::flow::{Sink, Source};
use crate::cli::output::json::Document;
use crate::cli::process::exit::Failure;
use crate::id::NodeId;
use crate::mesh::{Convergence, EndReason, OpenError, RefuseCode, StatusOptions};
use crate::node::Node;
use crate::work::{
    ActiveWork, Call, CallError, CallOptions, Directive, PayloadWriter, PingError, Pong,
};

/// How long an ephemeral node waits for another that it is to explain.
const EXPLAIN_PING: Duration = Duration::from_secs(5);

/// A node of this process, as commands use it. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Local {
    node: Node,
    /// Where reloads are asked for. `None` if the node has no configuration to read again.
    reloads: Option<mpsc::Sender<Asker>>,
    policy: RunningPolicy,
}

/// The reply to a ping.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct PingReply {
    /// Who replied.
    pub(super) node: NodeId,
    /// The round trip, in milliseconds.
    pub(super) rtt_ms: f64,
    /// When the ping was sent, by the asking node's clock, in milliseconds since the Unix epoch.
    initial_time: u64,
    /// When it was answered, by the other node's clock.
    response_time: u64,
    /// The calls that run there.
    active_work: Vec<ActiveWork>,
}

impl PingReply {
    /// How far the other clock is ahead of this one, in milliseconds, if the answer came half-way.
    pub(super) fn clock_ahead_ms(&self) -> i64 {
        self.response_time as i64 - self.initial_time as i64 - (self.rtt_ms / 2.0) as i64
    }
}

impl From<Pong> for PingReply {
    fn from(pong: Pong) -> Self {
        let Pong { node, rtt_ms, initial_time, response_time, active_work } = pong;
        Self { node, rtt_ms, initial_time, response_time, active_work }
    }
}

/// A node on the way.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Hop {
    /// The node.
    pub(super) node: NodeId,
    /// The round trip to it, in milliseconds; `None` if it did not answer.
    pub(super) rtt_ms: Option<f64>,
}

impl Local {
    pub(super) fn new(node: Node) -> Self {
        Self { node, reloads: None, policy: RunningPolicy::default() }
    }

    /// The same node, whose reloads are asked for here, and which runs with this policy.
    pub(super) fn reloading(self, reloads: mpsc::Sender<Asker>, policy: RunningPolicy) -> Self {
        Self { reloads: Some(reloads), policy, ..self }
    }

    /// The policy that the node runs with.
    pub(super) async fn policy(&self) -> Result<ShownPolicy, Failure> {
        let options = StatusOptions { max_stubs: Some(0) };
        let status = self.node.status_with(options).await.map_err(Failure::failed)?;
        let (file, rejected) = (self.policy.file(), status.policy.rejected);
        Ok(ShownPolicy { node: self.node.id().clone(), file, rejected })
    }

    /// Whether the user who asks on the control socket may control the node.
    pub(super) fn may_be_controlled(&self) -> bool {
        self.node.may_be_controlled()
    }

    /// Has the node read its certificates and configuration again.
    pub(super) async fn reload(&self) -> Result<Reloaded, Failure> {
        let Some(reloads) = &self.reloads else {
            return Err(Failure::usage("an ephemeral node has nothing to reload"));
        };
        let leaving = || Failure::unreachable("the node is leaving");
        let (asker, reloaded) = oneshot::channel();
        reloads.send(asker).await.map_err(|_| leaving())?;
        reloaded.await.map_err(|_| leaving())?
    }

    /// The status, as a document. It is written on a blocking thread: that of a hub takes
    /// milliseconds.
    pub(super) async fn status(&self, options: StatusOptions) -> Result<Document, Failure> {
        let status = self.node.status_with(options).await.map_err(Failure::failed)?;
        tokio::task::spawn_blocking(move || Document::of(&status)).await.map_err(Failure::failed)
    }

    /// What the node knows of another. An ephemeral node knows little until it has asked: by a
    /// ping, unless its neighbour says that the other one has left.
    pub(super) async fn explain(&self, node: &NodeId) -> Result<Value, Failure> {
        let explained = self.explained(node).await?;
        let known = |field: &str| !explained[field].is_null();
        if explained["route"]["state"] != "no-database" || known("path") || known("left") {
            return Ok(explained);
        }
        self.ping(node, EXPLAIN_PING).await?;
        self.explained(node).await
    }

    async fn explained(&self, node: &NodeId) -> Result<Value, Failure> {
        let explained = self.node.explain(node).await.map_err(Failure::failed)?;
        Ok(serde_json::to_value(explained).expect("plain data is JSON"))
    }

    pub(super) async fn converged(&self, within: Duration) -> Result<Convergence, Failure> {
        self.node.converged(within).await.map_err(Failure::failed)
    }

    pub(super) async fn ping(&self, node: &NodeId, limit: Duration) -> Result<PingReply, Failure> {
        match timeout(limit, self.node.ping(node)).await {
            Ok(Ok(pong)) => Ok(pong.into()),
            Ok(Err(error)) => Err(ping_failure(error)),
            Err(_) => Err(Failure::unreachable(format!("{node} did not answer within {limit:?}"))),
        }
    }

    pub(super) async fn trace(&self, node: &NodeId) -> Result<Vec<Hop>, Failure> {
        let hops = self.node.trace(node).await.map_err(ping_failure)?;
        Ok(hops.into_iter().map(|hop| Hop { node: hop.node, rtt_ms: hop.rtt_ms }).collect())
    }

    /// The units of the node.
    pub(super) fn units(&self) -> LocalUnits {
        LocalUnits::new(self.node.clone())
    }

    /// Begins a call. Dropped, it cancels the call.
    pub(super) async fn call(
        &self,
        node: &NodeId,
        directive: Directive,
        options: CallOptions,
    ) -> Result<Call, Failure> {
        self.node.call_with(node, directive, options).await.map_err(open_failure)
    }

    /// Leaves the mesh in order.
    pub(super) async fn leave(&self) {
        self.node.shutdown().await;
    }
}

/// Sends the payload and hands on the responses, both at the same time, until the call has ended.
/// Dropped, it cancels the call.
pub(super) async fn exchange(
    call: Call,
    mut payload: impl Source,
    mut responses: impl Sink,
) -> Result<(), Failure> {
    let (mut writer, mut reader) = call.split();
    let upload = async {
        match upload(&mut payload, &mut writer).await {
            Ok(()) => payload.gone().await,
            Err(failure) => failure,
        }
    };
    let download = async {
        while let Some(response) = reader.next().await.map_err(call_failure)? {
            if !response.body.is_empty() {
                responses.put(response.body).await?;
            }
        }
        responses.end().await
    };
    tokio::select! {
        result = download => result,
        failure = upload => Err(failure),
    }
}

/// Sends the payload. A handler that stops reading is not an error: the responses say how the
/// call went.
async fn upload(payload: &mut impl Source, writer: &mut PayloadWriter) -> Result<(), Failure> {
    while let Some(piece) = payload.next().await? {
        if writer.write_chunk(piece).await.is_err() {
            return Ok(());
        }
    }
    writer.finish();
    Ok(())
}

fn ping_failure(error: PingError) -> Failure {
    match error {
        PingError::Open(error) => open_failure(error),
        PingError::Call { error: ref call, .. } => {
            Failure { text: error.to_string(), ..call_failure(call.clone()) }
        }
        PingError::BadReply { .. } => Failure::failed(error),
    }
}

fn open_failure(error: OpenError) -> Failure {
    match &error {
        OpenError::NoRoute { .. } | OpenError::Unreachable { .. } | OpenError::Deadline(_) => {
            Failure::unreachable(error)
        }
        OpenError::NotTrusted { .. } => Failure::refused(error),
        OpenError::Yielded { .. } => Failure::yielded(error),
        OpenError::TooManyStreams { .. } | OpenError::TooManyPeers { .. } => Failure::busy(error),
        OpenError::Refused { why, .. } => match why.code {
            RefuseCode::NotAllowed => Failure::refused(error),
            RefuseCode::Overloaded | RefuseCode::CallerLimit => Failure::busy(error),
            RefuseCode::Leaving => Failure::unreachable(error),
            _ => Failure::failed(error),
        },
        _ => Failure::failed(error),
    }
}

fn call_failure(error: CallError) -> Failure {
    match &error {
        CallError::Overloaded | CallError::CallerLimit => Failure::busy(error),
        CallError::Refused(why)
            if matches!(why.code, RefuseCode::Overloaded | RefuseCode::CallerLimit) =>
        {
            Failure::busy(error)
        }
        CallError::Lost(ending) if matches!(ending.why, EndReason::NotTrusted(_)) => {
            Failure::refused(error)
        }
        CallError::Refused(why) if why.code == RefuseCode::NotAllowed => Failure::refused(error),
        CallError::NotAllowed { .. } => Failure::refused(error),
        // The node has gone, or is going: another attempt needs another node, or this one back.
        CallError::Lost(_)
        | CallError::NoLastResponse
        | CallError::Leaving { .. }
        | CallError::Deadline => Failure::unreachable(error),
        _ => Failure::failed(error),
    }
}
