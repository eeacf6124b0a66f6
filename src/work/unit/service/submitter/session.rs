//! The time during which an executor can be asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::drivers::Work;
use super::out_unit::OutUnit;
use crate::id::NodeId;
use crate::mesh::handle::Mesh;
use crate::mesh::services::usage::Purpose;
use crate::mesh::{EndReason, OpenError, OpenOptions, RefuseCode, SendHalf, StreamError};
use crate::transport::code::StreamCode;
use crate::work::frame::FrameReader;
use crate::work::unit::machine::entry::{Answer, StoreId};
use crate::work::unit::machine::submitter::{Request, SubmitterInput};
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::outcome::Report;
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::service::streams::serving::service;
use crate::work::unit::wire::{MAX_REPLY_FRAME, Reply, StatusReply, Subscription, UnitRequest};

/// How long an executor may take to answer.
const REPLY_WAIT: Duration = Duration::from_secs(30);

/// How long opening a stream may take. An attempt to reach a process that has died in the meantime
/// is given up for one that reaches its successor.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// How many units are handed to one executor at a time.
const AT_A_TIME: usize = 64;

/// A stream by which an executor reports changes, and what is asked meanwhile.
pub(in crate::work::unit::service) struct Session {
    shared: Arc<Shared>,
    node: NodeId,
    send: SendHalf,
    reader: FrameReader,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
}

/// Why a session has ended.
pub(in crate::work::unit::service) enum SessionEnd {
    /// All units are settled.
    Idle,
    /// The executor does not offer the service.
    NoUnits,
    /// The executor's policy does not allow it.
    NotAllowed,
    Lost(String),
}

impl From<StreamError> for SessionEnd {
    fn from(error: StreamError) -> Self {
        match error.ending().map(|ending| ending.why) {
            Some(EndReason::Refused(why)) if why.code == RefuseCode::UnknownService => {
                Self::NoUnits
            }
            Some(EndReason::Refused(why)) if why.code == RefuseCode::NotAllowed => Self::NotAllowed,
            Some(
                EndReason::Reset(StreamCode::NotAllowed)
                | EndReason::Stopped(StreamCode::NotAllowed),
            ) => Self::NotAllowed,
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl Session {
    /// Begins to follow the units of this node at an executor.
    pub(in crate::work::unit::service) async fn open(
        shared: &Arc<Shared>,
        mesh: &Mesh,
        node: &NodeId,
    ) -> Result<Self, SessionEnd> {
        let (send, reader) = open(mesh, node, &UnitRequest::Follow).await?;
        let mut session = Self {
            shared: shared.clone(),
            node: node.clone(),
            send,
            reader,
            tasks: JoinSet::new(),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
        };
        match next_reply(&mut session.reader).await? {
            Reply::Following { .. } => Ok(session),
            other => Err(SessionEnd::Lost(format!("an answer that was not asked for: {other:?}"))),
        }
    }

    /// Asks what is to be asked, and passes on what is reported, until that ends.
    pub(in crate::work::unit::service) async fn run(
        mut self,
        queue: &mut mpsc::UnboundedReceiver<Work>,
    ) -> SessionEnd {
        for id in self.shared.drivers.live(&self.node) {
            if let Some(unit) = self.shared.outgoing.get(id) {
                self.feed(unit, SubmitterInput::Up);
            }
        }
        loop {
            tokio::select! {
                frame = self.reader.next(MAX_REPLY_FRAME) => match frame {
                    Ok(Some(frame)) => match Reply::decode(&frame) {
                        Ok(reply) => self.on_reply(reply),
                        Err(error) => return SessionEnd::Lost(error.to_string()),
                    },
                    Ok(None) => return SessionEnd::Lost("the executor has ended the stream".to_owned()),
                    Err(error) => return SessionEnd::Lost(error.to_string()),
                },
                Some(work) = queue.recv() => {
                    if let Err(error) = self.on_work(work).await {
                        return error.into();
                    }
                }
                Some(_) = self.tasks.join_next() => {}
            }
            if self.tasks.is_empty() && queue.is_empty() && self.shared.drivers.is_idle(&self.node)
            {
                self.send.finish();
                return SessionEnd::Idle;
            }
        }
    }

    async fn on_work(&mut self, work: Work) -> Result<(), StreamError> {
        match work {
            Work::Live(unit) => self.feed(unit, SubmitterInput::Up),
            Work::Idle => {}
            Work::Request(unit, Request::Watch) => {
                self.send.write_chunk(Subscription { id: unit.id }.encode().into()).await?;
            }
            Work::Request(unit, request) => {
                let (shared, places) = (self.shared.clone(), self.places.clone());
                // A cancellation does not wait for payloads.
                let waits = matches!(request, Request::Offer { .. });
                self.tasks.spawn(async move {
                    let _place = if waits { places.acquire().await.ok() } else { None };
                    shared.ask(&unit, request).await;
                });
            }
        }
        Ok(())
    }

    fn on_reply(&mut self, reply: Reply) {
        if let Some((unit, store, answer)) = self.shared.understand(&self.node, reply) {
            self.feed(unit, SubmitterInput::Answer { store, answer });
        }
    }

    fn feed(&mut self, unit: Arc<OutUnit>, input: SubmitterInput) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            // The unit asks again after a failed write.
            if let Err(UnitError::Disk(error)) = shared.feed_out(&unit, input).await {
                tracing::warn!(unit = %unit.id, error, "could not record the state of a unit; asking again");
            }
        });
    }
}

impl Shared {
    /// What a reply of an executor says about which unit. `None` if it is about none, or about one
    /// of another executor.
    pub(in crate::work::unit::service) fn understand(
        &self,
        executor: &NodeId,
        reply: Reply,
    ) -> Option<(Arc<OutUnit>, StoreId, Answer)> {
        let own = |id| self.outgoing.get(id).filter(|unit| unit.node == *executor);
        let mut busy = None;
        let (unit, store, answer) = match reply {
            Reply::Have { store, id, offset } => (own(id)?, store, Answer::Have { offset }),
            Reply::Status { store, id, status } => {
                let unit = own(id)?;
                let report = self.note_status(&unit, &status);
                (unit, store, Answer::Status(report))
            }
            Reply::Refused { store, id, refusal } => (own(id)?, store, Answer::Refused(refusal)),
            Reply::Busy { store, id, reason } => {
                busy = Some(reason);
                (own(id)?, store, Answer::Busy)
            }
            Reply::Unknown { store, id } => (own(id)?, store, Answer::Unknown),
            Reply::NeverAccepted { store, id } => (own(id)?, store, Answer::NeverAccepted),
            Reply::Released { store, id } => (own(id)?, store, Answer::Released),
            Reply::Data { .. }
            | Reply::End { .. }
            | Reply::ListEnd { .. }
            | Reply::Following { .. } => {
                return None;
            }
        };
        unit.publish_busy(busy);
        Some((unit, store, answer))
    }

    /// Keeps what a status says beside the state, by this node's clock.
    fn note_status(&self, unit: &OutUnit, status: &StatusReply) -> Report {
        let now = self.clock.now().0;
        let ago = |ms: u64| now.saturating_sub(ms);
        let report = Report {
            version: status.version,
            state: status.state.clone(),
            started: status.started,
            since: UnitTime(ago(status.since_ms)),
        };
        unit.note(|progress| {
            progress.started_ms = status.started_ms.map(ago).or(progress.started_ms);
            progress.stdout_len = Some(status.stdout_len);
            progress.stderr_len = Some(status.stderr_len);
            if report.outcome().is_some() {
                progress.ended_ms.get_or_insert(report.since.0);
            }
        });
        report
    }
}

/// Opens a stream to an executor, and sends the request.
pub(in crate::work::unit::service) async fn open(
    mesh: &Mesh,
    node: &NodeId,
    request: &UnitRequest,
) -> Result<(SendHalf, FrameReader), SessionEnd> {
    let options = OpenOptions { deadline: Some(OPEN_WAIT), ..OpenOptions::default() };
    let stream = mesh.open(node, &service(), options, Purpose::Application).await;
    let stream = stream.map_err(|error| match error {
        OpenError::Refused { why, .. } if why.code == RefuseCode::UnknownService => {
            SessionEnd::NoUnits
        }
        OpenError::Refused { why, .. } if why.code == RefuseCode::NotAllowed => {
            SessionEnd::NotAllowed
        }
        other => SessionEnd::Lost(other.to_string()),
    })?;
    let (mut send, recv) = stream.uncounted().split();
    send.write_chunk(request.encode().into()).await?;
    Ok((send, FrameReader::new(recv)))
}

/// The next reply. For a stream that must have one.
pub(in crate::work::unit::service) async fn next_reply(
    reader: &mut FrameReader,
) -> Result<Reply, SessionEnd> {
    use crate::work::frame::FrameError;
    let frame = tokio::time::timeout(REPLY_WAIT, reader.next(MAX_REPLY_FRAME)).await;
    let frame = match frame {
        Err(_) => return Err(SessionEnd::Lost("the executor does not answer".to_owned())),
        Ok(Err(FrameError::Stream(error))) => return Err(error.into()),
        Ok(Err(error)) => return Err(SessionEnd::Lost(error.to_string())),
        Ok(Ok(None)) => {
            return Err(SessionEnd::Lost("the executor has ended the stream".to_owned()));
        }
        Ok(Ok(Some(frame))) => frame,
    };
    Reply::decode(&frame).map_err(|error| SessionEnd::Lost(error.to_string()))
}
