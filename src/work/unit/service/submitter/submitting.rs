//! Writing a unit to disk, at its submitter.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use uuid::Uuid;

use super::claim::Claim;
use super::out_unit::OutUnit;
use crate::work::unit::api::{PayloadSource, UnitId};
use crate::work::unit::api::{Submission, SubmitError, UnitPayload};
use crate::work::unit::machine::submitter::SubmitterUnit;
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::spec::UnitSpec;
use crate::work::unit::store::ReservedDir;
use crate::work::unit::store::faults::{before_write, write_all_at};

/// How much of a payload is read at a time, in bytes.
const PIECE: usize = 256 * 1024;

impl From<UnitError> for SubmitError {
    fn from(error: UnitError) -> Self {
        match error {
            UnitError::ShutDown => Self::ShutDown,
            other => Self::Disk(other.to_string()),
        }
    }
}

/// A payload and where it goes.
struct Copying {
    /// `None` if it is only hashed.
    to: Option<(File, PathBuf)>,
    hash: Sha256,
    len: u64,
}

impl Copying {
    fn new(to: Option<(File, PathBuf)>) -> Self {
        Self { to, hash: Sha256::new(), len: 0 }
    }

    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some((file, path)) = &self.to {
            write_all_at(file, path, piece, self.len)?;
        }
        self.hash.update(piece);
        self.len += piece.len() as u64;
        Ok(())
    }
}

impl Shared {
    /// Submits a unit, and returns once it is on disk.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        submission: Submission,
    ) -> Result<Arc<OutUnit>, SubmitError> {
        if self.is_closed() {
            return Err(SubmitError::ShutDown);
        }
        let id = submission.id.unwrap_or_else(Uuid::now_v7);
        let (mut spec, node, payload) = parts(submission);
        spec.check()?;
        let claimed = match self.claim(id).await {
            Claim::Full => return Err(SubmitError::TooMany { max: self.limits().max_submitted }),
            Claim::Free(claimed) => claimed,
            Claim::Taken(unit) => {
                let copied = self.copy(payload, Copying::new(None)).await?;
                seal(&mut spec, copied);
                let core = unit.core.lock().await;
                let same = unit.node == node && core.machine.spec().hash() == spec.hash();
                drop(core);
                return if same { Ok(unit) } else { Err(SubmitError::Conflict { id: UnitId(id) }) };
            }
        };
        if self.is_poisoned() {
            return Err(SubmitError::Disk("the disk has failed before".to_owned()));
        }
        // Each closure holds the claim: it runs to its end even if this future is dropped, and
        // no other submission may use the directory before.
        let shared = self.clone();
        let unit = match payload.0 {
            // One trip to a blocking thread for what is in memory.
            PayloadSource::Bytes(bytes) => {
                let written = self.blocking(move || {
                    let (reserved, mut copying) = if bytes.is_empty() {
                        // An empty payload has no file.
                        (shared.store.reserve_outgoing(id)?, Copying::new(None))
                    } else {
                        shared.reserve(id)?
                    };
                    copying.take(&bytes)?;
                    let unit = shared.queue(reserved, id, node, spec, copying);
                    drop(claimed);
                    unit
                });
                written.await?
            }
            _ => {
                let reserved = self.blocking(move || (shared.reserve(id), claimed)).await?;
                // Declared in this order: the directory is removed before the claim is given up.
                let (reserved, claimed) = reserved;
                let (reserved, copying) = reserved.map_err(|error| self.not_stored(&error))?;
                let copied = self.copy(payload, copying).await?;
                let shared = self.clone();
                let written = self.blocking(move || {
                    let unit = shared.queue(reserved, id, node, spec, copied);
                    drop(claimed);
                    unit
                });
                written.await?
            }
        };
        let unit = unit.map_err(|error| self.not_stored(&error))?;
        self.disk_worked();
        Ok(unit)
    }

    fn not_stored(&self, error: &io::Error) -> SubmitError {
        self.disk_failed(error);
        SubmitError::Disk(error.to_string())
    }

    /// Makes the unit's directory, and the file of its payload.
    fn reserve(&self, id: Uuid) -> io::Result<(ReservedDir, Copying)> {
        let reserved = self.store.reserve_outgoing(id)?;
        let mut options = OpenOptions::new();
        let path = reserved.paths().payload_path();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((reserved, Copying::new(Some((file, path)))))
    }

    /// Syncs the payload, begins the journal, and lets the unit go its way.
    fn queue(
        self: &Arc<Self>,
        reserved: ReservedDir,
        id: Uuid,
        node: crate::NodeId,
        mut spec: UnitSpec,
        mut copied: Copying,
    ) -> io::Result<Arc<OutUnit>> {
        if let Some((file, path)) = copied.to.take().filter(|_| copied.len > 0) {
            before_write(&path)?;
            file.sync_all()?;
        }
        seal(&mut spec, copied);
        let (machine, step) = SubmitterUnit::queued(node, spec, self.clock.now());
        let dir = reserved.begin(&step.entries)?;
        let unit = Arc::new(OutUnit::new(&self.node, id, machine, dir));
        self.admit_out(&unit);
        Ok(unit)
    }

    /// Adds a unit to the table, and has it handed over.
    pub(in crate::work::unit::service) fn admit_out(self: &Arc<Self>, unit: &Arc<OutUnit>) {
        self.outgoing.insert(unit);
        let Ok(core) = unit.core.try_lock() else { return };
        self.outgoing.deadlines.set(&unit.id, core.machine.deadline());
        self.note_live(unit, !core.machine.is_settled());
    }

    /// Copies a payload, and hashes it.
    async fn copy(
        &self,
        payload: UnitPayload,
        mut copying: Copying,
    ) -> Result<Copying, SubmitError> {
        let mut reader: Box<dyn AsyncRead + Send + Unpin> = match payload.0 {
            PayloadSource::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            PayloadSource::Reader(reader) => reader,
            PayloadSource::File(path) => {
                let file = tokio::fs::File::open(&path).await;
                Box::new(file.map_err(|error| {
                    SubmitError::Payload(format!("{}: {error}", path.display()))
                })?)
            }
        };
        loop {
            let piece = read_piece(&mut reader).await?;
            if piece.is_empty() {
                return Ok(copying);
            }
            let copied = self.blocking(move || copying.take(&piece).map(|()| copying)).await?;
            copying = copied.map_err(|error| self.not_stored(&error))?;
        }
    }
}

/// Reads until a piece is full, or the reader at its end.
async fn read_piece(reader: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, SubmitError> {
    let mut piece = BytesMut::with_capacity(PIECE);
    while piece.len() < PIECE {
        let read = reader.read_buf(&mut piece).await;
        if read.map_err(|error| SubmitError::Payload(error.to_string()))? == 0 {
            break;
        }
    }
    Ok(piece.freeze())
}

fn parts(submission: Submission) -> (UnitSpec, crate::NodeId, UnitPayload) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let spec = UnitSpec {
        directive: submission.directive,
        payload_len: 0,
        payload_sha256: [0; 32],
        start_by_ms: ms(submission.start_by),
        run_for_ms: submission.run_for.map(ms),
        keep_for_ms: ms(submission.keep_for),
        idempotent: submission.idempotent,
        labels: submission.labels,
    };
    (spec, submission.node, submission.payload)
}

fn seal(spec: &mut UnitSpec, copied: Copying) {
    spec.payload_len = copied.len;
    spec.payload_sha256 = copied.hash.finalize().into();
}
