//! The streams of submitters, at the executor.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::stream_places::StreamPlaces;
use crate::id::{NodeId, ServiceName};
use crate::mesh::access::connection::{Access, NotAllowed};
use crate::mesh::access::grant::Grant;
use crate::mesh::services::fair;
use crate::mesh::{Incoming as IncomingStream, Listener, SendHalf};
use crate::policy::Action;
use crate::transport::code::StreamCode;
use crate::work::frame::FrameReader;
use crate::work::unit::busy::BusyReason;
use crate::work::unit::key::UnitKey;
use crate::work::unit::limits::MAX_TOMBSTONES;
use crate::work::unit::machine::entry::{Answer, StoreId};
use crate::work::unit::machine::executor::ExecutorInput;
use crate::work::unit::machine::tombstones::Death;
use crate::work::unit::outcome::{Report, UnitRefusal};
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::executor::in_unit::{EndedIn, InUnit};
use crate::work::unit::service::executor::known::Known;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::service::unit_table::Held;
use crate::work::unit::wire::{MAX_REQUEST_FRAME, Reply, SERVICE, StatusReply, UnitRequest};

/// How long a submitter may take to send its request.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Maximum number of streams that are served at a time. Submitters share them.
const MAX_STREAMS: usize = 8_192;

/// The most units in one page of a list.
const MAX_PAGE: usize = 1_000;

/// The service that units are handed over by.
pub(in crate::work::unit::service) fn service() -> ServiceName {
    ServiceName::try_from(SERVICE).expect("the name is valid")
}

impl Shared {
    /// Serves submitters until the node is gone.
    pub(in crate::work::unit::service) async fn serve(self: Arc<Self>, mut listener: Listener) {
        let places = StreamPlaces::new(MAX_STREAMS);
        while let Some(incoming) = listener.accept().await {
            // A stream without a place is dropped, which resets it: the submitter tries again.
            let Some(place) = places.enter(&incoming.peer) else { continue };
            let shared = self.clone();
            self.spawn(async move {
                shared.serve_stream(incoming).await;
                drop(place);
            });
        }
    }

    async fn serve_stream(self: &Arc<Self>, incoming: IncomingStream) {
        let submitter = incoming.peer.base();
        let access = incoming.access.clone();
        let (mut send, recv) = incoming.stream.uncounted().split();
        let mut reader = FrameReader::new(recv);
        let frame = tokio::time::timeout(REQUEST_WAIT, reader.next(MAX_REQUEST_FRAME)).await;
        let Ok(Ok(Some(frame))) = frame else {
            return refuse(&mut send, &mut reader, StreamCode::BadHeader);
        };
        let request = match UnitRequest::decode(&frame) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%submitter, %error, "cannot read a request about units");
                return refuse(&mut send, &mut reader, StreamCode::BadHeader);
            }
        };
        let grant = match allow(&access, &request) {
            Ok(grant) => grant,
            Err(NotAllowed) => return self.deny(request, reader, &mut send).await,
        };
        // No longer allowed, the stream fails as if it were lost. The submitter asks again, and
        // learns why.
        send.depend_on(&grant);
        reader.recv_mut().depend_on(&grant);
        let waits = matches!(request, UnitRequest::Output(_) | UnitRequest::Follow);
        let served = self.serve_request(&submitter, request, reader, &mut send);
        tokio::select! {
            biased;
            () = served => {}
            // What only reads may be given up while it waits for something else than the stream.
            () = grant.revoked(), if waits => send.reset(StreamCode::NotAllowed),
        }
    }

    /// Refuses what is not allowed.
    async fn deny(&self, request: UnitRequest, mut reader: FrameReader, send: &mut SendHalf) {
        let (UnitRequest::Offer { id, .. }, store) = (request, self.store.id()) else {
            return refuse(send, &mut reader, StreamCode::NotAllowed);
        };
        reader.recv_mut().stop(StreamCode::Refused);
        answer(send, &Reply::Refused { store, id, refusal: UnitRefusal::NotAllowed }).await;
    }

    async fn serve_request(
        self: &Arc<Self>,
        submitter: &NodeId,
        request: UnitRequest,
        reader: FrameReader,
        send: &mut SendHalf,
    ) {
        match request {
            UnitRequest::Offer { id, start_within_ms, spec } => {
                let key = UnitKey::new(submitter, id);
                self.serve_offer(&key, start_within_ms, *spec, reader, send).await;
            }
            UnitRequest::Output(request) => {
                self.serve_output(&UnitKey::new(submitter, request.id), request, send).await;
            }
            UnitRequest::Follow => self.serve_follow(submitter, reader, send).await,
            UnitRequest::Cancel { id, grace_ms, start_within_ms } => {
                let key = UnitKey::new(submitter, id);
                let reply = self.on_cancel(&key, grace_ms, start_within_ms).await;
                answer(send, &reply).await;
            }
            UnitRequest::Release { id, force } => {
                let key = UnitKey::new(submitter, id);
                let reply = self.on_release(&key, force).await;
                answer(send, &reply).await;
            }
            UnitRequest::List { after, limit } => {
                self.serve_list(submitter, after, limit.into(), send).await;
            }
        }
    }

    async fn on_cancel(
        self: &Arc<Self>,
        key: &UnitKey,
        grace_ms: u64,
        start_within_ms: u64,
    ) -> Reply {
        let (store, id) = (self.store.id(), key.id);
        let claimed = match self.look_up(key).await {
            Known::Unit(unit) => {
                return self.feed_and_reply(&unit, ExecutorInput::Cancel { grace_ms }).await;
            }
            Known::Dead(Death::NeverAccepted) => return Reply::NeverAccepted { store, id },
            Known::Dead(Death::Removed) => return Reply::Released { store, id },
            Known::Nothing(claimed) => claimed,
        };
        let busy = |reason| Reply::Busy { store, id, reason };
        if self.is_poisoned() {
            return busy(BusyReason::DiskFailed);
        }
        if !self.may_leave_tombstone(&key.submitter) {
            return busy(BusyReason::ReleasedIds);
        }
        // An offer that is under way meets the tombstone.
        let life = crate::work::unit::limits::TOMBSTONE_MARGIN_MS;
        let max = u64::try_from(crate::work::unit::spec::UnitSpec::MAX_LIFE.as_millis())
            .unwrap_or(u64::MAX);
        let now = self.clock.now();
        let until = now.plus(start_within_ms.min(max)).plus(life);
        let (shared, key) = (self.clone(), key.clone());
        let marked = self.blocking(move || {
            let death = Death::NeverAccepted;
            let added = shared.store.add_tombstone(&key, until, death, now);
            drop(claimed);
            added
        });
        match marked.await {
            Ok(Ok(())) => Reply::NeverAccepted { store, id },
            Ok(Err(error)) => busy(self.disk_failed(&error)),
            Err(_) => busy(BusyReason::ShuttingDown),
        }
    }

    /// Whether another unit or tombstone of this submitter may be kept. Each unit needs a tombstone
    /// when it is removed, so both count.
    pub(in crate::work::unit::service) fn may_leave_tombstone(&self, submitter: &NodeId) -> bool {
        let (own_units, units) = self.incoming.table().holdings.counts(submitter);
        let (own_dead, dead) = self.store.tombstones(submitter);
        let max = self.limits().max_released_ids.min(MAX_TOMBSTONES);
        fair::admits(own_units + own_dead, units + dead, max)
    }

    async fn on_release(self: &Arc<Self>, key: &UnitKey, force: bool) -> Reply {
        let (store, id) = (self.store.id(), key.id);
        match self.look_up(key).await {
            Known::Unit(unit) => self.feed_and_reply(&unit, ExecutorInput::Release { force }).await,
            Known::Dead(_) => Reply::Released { store, id },
            Known::Nothing(_) => Reply::Unknown { store, id },
        }
    }

    /// Feeds a request, and returns the answer.
    pub(in crate::work::unit::service) async fn feed_and_reply(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        input: ExecutorInput,
    ) -> Reply {
        let (store, id) = (self.store.id(), unit.key.id);
        match self.feed_in(unit, input).await {
            Ok(Some(answer)) => self.reply(unit, answer),
            Ok(None) => self.status_reply(unit),
            Err(UnitError::Removed) => Reply::Released { store, id },
            Err(UnitError::Disk(_)) => Reply::Busy { store, id, reason: self.disk_reason() },
            Err(UnitError::ShutDown) => Reply::Busy { store, id, reason: BusyReason::ShuttingDown },
        }
    }

    fn reply(&self, unit: &InUnit, answer: Answer) -> Reply {
        let (store, id) = (self.store.id(), unit.key.id);
        match answer {
            Answer::Have { offset } => Reply::Have { store, id, offset },
            Answer::Status(report) => self.unit_reply(unit, report),
            Answer::Refused(refusal) => Reply::Refused { store, id, refusal },
            Answer::Busy => Reply::Busy { store, id, reason: BusyReason::Unspecified },
            Answer::Unknown => Reply::Unknown { store, id },
            Answer::NeverAccepted => Reply::NeverAccepted { store, id },
            Answer::Released => Reply::Released { store, id },
        }
    }

    /// Where a unit stands.
    pub(in crate::work::unit::service) fn status_reply(&self, unit: &InUnit) -> Reply {
        self.unit_reply(unit, unit.seen().report)
    }

    fn unit_reply(&self, unit: &InUnit, report: Report) -> Reply {
        let progress = unit.progress();
        let lens = match (progress.stdout_len, progress.stderr_len, unit.seen().attempt) {
            (Some(stdout), Some(stderr), _) => (stdout, stderr),
            (_, _, 0) => (0, 0),
            (_, _, attempt) => unit.paths.output_lens(attempt),
        };
        self.report_reply(unit.key.id, report, progress.started_ms, lens)
    }

    /// Where a unit stands that has ended.
    fn ended_reply(&self, id: Uuid, ended: &EndedIn) -> Reply {
        let progress = ended.progress();
        let lens = (progress.stdout_len.unwrap_or(0), progress.stderr_len.unwrap_or(0));
        self.report_reply(id, ended.report(), progress.started_ms, lens)
    }

    fn report_reply(
        &self,
        id: Uuid,
        report: Report,
        started_ms: Option<u64>,
        (stdout_len, stderr_len): (u64, u64),
    ) -> Reply {
        let now = self.clock.now().0;
        let status = StatusReply {
            version: report.version,
            since_ms: now.saturating_sub(report.since.0),
            started_ms: started_ms.map(|at| now.saturating_sub(at)),
            started: report.started,
            state: report.state,
            stdout_len,
            stderr_len,
        };
        Reply::Status { store: self.store.id(), id, status }
    }

    async fn serve_list(
        &self,
        submitter: &NodeId,
        after: Option<Uuid>,
        limit: usize,
        send: &mut SendHalf,
    ) {
        let limit = limit.clamp(1, MAX_PAGE);
        let first = UnitKey::new(submitter, after.unwrap_or(Uuid::nil()));
        let page: Vec<Listed> = {
            let table = self.incoming.table();
            let behind = table.units.behind(Bound::Included(&first));
            let own = behind.take_while(|(key, _)| key.submitter == first.submitter);
            let new = own.filter(|(key, _)| after.is_none_or(|after| key.id > after));
            let listed = |(key, held): (&UnitKey, &Held<InUnit>)| match held {
                Held::Live(unit) => Listed::Live(unit.clone()),
                Held::Ended(ended) => Listed::Ended(self.ended_reply(key.id, ended)),
            };
            new.take(limit + 1).map(listed).collect()
        };
        for listed in page.iter().take(limit) {
            let written = match listed {
                Listed::Live(unit) => write(send, &self.status_reply(unit)).await,
                Listed::Ended(reply) => write(send, reply).await,
            };
            if written.is_err() {
                return;
            }
        }
        answer(send, &Reply::ListEnd { more: page.len() > limit }).await;
    }

    pub(in crate::work::unit::service) fn store_id(&self) -> StoreId {
        self.store.id()
    }
}

/// Decides a request.
fn allow(access: &Access, request: &UnitRequest) -> Result<Arc<Grant>, NotAllowed> {
    match request {
        UnitRequest::Offer { spec, .. } => access.allow(&Action::submit(&spec.directive)),
        UnitRequest::Follow => access.allow(&Action::FOLLOW),
        UnitRequest::Output(_)
        | UnitRequest::Cancel { .. }
        | UnitRequest::Release { .. }
        | UnitRequest::List { .. } => access.allow(&Action::MANAGE),
    }
}

/// A unit of a list.
enum Listed {
    Live(Arc<InUnit>),
    Ended(Reply),
}

fn refuse(send: &mut SendHalf, reader: &mut FrameReader, code: StreamCode) {
    reader.recv_mut().stop(code);
    send.reset(code);
}

/// Writes a frame.
pub(in crate::work::unit::service) async fn write(
    send: &mut SendHalf,
    reply: &Reply,
) -> Result<(), crate::mesh::StreamError> {
    send.write_chunk(reply.encode().into()).await
}

/// Writes the last frame, and waits until it has arrived.
pub(in crate::work::unit::service) async fn answer(send: &mut SendHalf, reply: &Reply) {
    if write(send, reply).await.is_ok() {
        send.finish();
        // An error means that the submitter asks again.
        let _ = send.stopped().await;
    }
}
