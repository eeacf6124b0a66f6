//! An attempt of a unit whose directive is handled by a function of this process.
//!
//! The node is its own supervisor then: it holds the lock, writes the outputs, and records the end.
//! What it runs ends with it. A restarted node finds the lock free and no record, and the unit is
//! lost unless it is idempotent.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::super::super::call::{Call, CallError, CallOptions, call};
use super::super::executor::{Exit, ExitKind};
use super::super::job::{Channel, ExitRecord, Usage};
use super::super::store::faults::{before_write, write_at};
use super::super::store::make_dir_unsynced;
use super::error::UnitError;
use super::in_unit::InUnit;
use super::shared::Shared;
use crate::id::ServiceName;
use crate::mesh::data_dir::datadir::replace;
use crate::mesh::services::usage::Purpose;
use crate::mesh::{self, Listener};
use crate::transport::random;

/// How much of the payload is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// The output of a handler.
struct Written {
    path: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
}

impl Shared {
    /// Begins an attempt, and calls the handler. Blocks on the disk.
    pub(super) fn run_handler(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        attempt: u32,
    ) -> Result<(), String> {
        let begin = || {
            let dir = unit.paths.attempt_path(attempt);
            make_dir_unsynced(&dir)?;
            let lock = unit.paths.lock()?;
            // Creating the outputs would truncate those of an attempt that was begun.
            if unit.paths.is_begun(attempt)? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let out = Written::create(&dir.join("stdout"))?;
            Written::create(&dir.join("stderr"))?;
            unit.paths.begin(attempt, std::process::id())?;
            Ok((lock, out))
        };
        let (lock, out) =
            begin().map_err(|error: io::Error| format!("cannot begin the attempt: {error}"))?;
        let (shared, unit) = (self.clone(), unit.clone());
        self.spawn(async move {
            let dir = unit.paths.attempt_path(attempt);
            let out = Arc::new(Mutex::new(out));
            let exit = shared.call_handler(&unit, &dir, &out).await;
            // A write that a cancellation has overtaken is finished first: it holds the lock.
            let out = out.lock_owned().await;
            let exit = match exit {
                Some(exit) if shared.put_off(&unit, attempt, &exit).await => None,
                exit => exit,
            };
            if let Some(exit) = exit {
                let end = (dir, exit, out);
                let recorded =
                    shared.write_when_possible(end, |(dir, exit, out)| record(dir, exit, out));
                if let Err(UnitError::Disk(error)) = recorded.await {
                    tracing::warn!(unit = %unit.key, error, "could not record the end of a unit");
                }
            }
            drop(lock);
            // Had the record failed, the free lock says that the end is not known.
            unit.pulse().file_came();
        });
        Ok(())
    }

    /// Calls the handler. `None` if it is unknown whether it ran.
    async fn call_handler(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        dir: &Path,
        out: &Arc<Mutex<Written>>,
    ) -> Option<Exit> {
        let exit = |end| Exit { end, terminated: false };
        let call = match self.open_call(unit).await {
            Ok(call) => call,
            Err(text) => return Some(exit(ExitKind::NotStarted(text))),
        };
        let limit = self.limits().max_output;
        tokio::select! {
            biased;
            () = terminated(unit, dir) => Some(Exit { end: ExitKind::Signal(15), terminated: true }),
            end = exchange(self, unit, call, out, limit) => end.map(exit),
        }
    }

    /// Undoes the beginning of an attempt whose handler was not called because the node is shutting
    /// down. Returns whether that succeeded: the node's next run begins the attempt again.
    async fn put_off(&self, unit: &InUnit, attempt: u32, exit: &Exit) -> bool {
        if !self.is_draining() || !matches!(exit.end, ExitKind::NotStarted(_)) {
            return false;
        }
        let paths = unit.paths.clone();
        matches!(self.blocking(move || paths.undo_begin(attempt)).await, Ok(Ok(())))
    }

    /// Writes to the disk. While that is full it is tried again.
    async fn write_when_possible<T: Send + 'static>(
        &self,
        mut what: T,
        write: fn(&mut T) -> io::Result<()>,
    ) -> Result<(), UnitError> {
        loop {
            let written = self.blocking(move || {
                let written = write(&mut what);
                (what, written)
            });
            let (back, written) = written.await?;
            what = back;
            let Err(error) = written else { return Ok(()) };
            self.disk_failed(&error);
            if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Err(error.into());
            }
            tokio::time::sleep(super::DISK_RETRY).await;
        }
    }

    async fn open_call(&self, unit: &InUnit) -> Result<Call, String> {
        let run_for = unit.spec.run_for_ms.map(Duration::from_millis);
        let deadline = run_for.into_iter().chain(self.limits().max_run_for).min();
        let mesh = self.mesh().map_err(|error| error.to_string())?;
        let stream = mesh
            .open(mesh.id(), &handler_service(), mesh::OpenOptions::default(), Purpose::Application)
            .await;
        let mut stream = stream.map_err(|error| error.to_string())?.uncounted();
        let token = Uuid::from_bytes(random::bytes());
        self.guests.admit(token, &unit.key.submitter);
        stream.send.write_all(token.as_bytes()).await.map_err(|error| error.to_string())?;
        let options = CallOptions { deadline, ..CallOptions::default() };
        let called = call(stream, unit.spec.directive.clone(), unit.key.id, options).await;
        called.map_err(|error| error.to_string())
    }

    /// Serves the calls that this node makes to itself for the sake of submitters.
    pub(super) async fn serve_handlers(self: Arc<Self>, mut listener: Listener) {
        while let Some(incoming) = listener.accept().await {
            let shared = self.clone();
            self.spawn(async move {
                let mut stream = incoming.stream;
                let mut token = [0; 16];
                let own = incoming.peer == shared.own_id;
                if !own || stream.recv.read_exact(&mut token).await.is_err() {
                    return;
                }
                // The handler sees who has submitted the unit.
                if let Some(submitter) = shared.guests.take(&Uuid::from_bytes(token)) {
                    shared.registry.serve(submitter, stream).await;
                }
            });
        }
    }
}

/// The service by which a node calls its own handlers for units. Nobody else is served.
pub(super) fn handler_service() -> ServiceName {
    ServiceName::try_from("unit-handler").expect("the name is valid")
}

/// Waits until somebody asks for the end of the attempt.
async fn terminated(unit: &InUnit, dir: &Path) {
    let pulse = unit.pulse();
    let mut seen = pulse.terminations();
    while !dir.join("terminate").exists() {
        tokio::select! {
            changed = seen.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
            () = pulse.poll() => {}
        }
    }
}

/// Sends the payload, and writes what comes back.
async fn exchange(
    shared: &Arc<Shared>,
    unit: &Arc<InUnit>,
    call: Call,
    out: &Arc<Mutex<Written>>,
    limit: u64,
) -> Option<ExitKind> {
    let (mut writer, mut responses) = call.split();
    let paths = unit.paths.clone();
    let sending = async {
        let unreadable =
            |error: io::Error| ExitKind::Handler(format!("cannot read the payload: {error}"));
        if unit.spec.payload_len == 0 {
            writer.finish();
            return Ok(());
        }
        let mut file = File::open(paths.payload_path()).map_err(unreadable)?;
        loop {
            let piece = shared.blocking(move || {
                let mut piece = BytesMut::zeroed(PIECE);
                let len = file.read(&mut piece)?;
                Ok((file, piece.split_to(len).freeze()))
            });
            // Without a thread to read it the node is shutting down, which ends the call.
            let Ok(read) = piece.await else { return Ok(()) };
            let (back, piece) = read.map_err(unreadable)?;
            file = back;
            if piece.is_empty() {
                writer.finish();
                return Ok(());
            }
            // The handler may not want all of it.
            if writer.write_chunk(piece).await.is_err() {
                return Ok(());
            }
        }
    };
    let receiving = async {
        loop {
            match responses.next().await {
                Ok(Some(response)) => {
                    let out = out.clone().lock_owned().await;
                    if out.len + response.body.len() as u64 > limit {
                        return Some(ExitKind::OutputLimit);
                    }
                    // A full disk slows the handler down: its responses are not read meanwhile.
                    let written = shared
                        .write_when_possible((out, response.body), |(out, body)| out.append(body));
                    if let Err(UnitError::Disk(error)) = written.await {
                        return Some(ExitKind::Handler(format!(
                            "cannot write the output: {error}"
                        )));
                    }
                }
                Ok(None) => return Some(ExitKind::Status(0)),
                Err(error) => return how(&error),
            }
        }
    };
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    tokio::select! {
        end = &mut receiving => end,
        sent = &mut sending => match sent {
            Ok(()) => receiving.await,
            Err(end) => Some(end),
        },
    }
}

/// How a call has ended. `None` if nobody knows whether the handler ran.
fn how(error: &CallError) -> Option<ExitKind> {
    match error {
        CallError::Deadline => Some(ExitKind::RunTime),
        CallError::Failed { error, .. } => Some(ExitKind::Handler(error.clone())),
        CallError::Panicked => Some(ExitKind::Handler(error.to_string())),
        error if !error.may_have_started() => Some(ExitKind::NotStarted(error.to_string())),
        _ => None,
    }
}

impl Written {
    fn create(path: &Path) -> io::Result<Self> {
        before_write(path)?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, len: 0, hash: Sha256::new() })
    }

    /// Appends a piece, and removes from it what was written. After an error the rest may be tried
    /// again, or never: what was written counts at once.
    fn append(&mut self, piece: &mut Bytes) -> io::Result<()> {
        while !piece.is_empty() {
            match write_at(&self.file, &self.path, piece, self.len) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.hash.update(&piece[..written]);
                    self.len += written as u64;
                    piece.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn record(dir: &Path, exit: &Exit, out: &Written) -> io::Result<()> {
    before_write(dir)?;
    if out.len > 0 {
        out.file.sync_all()?;
    }
    let record = ExitRecord {
        exit: exit.clone(),
        stdout: Channel { len: out.len, sha256: out.hash.clone().finalize().into() },
        stderr: Channel { len: 0, sha256: Sha256::digest(b"").into() },
        usage: Usage::default(),
    };
    replace(&dir.join("exit"), &rmp_serde::to_vec(&record).map_err(io::Error::other)?)
}
