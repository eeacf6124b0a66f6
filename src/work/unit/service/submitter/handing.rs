//! One request to an executor, at the submitter.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::out_unit::OutUnit;
use super::session::{SessionEnd, next_reply, open};
use crate::mesh::SendHalf;
use crate::work::frame::FrameReader;
use crate::work::unit::machine::entry::StoreId;
use crate::work::unit::machine::submitter::{Request, SubmitterEffect, SubmitterInput};
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::wire::{Reply, UnitRequest};

/// How much of a payload is read at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// How long to wait before an executor is asked again that did not answer, or has no room.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Why a request has failed.
enum Failed {
    Stream(SessionEnd),
    Unit(UnitError),
    /// The executor has no room now, or wants the payload again; or the unit ended meanwhile.
    Again,
}

impl From<SessionEnd> for Failed {
    fn from(end: SessionEnd) -> Self {
        Self::Stream(end)
    }
}

impl From<UnitError> for Failed {
    fn from(error: UnitError) -> Self {
        Self::Unit(error)
    }
}

impl Shared {
    /// Sends a request, and feeds what is answered. Asks again if that fails.
    pub(in crate::work::unit::service) async fn ask(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        request: Request,
    ) {
        let Err(failed) = self.try_ask(unit, request).await else { return };
        match failed {
            Failed::Unit(UnitError::Removed | UnitError::ShutDown) => return,
            Failed::Unit(UnitError::Disk(error)) => {
                tracing::warn!(unit = %unit.id, error, "could not record the state of a unit; asking again");
            }
            Failed::Stream(SessionEnd::Lost(why)) => {
                tracing::debug!(unit = %unit.id, why, "could not hand a unit over; trying again");
            }
            Failed::Stream(SessionEnd::Idle | SessionEnd::NoUnits | SessionEnd::NotAllowed)
            | Failed::Again => {}
        }
        self.ask_again(unit, ASK_AGAIN).await;
    }

    /// Has a unit ask again after a while.
    pub(in crate::work::unit::service) async fn ask_again(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        after: Duration,
    ) {
        // An error means that there is nothing left to ask, or that it will be tried again.
        let _ = self.feed_out(unit, SubmitterInput::Down).await;
        tokio::time::sleep(after).await;
        let _ = self.feed_out(unit, SubmitterInput::Up).await;
    }

    async fn try_ask(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        request: Request,
    ) -> Result<(), Failed> {
        let id = unit.id;
        let request = match request {
            Request::Offer { start_within_ms } => {
                let spec = Box::new(unit.core.lock().await.machine.spec().clone());
                UnitRequest::Offer { id, start_within_ms, spec }
            }
            Request::Cancel { grace_ms, start_within_ms } => {
                UnitRequest::Cancel { id, grace_ms, start_within_ms }
            }
            Request::Release { force } => UnitRequest::Release { id, force },
            // It is asked for on the session's own stream.
            Request::Watch => return Ok(()),
        };
        let (mut send, mut reader) = open(&self.mesh()?, &unit.node, &request).await?;
        let is_offer = matches!(request, UnitRequest::Offer { .. });
        if !is_offer {
            send.finish();
        }
        let left = self.feed_reply(unit, next_reply(&mut reader).await?).await?;
        for effect in left {
            if let SubmitterEffect::SendPayload { offset, store } = effect {
                self.send_payload(unit, offset, store, &mut send, &mut reader).await?;
            }
        }
        Ok(())
    }

    /// Feeds a reply. Returns what follows on the same stream.
    async fn feed_reply(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        reply: Reply,
    ) -> Result<Vec<SubmitterEffect>, Failed> {
        let busy = matches!(reply, Reply::Busy { .. });
        let understood = self.understand(&unit.node, reply);
        let Some((_, store, answer)) = understood.filter(|(of, ..)| of.id == unit.id) else {
            return Err(SessionEnd::Lost("an answer that was not asked for".to_owned()).into());
        };
        let left = self.feed_out(unit, SubmitterInput::Answer { store, answer }).await?;
        if busy { Err(Failed::Again) } else { Ok(left) }
    }

    async fn send_payload(
        self: &Arc<Self>,
        unit: &Arc<OutUnit>,
        mut offset: u64,
        store: StoreId,
        send: &mut SendHalf,
        reader: &mut FrameReader,
    ) -> Result<(), Failed> {
        let (path, len) = {
            let core = unit.core.lock().await;
            (core.dir.paths().payload_path(), core.machine.spec().payload_len)
        };
        // An empty payload was not synced.
        let mut open = match len {
            0 => None,
            _ => Some(self.blocking(move || File::open(path)).await?.map_err(UnitError::from)?),
        };
        while let Some(file) = open.take() {
            unit.publish_handed(offset);
            if unit.is(|status| status.is_final()) {
                // It was cancelled or released meanwhile. A release is still due.
                return Err(Failed::Again);
            }
            let (file, piece) = self.read_piece(file, offset).await?;
            if piece.is_empty() {
                break;
            }
            open = Some(file);
            offset += piece.len() as u64;
            if send.write_chunk(piece).await.is_err() {
                // The executor wants no more, and says why.
                return self.feed_reply(unit, next_reply(reader).await?).await.map(drop);
            }
        }
        let left = self.feed_out(unit, SubmitterInput::PayloadSent { store }).await?;
        if !left.contains(&SubmitterEffect::Finish) {
            return Err(Failed::Again);
        }
        send.finish();
        let left = self.feed_reply(unit, next_reply(reader).await?).await?;
        if left.is_empty() { Ok(()) } else { Err(Failed::Again) }
    }

    async fn read_piece(&self, file: File, offset: u64) -> Result<(File, Bytes), UnitError> {
        let read = self.blocking(move || {
            let mut piece = BytesMut::zeroed(PIECE);
            let len = file.read_at(&mut piece, offset)?;
            piece.truncate(len);
            Ok::<_, std::io::Error>((file, piece.freeze()))
        });
        Ok(read.await??)
    }
}
