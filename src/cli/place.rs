//! Where a command runs: on a node of this machine, or on one that joins for it.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::PlaceArgs;
use super::control::client::Client;
use super::control::path::the_one_there_is;
use super::join;
use super::local::{Hop, Local, PingReply, exchange};
use crate::cli::output::flow::{Sink, Source};
use crate::cli::process::exit::Failure;
use crate::cli::process::signals;
use crate::cli::setup::env::Env;
use crate::cli::setup::settings::CONTROL;
use crate::id::NodeId;
use crate::mesh::{Convergence, StatusOptions};
use crate::work::{CallOptions, Directive};

/// Where a command runs.
#[derive(Debug)]
pub(super) enum Place {
    /// A running node, behind its control socket.
    Remote(Client),
    /// An ephemeral node in this process.
    Local(Local),
}

impl Place {
    /// Does one thing on a place, and leaves it in order: also when the thing failed, and on
    /// Ctrl-C.
    pub(super) async fn with<T>(
        args: PlaceArgs,
        env: &Env,
        thing: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut stop = signals::Stop::watch()?;
        let interrupted = || Err(Failure::failed("interrupted"));
        let place = tokio::select! {
            place = Self::open(args, env) => place?,
            () = stop.wait() => return interrupted(),
        };
        let result = tokio::select! {
            result = thing(&place) => result,
            () = stop.wait() => interrupted(),
        };
        tokio::select! {
            () = place.leave() => result,
            () = stop.wait() => interrupted(),
        }
    }

    async fn open(args: PlaceArgs, env: &Env) -> Result<Self, Failure> {
        let asked = args.id.is_some() || args.certs.is_some() || !args.peer.is_empty();
        let socket = args.control.is_some() || CONTROL.path(None, env).is_some();
        if asked || (!socket && join::is_set_up(env)) {
            return join::join(args, env).await.map(Self::Local);
        }
        let path = match CONTROL.path(args.control, env) {
            Some(path) => path.value,
            None => the_one_there_is(env)?,
        };
        Ok(Self::Remote(Client::new(path)))
    }

    async fn leave(&self) {
        if let Self::Local(local) = self {
            local.leave().await;
        }
    }

    /// The status: all of it as a [`Document`](crate::cli::output::json::Document), or what a view takes of it.
    pub(super) async fn status<T: DeserializeOwned>(
        &self,
        options: StatusOptions,
    ) -> Result<T, Failure> {
        match self {
            Self::Remote(client) => client.status(options).await,
            Self::Local(local) => local.status(options).await?.read().map_err(|error| {
                Failure::failed(format!(
                    "this node's own status is not understood, which is a bug: {error}"
                ))
            }),
        }
    }

    pub(super) async fn explain(&self, node: &NodeId) -> Result<Value, Failure> {
        match self {
            Self::Remote(client) => client.explain(node).await,
            Self::Local(local) => local.explain(node).await,
        }
    }

    /// Whether all nodes have the route to the place.
    pub(super) async fn converged(&self, within: Duration) -> Result<Convergence, Failure> {
        match self {
            Self::Remote(client) => client.converged(within).await,
            Self::Local(local) => local.converged(within).await,
        }
    }

    pub(super) async fn ping(
        &self,
        node: &NodeId,
        timeout: Duration,
    ) -> Result<PingReply, Failure> {
        match self {
            Self::Remote(client) => client.ping(node, timeout).await,
            Self::Local(local) => local.ping(node, timeout).await,
        }
    }

    pub(super) async fn trace(&self, node: &NodeId) -> Result<Vec<Hop>, Failure> {
        match self {
            Self::Remote(client) => client.trace(node).await,
            Self::Local(local) => local.trace(node).await,
        }
    }

    /// Makes a call. Dropped, it cancels the call.
    pub(super) async fn send(
        &self,
        node: &NodeId,
        directive: Directive,
        options: CallOptions,
        payload: impl Source,
        responses: impl Sink,
        queued: impl FnOnce(),
    ) -> Result<(), Failure> {
        match self {
            Self::Remote(client) => {
                client.send(node, &directive, options, payload, responses, queued).await
            }
            Self::Local(local) => {
                exchange(local.call(node, directive, options).await?, payload, responses).await
            }
        }
    }
}
