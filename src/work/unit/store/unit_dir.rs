//! The directory of one unit.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::files::sync_parent;
use super::log::{Log, LogError};
use super::paths::UnitPaths;

/// The directory of one unit, and its open log.
#[derive(Debug)]
pub(crate) struct UnitDir {
    paths: UnitPaths,
    log: Log,
}

impl UnitDir {
    /// Makes the directory with the first entries of the journal, and syncs both to disk.
    pub(super) fn create<E: Serialize>(parent: &Path, id: Uuid, entries: &[E]) -> io::Result<Self> {
        let path = parent.join(id.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        let log = Log::create(&path.join("log"), entries)
            .and_then(|log| File::open(&path)?.sync_all().map(|()| log))
            .and_then(|log| sync_parent(&path).map(|()| log));
        match log {
            Ok(log) => Ok(Self { paths: UnitPaths::new(&path), log }),
            Err(error) => {
                // What cannot be removed has no entries that anybody was told about.
                let _ = fs::remove_dir_all(&path);
                Err(error)
            }
        }
    }

    /// Opens the directory of a unit. `None` if it has no entries: its making or removal was not
    /// finished.
    pub(super) fn open<E: DeserializeOwned>(path: &Path) -> Result<Option<(Self, Vec<E>)>, LogError> {
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

    /// Appends entries to the journal, and syncs them to disk.
    pub(crate) fn append<E: Serialize>(&mut self, entries: &[E]) -> io::Result<()> {
        if entries.is_empty() { Ok(()) } else { self.log.append(entries) }
    }

    /// The unit's other files.
    pub(crate) fn paths(&self) -> &UnitPaths {
        &self.paths
    }

    /// Removes the unit.
    pub(crate) fn remove(self) -> io::Result<()> {
        // Without its log the directory is recognised as one whose removal was not finished.
        let path = self.paths.path();
        fs::remove_file(path.join("log"))?;
        fs::remove_dir_all(path)?;
        sync_parent(path)
    }
}
