//! Sending what a unit's command writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::serving::{answer, write};
use crate::mesh::SendHalf;
use crate::work::unit::key::UnitKey;
use crate::work::unit::service::executor::in_unit::InUnit;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::unit_output::UnitOutput;
use crate::work::unit::wire::{MAX_DATA, OutputRequest, Reply};

/// How much is read at a time, in bytes: a few frames, so that fast readers cost few trips to a
/// blocking thread.
const PIECE: usize = 4 * MAX_DATA;

/// What one attempt has written.
struct Source {
    attempt: u32,
    output: UnitOutput,
    file: Option<Arc<File>>,
}

impl Shared {
    /// Sends an output from an offset on and, if that is wanted, what is written later.
    pub(in crate::work::unit::service) async fn serve_output(
        self: &Arc<Self>,
        key: &UnitKey,
        request: OutputRequest,
        send: &mut SendHalf,
    ) {
        let (store, id) = (self.store_id(), key.id);
        let Some(unit) = self.incoming.get(key) else {
            let known = self.store.tombstone(key).is_some();
            let reply =
                if known { Reply::Released { store, id } } else { Reply::Unknown { store, id } };
            return answer(send, &reply).await;
        };
        let (mut seen, mut grown) = (unit.watch(), unit.pulse().output());
        let mut source = Source { attempt: request.attempt, output: request.output, file: None };
        let mut offset = request.offset;
        loop {
            // In this order: what is written before the end is published is read after that.
            grown.mark_unchanged();
            let now = seen.borrow_and_update().clone();
            if now.removed {
                return answer(send, &Reply::Released { store, id }).await;
            }
            if now.attempt != source.attempt {
                // A first request names no attempt, and its offset is that of the only one.
                if source.attempt != 0 {
                    offset = 0;
                }
                (source.attempt, source.file) = (now.attempt, None);
            }
            let is_final = now.report.outcome().is_some();
            match self.send_all(&unit, &mut source, &mut offset, send).await {
                Ok(()) => {}
                Err(Stopped::Disk(error)) => {
                    tracing::warn!(unit = %key, %error, "cannot read the output of a unit");
                    return;
                }
                Err(Stopped::Stream) => return,
            }
            if is_final || !request.follow {
                let sha256 = self.digest(&unit, &source, is_final).await;
                let end = Reply::End { attempt: source.attempt, len: offset, sha256 };
                return answer(send, &end).await;
            }
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return },
                changed = seen.changed() => if changed.is_err() { return },
                () = unit.pulse().poll() => {}
                // The submitter has gone.
                _ = send.stopped() => return,
            }
        }
    }

    /// Sends all that is there.
    async fn send_all(
        &self,
        unit: &InUnit,
        source: &mut Source,
        offset: &mut u64,
        send: &mut SendHalf,
    ) -> Result<(), Stopped> {
        if source.attempt == 0 {
            return Ok(());
        }
        loop {
            let bytes = self.read(unit, source, *offset).await?;
            if bytes.is_empty() {
                return Ok(());
            }
            for start in (0..bytes.len()).step_by(MAX_DATA) {
                let piece = bytes.slice(start..bytes.len().min(start + MAX_DATA));
                let len = piece.len() as u64;
                let data = Reply::Data { attempt: source.attempt, offset: *offset, bytes: piece };
                write(send, &data).await.map_err(|_| Stopped::Stream)?;
                *offset += len;
            }
        }
    }

    async fn read(
        &self,
        unit: &InUnit,
        source: &mut Source,
        offset: u64,
    ) -> Result<Bytes, Stopped> {
        let name = match source.output {
            UnitOutput::Stdout => "stdout",
            UnitOutput::Stderr => "stderr",
        };
        let path = unit.paths.attempt_path(source.attempt).join(name);
        let open = source.file.clone();
        let read = self.blocking(move || {
            let file = match open {
                Some(file) => file,
                None => match File::open(path) {
                    Ok(file) => Arc::new(file),
                    // The attempt was not begun yet, or never was.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok((None, Bytes::new()));
                    }
                    Err(error) => return Err(error),
                },
            };
            let mut bytes = BytesMut::zeroed(PIECE);
            let len = file.read_at(&mut bytes, offset)?;
            bytes.truncate(len);
            Ok((Some(file), bytes.freeze()))
        });
        let read = read.await.map_err(|_| Stopped::Stream)?;
        let (file, bytes) = read.map_err(Stopped::Disk)?;
        source.file = file;
        Ok(bytes)
    }

    /// The digest that the supervisor has recorded.
    async fn digest(&self, unit: &InUnit, source: &Source, is_final: bool) -> Option<[u8; 32]> {
        if !is_final || source.attempt == 0 {
            return None;
        }
        let (paths, attempt) = (unit.paths.clone(), source.attempt);
        let record = self.blocking(move || paths.exit(attempt)).await.ok()?.ok()??;
        Some(match source.output {
            UnitOutput::Stdout => record.stdout.sha256,
            UnitOutput::Stderr => record.stderr.sha256,
        })
    }
}

/// Why no more is sent.
enum Stopped {
    /// The stream has ended, or the node is gone.
    Stream,
    Disk(io::Error),
}
