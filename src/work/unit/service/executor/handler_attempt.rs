//! An attempt of a unit whose directive is handled by a function of this process.
//!
//! The journal takes the place of the files by which a supervisor reports: it says that the handler
//! is about to be called, and how it ended. What a handler runs ends with this process. A restarted
//! node finds a journal without an end, and the unit is lost unless it is idempotent.

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

use super::in_unit::{InCore, InUnit};
use crate::id::ServiceName;
use crate::mesh::data_dir::datadir::replace;
use crate::mesh::services::usage::Purpose;
use crate::mesh::{self, Listener};
use crate::transport::random;
use crate::work::call::{Call, CallError, CallOptions, call};
use crate::work::unit::job::{Channel, ExitRecord, Usage};
use crate::work::unit::machine::executor::{ExecutorInput, Exit, ExitKind};
use crate::work::unit::outcome::ReportState;
use crate::work::unit::service::error::UnitError;
use crate::work::unit::service::shared::Shared;
use crate::work::unit::store::faults::{before_write, write_at};
use crate::work::unit::store::{make_dir_unsynced, sync_parent};

/// How much of the payload is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// The output of a handler. Its file is created with the first byte.
struct Written {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    hash: Sha256,
}

/// A handler's attempt that has not ended. Dropped, it has, or the node is gone.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn enter(shared: &Arc<Shared>) -> Self {
        shared.handlers.send_modify(|count| *count += 1);
        Self(shared.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.handlers.send_modify(|count| *count -= 1);
    }
}

impl Shared {
    /// Has an attempt run by a handler. Blocks on the disk.
    pub(in crate::work::unit::service) fn run_handler(
        self: &Arc<Self>,
        unit: &Arc<InUnit>,
        core: &mut InCore,
        attempt: u32,
    ) -> Result<(), String> {
        let begin = || {
            // It says that the attempt is in hand when the unit is recovered after a failed write.
            let lock = unit.paths.lock()?;
            // A supervisor may have run it when the directive was that of a command.
            let is_begun = unit.paths.is_begun(attempt)?;
            if is_begun { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(lock) }
        };
        let lock =
            begin().map_err(|error: io::Error| format!("cannot begin the attempt: {error}"))?;
        core.watched = Some(attempt);
        let (shared, unit, in_flight) = (self.clone(), unit.clone(), InFlight::enter(self));
        self.spawn(async move {
            shared.handle_attempt(&unit, attempt).await;
            drop((lock, in_flight));
        });
        Ok(())
    }

    /// Journals that the handler is called, calls it, and journals how it ended.
    async fn handle_attempt(self: &Arc<Self>, unit: &Arc<InUnit>, attempt: u32) {
        if self.is_draining() {
            // The journal says that the attempt is due: the node's next run starts it.
            return;
        }
        self.feed_until_taken(unit, ExecutorInput::Calling { attempt }).await;
        let seen = unit.seen();
        if seen.removed || seen.attempt != attempt || seen.report.state != ReportState::Running {
            return;
        }
        let dir = unit.paths.attempt_path(attempt);
        let out = Arc::new(Mutex::new(Written::new(dir.join("stdout"))));
        let exit = self.call_handler(unit, &dir, &out).await;
        // A write that a cancellation has overtaken is finished first: it holds the lock.
        let out = out.lock_owned().await;
        let input = match exit {
            Some(exit) if self.is_draining() && matches!(exit.end, ExitKind::NotStarted(_)) => {
                ExecutorInput::NotCalled { attempt }
            }
            Some(exit) => {
                let end = (dir, exit.clone(), out);
                let recorded =
                    self.write_when_possible(end, |(dir, exit, out)| record(dir, exit, out));
                match recorded.await {
                    Ok(()) => ExecutorInput::Exited { attempt, exit },
                    Err(UnitError::Disk(error)) => {
                        tracing::warn!(unit = %unit.key, error, "could not record the output of a unit");
                        ExecutorInput::Vanished { attempt }
                    }
                    Err(UnitError::ShutDown | UnitError::Removed) => return,
                }
            }
            // It was cut off. The node's next run decides what becomes of the unit.
            None if self.is_draining() => return,
            None => ExecutorInput::Vanished { attempt },
        };
        self.feed_until_taken(unit, input).await;
    }

    /// Waits until the ends of all handlers are recorded.
    pub(in crate::work::unit::service) async fn handlers_ended(&self) {
        // An error is impossible: the sender is part of this.
        let _ = self.handlers.subscribe().wait_for(|count| *count == 0).await;
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
            tokio::time::sleep(crate::work::unit::service::DISK_RETRY).await;
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
    pub(in crate::work::unit::service) async fn serve_handlers(
        self: Arc<Self>,
        mut listener: Listener,
    ) {
        while let Some(incoming) = listener.accept().await {
            let shared = self.clone();
            self.spawn(async move {
                let mut incoming = incoming;
                let mut token = [0; 16];
                let own = incoming.peer == shared.own_id;
                if !own || incoming.stream.recv.read_exact(&mut token).await.is_err() {
                    return;
                }
                // The handler sees who has submitted the unit.
                if let Some(submitter) = shared.guests.take(&Uuid::from_bytes(token)) {
                    incoming.peer = submitter;
                    shared.registry.serve(incoming).await;
                }
            });
        }
    }
}

/// The service by which a node calls its own handlers for units. Other nodes are refused.
pub(in crate::work::unit::service) fn handler_service() -> ServiceName {
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
                    match written.await {
                        Err(UnitError::Disk(error)) => {
                            let text = format!("cannot write the output: {error}");
                            return Some(ExitKind::Handler(text));
                        }
                        Ok(()) | Err(_) => unit.pulse().output_grew(),
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

/// How a call has ended. `None` if it is unknown whether the handler ran.
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
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, len: 0, hash: Sha256::new() }
    }

    /// The file, which is created if missing.
    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            before_write(&self.path)?;
            self.path.parent().map_or(Ok(true), make_dir_unsynced)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            self.file = Some(options.open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Appends a piece, and removes from it what was written. After an error the rest may be tried
    /// again, or never: what was written counts at once.
    fn append(&mut self, piece: &mut Bytes) -> io::Result<()> {
        while !piece.is_empty() {
            let (path, len) = (self.path.clone(), self.len);
            match write_at(self.file()?, &path, piece, len) {
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

/// Syncs the output, and records its digest. One that is empty needs neither.
fn record(dir: &Path, exit: &Exit, out: &Written) -> io::Result<()> {
    let Some(file) = &out.file else { return Ok(()) };
    before_write(dir)?;
    file.sync_all()?;
    sync_parent(dir)?;
    let record = ExitRecord {
        exit: exit.clone(),
        stdout: Channel { len: out.len, sha256: out.hash.clone().finalize().into() },
        stderr: Channel { len: 0, sha256: Sha256::digest(b"").into() },
        usage: Usage::default(),
    };
    replace(&dir.join("exit"), &rmp_serde::to_vec(&record).map_err(io::Error::other)?)
}
