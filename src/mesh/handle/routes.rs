//! Finds the connection that leads to a node, and waits for a route.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{Mesh, ROUTE_WAIT};
use crate::id::NodeId;
use crate::mesh::driver::shutdown::ShutDown;
use crate::mesh::input::{Command, Input};
use crate::mesh::services::connection::Connection;
use crate::mesh::services::opening::open::OpenError;
use crate::mesh::services::usage::{Lease, StreamLease, Usage};
use crate::mesh::view::{LinkView, View};

impl Mesh {
    /// The neighbour that packets for a node go to, and the cost and hops, as far as this node
    /// knows.
    pub(crate) fn next_hop(&self, node: &NodeId) -> Option<(NodeId, u64, u32)> {
        next_hop(&self.0.view.borrow(), node)
    }

    /// The link to a neighbour, or the peer connection to another node, and a place for a stream
    /// with this peer timeout, if both are there now.
    pub(super) fn ready(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Option<(Arc<Connection>, StreamLease)> {
        let view = self.0.view.borrow();
        if view.closed || (view.yielded_to.is_some() && *node != self.0.id) {
            return None;
        }
        if let Some(link) = live_link(&view, node) {
            return Some((link.connection.clone(), link.usage.try_open()?));
        }
        let routed = *node == self.0.id || has_route(&view, node);
        // A stub asks its neighbour first.
        (routed && !view.stub).then(|| self.0.peers.ready(node, peer_timeout)).flatten()
    }

    /// The link to a neighbour, or the peer connection to another node.
    pub(super) async fn connection(
        &self,
        node: &NodeId,
        peer_timeout: Option<Duration>,
    ) -> Result<(Arc<Connection>, Arc<Usage>, Lease), OpenError> {
        let mut view = self.0.view.clone();
        let known = |view: &Arc<View>| {
            view.closed
                || *node == self.0.id
                || live_link(view, node).is_some()
                || has_route(view, node)
        };
        let waiting = async {
            tokio::select! {
                biased;
                found = view.wait_for(known) => found.map(|view| view.clone()),
                never = self.keep_verifying(node) => match never {},
            }
        };
        let view = match tokio::time::timeout(ROUTE_WAIT, waiting).await {
            Ok(Ok(view)) => view,
            Ok(Err(_)) => return Err(OpenError::ShutDown),
            Err(_) => return Err(OpenError::NoRoute { node: node.clone() }),
        };
        if view.closed {
            return Err(OpenError::ShutDown);
        }
        if let Some(link) = live_link(&view, node) {
            return Ok((link.connection.clone(), link.usage.clone(), link.usage.lease()));
        }
        if view.stub && *node != self.0.id && self.ask_for_route(node).await.is_none() {
            return Err(OpenError::NoRoute { node: node.clone() });
        }
        self.0.peers.connection(node, peer_timeout).await
    }

    /// A stub asks its neighbour, more than once: it may hear of the node a moment later.
    async fn ask_for_route(&self, node: &NodeId) -> Option<(u64, u32)> {
        let asking = async {
            loop {
                if let Ok(Some(route)) = self.ask(|reply| Command::Query(node.clone(), reply)).await
                {
                    return route;
                }
                tokio::time::sleep(ROUTE_WAIT / 5).await;
            }
        };
        tokio::time::timeout(ROUTE_WAIT, asking).await.ok()
    }

    /// Waits until this node can open no more streams to `node`, because it is shut down or has
    /// yielded its id.
    pub(super) async fn barred(&self, node: &NodeId) -> OpenError {
        let mut view = self.0.view.clone();
        // A node that has yielded still reaches itself.
        let yields = *node != self.0.id;
        let ended =
            view.wait_for(|view| view.closed || (yields && view.yielded_to.is_some())).await;
        let to = ended.ok().filter(|view| !view.closed).and_then(|view| view.yielded_to.clone());
        to.map_or(OpenError::ShutDown, |to| OpenError::Yielded { to })
    }

    /// What an error of a closed node is: whatever went wrong first, the node is the reason.
    pub(super) fn unless_closed(&self, error: OpenError) -> OpenError {
        if self.0.view.borrow().closed { OpenError::ShutDown } else { error }
    }

    /// Waits until there is a way to a node.
    pub(crate) async fn routable(&self, node: &NodeId) -> Result<(), ShutDown> {
        let mut view = self.0.view.clone();
        let known = |view: &Arc<View>| {
            view.closed
                || *node == self.0.id
                || live_link(view, node).is_some()
                || has_route(view, node)
        };
        let closed = tokio::select! {
            biased;
            found = view.wait_for(known) => found.map_or(true, |view| view.closed),
            never = self.keep_verifying(node) => match never {},
        };
        if closed { Err(ShutDown) } else { Ok(()) }
    }

    /// Has the node verified as a stub as long as others list it without a proof that is known
    /// here.
    async fn keep_verifying(&self, node: &NodeId) -> Infallible {
        let mut view = self.0.view.clone();
        loop {
            if view.wait_for(|view| view.table.is_claimed(node)).await.is_err()
                || self.0.inputs.send(Input::Command(Command::Verify(node.clone()))).await.is_err()
            {
                return std::future::pending().await;
            }
            tokio::time::sleep(ROUTE_WAIT).await;
        }
    }
}

/// The neighbour that packets for a node go to, and the cost and hops.
pub(crate) fn next_hop(view: &View, node: &NodeId) -> Option<(NodeId, u64, u32)> {
    let (cost, hops) = match view.table.route(node) {
        Some(route) => (route.cost, route.hops),
        // A stub's packets go to whom it is attached to, and straight there if that is the node.
        None if view.stub => (0, 0),
        None => return None,
    };
    Some((view.first_hop(node)?, cost, hops))
}

fn live_link<'a>(view: &'a View, node: &NodeId) -> Option<&'a LinkView> {
    view.links.get(node).map(|link| &**link).filter(|link| link.connection.close_reason().is_none())
}

fn has_route(view: &View, node: &NodeId) -> bool {
    view.reaches(node) || (view.stub && view.linked)
}
