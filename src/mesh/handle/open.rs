//! Opens streams and senders of datagrams.
use std::pin::pin;
use std::time::Duration;

use super::Mesh;
use crate::id::{NodeId, ServiceName};
use crate::mesh::services::at_once::at_once;
use crate::mesh::services::connection::FirstCause;
use crate::mesh::services::datagrams::datagram::{Bound, Connect, DatagramSender};
use crate::mesh::services::ending::Cause;
use crate::mesh::services::opening::open::{OpenError, OpenHeader, OpenOptions};
use crate::mesh::services::patience::Patience;
use crate::mesh::services::stream::Stream;
use crate::mesh::services::usage::{Purpose, StreamLease};
use crate::transport::settings::MAX_STREAMS;

/// How long an open without a deadline waits for a place or for credit, and [`CREDIT_ROUND_TRIPS`]
/// on top of it.
const PLACE_WAIT: Duration = Duration::from_millis(750);
/// Round trips that pass, at worst, until the other end has permitted as many streams as it ever
/// does: one with the first streams, one with the permission, and as much for packets that are
/// lost.
const CREDIT_ROUND_TRIPS: u32 = 4;

impl Mesh {
    /// Opens a stream to a service of a node. Returns once the header is on its way: the answer
    /// comes with the data.
    pub(crate) async fn open(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        let opened = self.try_open(node, service, options, purpose).await;
        let stream = opened.map_err(|error| self.unless_closed(error))?;
        Ok(stream.counted(&self.0.services.open_streams))
    }

    async fn try_open(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        // Fast path: a connection, a place and credit are there. Nothing has to be watched while
        // nothing is waited for.
        if let Some((connection, lease)) = self.ready(node, options.peer_timeout)
            && let Some(halves) = at_once(connection.open_bi()).await
        {
            connection.need().note(lease.streams());
            let first = connection.first_cause();
            let halves = halves.map_err(|error| OpenError::lost(node, first.of(&error)))?;
            let header = connection.last_header().encoded(service, options, lease.wants_credit());
            let mut beginning = pin!(begin(node, halves, first, lease, header));
            if let Some(begun) = at_once(beginning.as_mut()).await {
                return begun;
            }
            return within(options.deadline, beginning).await;
        }
        let opening = async {
            tokio::select! {
                biased;
                barred = self.barred(node) => Err(barred),
                opened = self.open_in_turn(node, service, options, purpose) => opened,
            }
        };
        within(options.deadline, opening).await
    }

    /// Opens a stream where something has to be waited for: a route, a connection, a place, or
    /// credit.
    async fn open_in_turn(
        &self,
        node: &NodeId,
        service: &ServiceName,
        options: OpenOptions,
        purpose: Purpose,
    ) -> Result<Stream, OpenError> {
        let too_many = || OpenError::TooManyStreams { node: node.clone(), max: MAX_STREAMS };
        let (connection, usage, _lease) = self.connection(node, options.peer_timeout).await?;
        let patience = usage.patience(options.peer_timeout);
        let waiting = patience.clone();
        let opening = async {
            let waiting = usage.queue(purpose).ok_or_else(too_many)?;
            let lease = waiting.place().await.waiting_for(patience);
            let lost = |error| OpenError::lost(node, connection.first_cause().of(&error));
            // An open that waited for a place takes credit at once if there is some.
            if usage.may_take_credit()
                && let Some(halves) = at_once(connection.open_bi()).await
            {
                return Ok((halves.map_err(lost)?, lease));
            }
            let turn = waiting.credit_turn().await;
            let halves = connection.open_bi().await.map_err(lost)?;
            drop(turn);
            Ok((halves, lease))
        };
        let opened = async {
            tokio::select! {
                opened = opening => opened,
                cause = connection.closed() => Err(OpenError::lost(node, cause)),
                cause = given_up(waiting) => Err(OpenError::lost(node, cause)),
            }
        };
        let (halves, lease) = match options.deadline {
            // The caller ends the wait.
            Some(_) => opened.await?,
            None => {
                let patience = PLACE_WAIT + CREDIT_ROUND_TRIPS * connection.rtt();
                tokio::time::timeout(patience, opened).await.unwrap_or_else(|_| Err(too_many()))?
            }
        };
        connection.need().note(lease.streams());
        let header = OpenHeader::encoded(service, options, lease.wants_credit());
        begin(node, halves, connection.first_cause(), lease, header).await
    }

    /// A sender of datagrams to a service of a node, on the link or the peer connection, opened now
    /// if necessary, and again whenever it is lost.
    pub(crate) async fn datagrams(
        &self,
        node: &NodeId,
        service: &ServiceName,
    ) -> Result<DatagramSender, OpenError> {
        let bound = self.bind(node).await?;
        let (mesh, node) = (self.downgrade(), node.clone());
        let connect: Connect = Box::new(move || {
            let (mesh, node) = (mesh.clone(), node.clone());
            Box::pin(async move { mesh.upgrade()?.bind(&node).await.ok() })
        });
        let listeners = self.0.services.datagrams.clone();
        Ok(DatagramSender::new(bound, service, listeners, connect, self.0.runtime.clone()))
    }

    /// A connection to a node for datagrams.
    async fn bind(&self, node: &NodeId) -> Result<Bound, OpenError> {
        tokio::select! {
            biased;
            barred = self.barred(node) => Err(barred),
            connected = self.connection(node, None) => {
                let (connection, _, lease) = connected.map_err(|error| self.unless_closed(error))?;
                Ok(Bound { connection, _lease: lease })
            }
        }
    }
}

/// Fails once the deadline has passed, if there is one.
async fn within<T>(
    deadline: Option<Duration>,
    opening: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    match deadline {
        None => opening.await,
        Some(deadline) => tokio::time::timeout(deadline, opening)
            .await
            .unwrap_or(Err(OpenError::Deadline(deadline))),
    }
}

/// Waits until the peer is given up, if that is ever.
async fn given_up(patience: Option<Patience>) -> Cause {
    match patience {
        Some(patience) => patience.ended().await,
        None => std::future::pending().await,
    }
}

/// Sends the header of a stream that was just opened.
async fn begin(
    node: &NodeId,
    (send, recv): (quinn::SendStream, quinn::RecvStream),
    first: &FirstCause,
    lease: StreamLease,
    header: bytes::Bytes,
) -> Result<Stream, OpenError> {
    // The header may have to wait for the send window, which a more patient stream may have filled.
    // An open that fails or is dropped meanwhile drops the stream, which resets it.
    let mut stream = Stream::opened(send, recv, first).leased(lease);
    match stream.send.write_header(header).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(quinn::WriteError::ConnectionLost(error))) => {
            Err(OpenError::lost(node, first.of(&error)))
        }
        Ok(Err(error)) => {
            Err(OpenError::Unreachable { node: node.clone(), why: error.to_string() })
        }
        Err(cause) => Err(OpenError::lost(node, cause)),
    }
}
