//! The files of one unit beside its log: the payload, and what there is of each attempt.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
#[cfg(test)]
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::job::{ExitRecord, Job};
use super::faults::before_write;
use super::files::{create_exclusively, make_dir, make_dir_unsynced, sync_parent};
use crate::mesh::data_dir::datadir::replace;
use crate::work::unit::machine::executor::{Found, RunFile};

/// What a `run` file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Run {
    /// A supervisor runs the attempt. The process id is for people and for signals; the lock says
    /// whether it lives.
    Supervisor { pid: u32 },
    /// The node has made the attempt void.
    Fence,
}

/// The files of one unit beside its log.
#[derive(Clone, Debug)]
pub(crate) struct UnitPaths(Box<Path>);

impl UnitPaths {
    /// The files in a unit's directory.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// The unit's directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a part of the payload. It is synced by [`complete_payload`](Self::complete_payload).
    #[cfg(test)]
    pub(crate) fn write_payload(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.payload_path())?;
        file.write_all_at(bytes, offset)
    }

    /// How much of the payload there is, in bytes.
    pub(crate) fn payload_len(&self) -> io::Result<u64> {
        match fs::metadata(self.payload_path()) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Syncs the payload to disk, and says whether it has this length and digest. One that has not
    /// is removed.
    pub(crate) fn complete_payload(&self, len: u64, sha256: &[u8; 32]) -> io::Result<bool> {
        let path = self.payload_path();
        if len == 0 && self.payload_len()? == 0 {
            // It is not read.
            return Ok(Sha256::digest(b"")[..] == sha256[..]);
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        before_write(&path)?;
        file.sync_all()?;
        sync_parent(&path)?;
        let mut hash = Sha256::new();
        let mut piece = vec![0; 256 * 1024];
        let mut read = 0;
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                break;
            }
            hash.update(&piece[..n]);
            read += n as u64;
        }
        let found: [u8; 32] = hash.finalize().into();
        let matches = read == len && found == *sha256;
        if !matches {
            fs::remove_file(&path)?;
        }
        Ok(matches)
    }

    /// Makes an attempt void unless it has begun. Returns whether that succeeded.
    pub(crate) fn fence(&self, attempt: u32) -> io::Result<bool> {
        match self.create_run(attempt, &Run::Fence) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.found(attempt)?.run == RunFile::Fence)
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves the job of an attempt for its supervisor. It is not synced: the supervisor would not
    /// survive a power failure either, and for a new one the job is written again.
    pub(crate) fn write_job(&self, attempt: u32, job: &Job) -> io::Result<()> {
        let dir = self.attempt_path(attempt);
        make_dir_unsynced(&dir)?;
        before_write(&dir)?;
        let bytes = rmp_serde::to_vec(job).map_err(io::Error::other)?;
        // A supervisor may be reading the one before.
        let beside = dir.join("job.new");
        fs::write(&beside, bytes)?;
        fs::rename(&beside, dir.join("job"))
    }

    /// Asks the supervisor to terminate the command: SIGTERM now, SIGKILL after the grace. A
    /// supervisor that does not run yet finds the request when it begins.
    pub(crate) fn request_termination(&self, attempt: u32, grace_ms: u64) -> io::Result<()> {
        let dir = self.attempt_path(attempt);
        make_dir(&dir)?;
        before_write(&dir)?;
        replace(&dir.join("terminate"), grace_ms.to_string().as_bytes())
    }

    /// Begins an attempt, as its supervisor, which must hold the [lock](Self::lock).
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if it was begun or made void: the command
    /// must not be executed.
    pub(crate) fn begin(&self, attempt: u32, pid: u32) -> io::Result<()> {
        self.create_run(attempt, &Run::Supervisor { pid })
    }

    /// Whether an attempt was begun or made void. The answer is final for a caller that holds the
    /// [lock](Self::lock), except that the node may still make the attempt void.
    pub(crate) fn is_begun(&self, attempt: u32) -> io::Result<bool> {
        self.attempt_path(attempt).join("run").try_exists()
    }

    /// The process that runs an attempt, or ran it. `None` if it was not begun, or was made void.
    pub(crate) fn supervisor_pid(&self, attempt: u32) -> io::Result<Option<u32>> {
        let run = read_small(&self.attempt_path(attempt).join("run"))?;
        Ok(match run.map(|bytes| decode::<Run>(&bytes)).transpose()? {
            Some(Run::Supervisor { pid }) => Some(pid),
            Some(Run::Fence) | None => None,
        })
    }

    /// How much of its outputs an attempt has written, in bytes.
    pub(crate) fn output_lens(&self, attempt: u32) -> (u64, u64) {
        let dir = self.attempt_path(attempt);
        let len = |name| fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.len());
        (len("stdout"), len("stderr"))
    }

    /// What the supervisor of an attempt has recorded at its end.
    pub(crate) fn exit(&self, attempt: u32) -> io::Result<Option<ExitRecord>> {
        let path = self.attempt_path(attempt).join("exit");
        read_small(&path)?.map(|bytes| decode::<ExitRecord>(&bytes)).transpose()
    }

    /// What there is of an attempt.
    pub(crate) fn found(&self, attempt: u32) -> io::Result<Found> {
        let dir = self.attempt_path(attempt);
        // In this order. A supervisor creates `run` while it holds the lock, and lets go of it
        // after `exit`: one that is seen to have created `run` and holds no lock has ended, and
        // what it recorded is there.
        let run = read_small(&dir.join("run"))?.map(|bytes| decode::<Run>(&bytes)).transpose()?;
        let locked = self.is_locked()?;
        let exit = self.exit(attempt)?.map(|record| record.exit);
        let run = match run {
            None => RunFile::Absent,
            Some(Run::Supervisor { .. }) => RunFile::Supervisor,
            Some(Run::Fence) => RunFile::Fence,
        };
        Ok(Found { run, locked, exit })
    }

    /// Takes the unit's lock, which a supervisor holds for its whole life. Waits for one that holds
    /// it.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let file = self.open_lock()?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn create_run(&self, attempt: u32, run: &Run) -> io::Result<()> {
        let dir = self.attempt_path(attempt);
        make_dir_unsynced(&dir)?;
        // Its name has to be on disk as well as what is in it.
        sync_parent(&dir)?;
        let bytes = rmp_serde::to_vec(run).map_err(io::Error::other)?;
        create_exclusively(&dir.join("run"), &bytes)
    }

    /// Whether a process holds the lock.
    fn is_locked(&self) -> io::Result<bool> {
        let file = self.open_lock()?;
        // A supervisor that tries at this moment waits for it: the lock is released with the file.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn open_lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(self.0.join("lock"))
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The payload.
    pub(crate) fn payload_path(&self) -> PathBuf {
        self.0.join("payload")
    }

    /// The directory of an attempt.
    pub(crate) fn attempt_path(&self, attempt: u32) -> PathBuf {
        self.0.join(format!("attempt-{attempt}"))
    }
}

/// The longest `run` or `exit` file, in bytes.
const MAX_SMALL: u64 = 64 * 1024;

/// The content of a small file. `None` if there is no such file.
fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SMALL).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
