//! The directory of one unit.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::faults::before_write;
use super::files::sync_parent;
use super::log::{Log, LogError};
use super::paths::UnitPaths;
use crate::work::unit::machine::entry::JournalEntry;

/// The directory of one unit, and its log.
#[derive(Debug)]
pub(crate) struct UnitDir {
    paths: UnitPaths,
    log: Log,
}

impl UnitDir {
    /// Makes the directory with the first entries of the journal, and syncs both to disk.
    pub(super) fn create<E: Serialize>(parent: &Path, id: Uuid, entries: &[E]) -> io::Result<Self> {
        Self::reserve(parent, id)?.begin(entries)
    }

    /// Makes the directory without a journal. It is removed when the store is opened unless its
    /// journal is begun before.
    pub(super) fn reserve(parent: &Path, id: Uuid) -> io::Result<ReservedDir> {
        let path = parent.join(id.to_string());
        let create =
            || before_write(&path).and_then(|()| DirBuilder::new().mode(0o700).create(&path));
        match create() {
            // What an attempt that failed could not remove. Its caller has reserved the id.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && !path.join("log").try_exists()? =>
            {
                fs::remove_dir_all(&path)?;
                create()?;
            }
            created => created?,
        }
        Ok(ReservedDir { paths: UnitPaths::new(&path), begun: false })
    }

    /// Opens the directory of a unit. `None` if it has no entries: its making or removal was not
    /// finished.
    pub(super) fn open<E: DeserializeOwned>(
        path: &Path,
    ) -> Result<Option<(Self, Vec<E>)>, LogError> {
        let file = path.join("log");
        match fs::symlink_metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(metadata) if !metadata.is_file() => return Err(LogError::Foreign),
            // The magic and the first frame are written at once: a shorter file was never synced.
            Ok(metadata) if metadata.len() == 0 => return Ok(None),
            Ok(_) => {}
        }
        let (log, entries) = Log::open(&file)?;
        if entries.is_empty() {
            return Ok(None);
        }
        Ok(Some((Self { paths: UnitPaths::new(path), log }, entries)))
    }

    /// The directory of a unit whose log was opened or created before, and ends at this offset.
    pub(crate) fn known(path: &Path, log_end: u64) -> Self {
        Self { paths: UnitPaths::new(path), log: Log::known(log_end) }
    }

    /// Where the log ends, in bytes. `None` after an append that has failed.
    pub(crate) fn log_end(&self) -> Option<u64> {
        self.log.end()
    }

    /// Appends entries to the journal, and syncs them to disk if one of them is a promise.
    pub(crate) fn append<E: JournalEntry>(&mut self, entries: &[E]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let path = self.paths.log_path();
        if entries.iter().any(JournalEntry::is_promise) {
            self.log.append(&path, entries)
        } else {
            self.log.append_unsynced(&path, entries)
        }
    }

    /// Reads the journal again after an append has failed.
    pub(crate) fn reopen<E: DeserializeOwned>(&mut self) -> Result<Vec<E>, LogError> {
        let (log, entries) = Log::reopen(&self.paths.log_path())?;
        self.log = log;
        Ok(entries)
    }

    /// The unit's other files.
    pub(crate) fn paths(&self) -> &UnitPaths {
        &self.paths
    }

    /// Removes the unit.
    ///
    /// # Errors
    /// The disk reported an error. It may be tried again.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // Without its log the directory is recognised as one whose removal was not finished.
        remove(&self.paths)
    }
}

/// The directory of a unit whose journal was not begun yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct ReservedDir {
    paths: UnitPaths,
    begun: bool,
}

impl ReservedDir {
    /// Where the payload is written.
    pub(crate) fn paths(&self) -> &UnitPaths {
        &self.paths
    }

    /// Begins the journal, and syncs it and the names to disk.
    ///
    /// # Errors
    /// The write failed. Nothing is left behind.
    pub(crate) fn begin<E: Serialize>(mut self, entries: &[E]) -> io::Result<UnitDir> {
        let path = self.paths.path();
        let log = Log::create(&self.paths.log_path(), entries)?;
        before_write(path)?;
        File::open(path)?.sync_all()?;
        sync_parent(path)?;
        self.begun = true;
        Ok(UnitDir { paths: self.paths.clone(), log })
    }
}

impl Drop for ReservedDir {
    fn drop(&mut self) {
        if !self.begun {
            // What cannot be removed has no entries that were acknowledged.
            let _ = fs::remove_dir_all(self.paths.path());
        }
    }
}

/// Removes a unit.
fn remove(paths: &UnitPaths) -> io::Result<()> {
    before_write(paths.path())?;
    match fs::remove_file(paths.log_path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    before_write(paths.path())?;
    match fs::remove_dir_all(paths.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_parent(paths.path())
}
