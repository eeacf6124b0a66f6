//! Units that are offered to this node.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use super::in_unit::InUnit;
use super::known::{ClaimedKey, Known};
use crate::mesh::SendHalf;
use crate::transport::code::StreamCode;
use crate::work::commands::supervise::can_supervise;
use crate::work::frame::FrameReader;
use crate::work::registry::UnitRunner;
use crate::work::unit::busy::BusyReason;
use crate::work::unit::key::UnitKey;
use crate::work::unit::machine::executor::{ExecutorInput, ExecutorUnit};
use crate::work::unit::machine::tombstones::Death;
use crate::work::unit::outcome::UnitRefusal;
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::service::streams::serving::{answer, write};
use crate::work::unit::spec::UnitSpec;
use crate::work::unit::store::faults::write_all_at;
use crate::work::unit::wire::Reply;

/// How much of a payload is written at a time, in bytes.
const PIECE: usize = 256 * 1024;

impl Shared {
    pub(in crate::work::unit::service) async fn serve_offer(
        self: &Arc<Self>,
        key: &UnitKey,
        start_within_ms: u64,
        spec: UnitSpec,
        mut reader: FrameReader,
        send: &mut SendHalf,
    ) {
        let (store, id) = (self.store_id(), key.id);
        let (unit, reply) = match self.look_up(key).await {
            Known::Unit(unit) => {
                let reply =
                    self.feed_and_reply(&unit, ExecutorInput::Offer { hash: spec.hash() }).await;
                (Some(unit), reply)
            }
            Known::Dead(Death::NeverAccepted) => (None, Reply::NeverAccepted { store, id }),
            Known::Dead(Death::Removed) => {
                (None, Reply::Refused { store, id, refusal: UnitRefusal::Released })
            }
            Known::Nothing(claimed) => {
                match self.admit_offer(key, start_within_ms, spec, claimed).await {
                    Ok(unit) => (Some(unit), Reply::Have { store, id, offset: 0 }),
                    Err(reply) => (None, reply),
                }
            }
        };
        let (Some(unit), Reply::Have { offset, .. }) = (unit, &reply) else {
            reader.recv_mut().stop(StreamCode::Refused);
            return answer(send, &reply).await;
        };
        if write(send, &reply).await.is_err() {
            return;
        }
        let reply = self.receive(&unit, *offset, reader).await;
        if let Some(reply) = reply {
            answer(send, &reply).await;
        }
    }

    /// Checks an offer against the limits, and stores it.
    async fn admit_offer(
        self: &Arc<Self>,
        key: &UnitKey,
        start_within_ms: u64,
        spec: UnitSpec,
        claimed: ClaimedKey,
    ) -> Result<Arc<InUnit>, Reply> {
        let (store, id) = (self.store_id(), key.id);
        if let Some(refusal) = self.refusal(&spec) {
            tracing::debug!(unit = %key, %refusal, "refused a unit");
            return Err(Reply::Refused { store, id, refusal });
        }
        let busy = |reason| {
            tracing::debug!(unit = %key, %reason, "cannot accept a unit now");
            Reply::Busy { store, id, reason }
        };
        if self.is_draining() {
            return Err(busy(BusyReason::ShuttingDown));
        }
        if self.is_poisoned() {
            return Err(busy(BusyReason::DiskFailed));
        }
        if !self.may_leave_tombstone(&key.submitter) {
            return Err(busy(BusyReason::ReleasedIds));
        }
        {
            let mut table = self.incoming.table();
            table.holdings.check(&key.submitter, spec.payload_len, self.limits()).map_err(busy)?;
            table.holdings.insert(key, spec.payload_len);
        }
        let (shared, new) = (self.clone(), key.clone());
        let stored = self.blocking(move || {
            let stored = shared.store_offer(&new, start_within_ms, spec);
            if stored.is_err() {
                shared.incoming.table().holdings.remove(&new);
            }
            drop(claimed);
            stored
        });
        stored.await.unwrap_or(Err(BusyReason::ShuttingDown)).map_err(busy)
    }

    fn store_offer(
        self: &Arc<Self>,
        key: &UnitKey,
        start_within_ms: u64,
        spec: UnitSpec,
    ) -> Result<Arc<InUnit>, BusyReason> {
        if self.is_short_of_room(self.store.root(), spec.payload_len) {
            let percent = self.limits().reserve_percent;
            let text =
                format!("less than {percent} % of the file system would be free (reserve-percent)");
            self.disk_failed(&io::Error::new(io::ErrorKind::StorageFull, text));
            return Err(BusyReason::DiskReserve);
        }
        let now = self.clock.now();
        let (machine, step) = ExecutorUnit::offered(spec, start_within_ms, now);
        let created = self.store.create_incoming(key, &step.entries);
        let dir = created.map_err(|error| self.disk_failed(&error))?;
        self.disk_worked();
        let unit = Arc::new(InUnit::new(key.clone(), machine, dir, now));
        self.incoming.table().units.insert(key.clone(), unit.clone());
        let deadline = unit.core.try_lock().ok().and_then(|core| core.machine.deadline());
        self.incoming.deadlines.set(key, deadline);
        Ok(unit)
    }

    /// Why a unit is not accepted, whenever it is offered.
    fn refusal(&self, spec: &UnitSpec) -> Option<UnitRefusal> {
        let limits = self.limits();
        let max_keep = u64::try_from(limits.max_keep_for.as_millis()).unwrap_or(u64::MAX);
        let supervised = self.config.supervisor.is_some() || can_supervise();
        match self.registry.unit_runner(&spec.directive) {
            _ if !self.config.execute => return Some(UnitRefusal::NoUnits),
            None => return Some(UnitRefusal::UnknownDirective),
            // The end of the command could not be recorded.
            Some(UnitRunner::Command(_)) if !supervised => return Some(UnitRefusal::NoUnits),
            Some(UnitRunner::Command(_) | UnitRunner::Handler) => {}
        }
        if spec.payload_len > limits.max_payload {
            Some(UnitRefusal::PayloadTooLarge)
        } else if spec.check().is_err() || spec.keep_for_ms > max_keep {
            Some(UnitRefusal::TooLong)
        } else {
            None
        }
    }

    /// Receives the payload from an offset on. `None` if it was cut off.
    async fn receive(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        mut offset: u64,
        reader: FrameReader,
    ) -> Option<Reply> {
        let mut recv = reader.into_rest();
        let busy = |reason| Some(Reply::Busy { store: self.store_id(), id: unit.key.id, reason });
        // An empty payload has no file.
        let mut file = None;
        let mut piece = BytesMut::new();
        loop {
            let chunk = recv.read_chunk(PIECE).await;
            let last = !matches!(chunk, Ok(Some(_)));
            if let Ok(Some(chunk)) = &chunk {
                piece.extend_from_slice(chunk);
            }
            if piece.len() >= PIECE || (last && !piece.is_empty()) {
                let bytes = piece.split().freeze();
                let end = offset + bytes.len() as u64;
                if end > unit.spec.payload_len {
                    recv.stop(StreamCode::BadHeader);
                    return None;
                }
                let paths = unit.paths.clone();
                let written = self.blocking(move || {
                    let path = paths.payload_path();
                    let file = file.map_or_else(|| open_payload(&path), Ok)?;
                    write_all_at(&file, &path, &bytes, offset).map(|()| file)
                });
                file = match written.await.ok()? {
                    Ok(file) => Some(file),
                    Err(error) => {
                        recv.stop(StreamCode::Refused);
                        return busy(self.disk_failed(&error));
                    }
                };
                offset = end;
                unit.note(|progress| progress.handed = offset);
                let stored = self.feed_in(unit, ExecutorInput::Stored { offset }).await;
                if stored.is_err() {
                    recv.stop(StreamCode::Refused);
                    return Some(self.status_reply(unit));
                }
                if unit.seen().report.outcome().is_some() {
                    // It was cancelled, or has expired.
                    recv.stop(StreamCode::Refused);
                    return Some(self.status_reply(unit));
                }
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        if offset < unit.spec.payload_len {
            return None;
        }
        let (paths, spec) = (unit.paths.clone(), unit.spec.clone());
        let checked =
            self.blocking(move || paths.complete_payload(spec.payload_len, &spec.payload_sha256));
        let input = match checked.await {
            Ok(Ok(true)) => ExecutorInput::Complete,
            Ok(Ok(false)) => ExecutorInput::Corrupt,
            Ok(Err(error)) => return busy(self.disk_failed(&error)),
            Err(UnitError::ShutDown | UnitError::Removed | UnitError::Disk(_)) => return None,
        };
        Some(self.feed_and_reply(unit, input).await)
    }
}

/// Opens the file of a payload, which may hold the beginning of it.
fn open_payload(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}
