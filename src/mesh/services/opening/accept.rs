//! Streams that arrive on a connection.

use std::sync::Arc;

use bytes::Bytes;

use crate::id::NodeId;
use crate::mesh::access::connection::Access;
use crate::mesh::services::connection::Connection;
use crate::mesh::services::credit::StreamCredit;
use crate::mesh::services::ending::Cause;
use crate::mesh::services::usage::Usage;
use crate::mesh::services::{Opened, Services};

/// Passes the streams that come in on a connection to the services, until the connection ends.
pub(crate) async fn accept_streams(
    connection: &Connection,
    node: &NodeId,
    services: &Services,
    usage: &Arc<Usage>,
    access: &Arc<Access>,
) -> Cause {
    tokio::select! {
        cause = accept_each(connection, node, services, usage, access) => cause,
        never = services.windows.follow(connection, node, usage) => match never {},
        never = services.send_windows.follow(connection, node) => match never {},
        never = connection.first_cause().writers().follow() => match never {},
    }
}

async fn accept_each(
    connection: &Connection,
    node: &NodeId,
    services: &Services,
    usage: &Arc<Usage>,
    access: &Arc<Access>,
) -> Cause {
    let credit = Arc::new(StreamCredit::new(connection.clone(), usage.clone()));
    let mut last = None;
    loop {
        let (send, recv) = match connection.accept_bi().await {
            Ok(halves) => halves,
            Err(error) => return connection.first_cause().of(&error),
        };
        let first = connection.first_cause().clone();
        let (lease, access) = (usage.incoming(), access.clone());
        let opened = Opened { send, recv, first, lease, access, came: Bytes::new() };
        credit.accepted();
        if let Some(opened) = services.dispatch_at_once(node, opened, &credit, &mut last).await {
            // Bounded by the streams that the connection permits.
            tokio::spawn(services.clone().dispatch(node.clone(), opened, credit.clone()));
        }
    }
}
