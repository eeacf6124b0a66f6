//! Where units are kept: plain files, one directory for each unit.
//!
//! ```text
//! units/
//!   lock                      locked by the node that uses the directory
//!   store-id                  drawn when the directory is made, see StoreId
//!   tombstones                a log of keys that must no longer be accepted
//!   in/node-SUBMITTER/UUID/   a unit that this node executes
//!     log                     what happened to it; the only file that decides anything
//!     payload
//!     lock                    locked by the supervisor of the running attempt
//!     attempt-N/run           created exclusively by the supervisor, or by the node to void the attempt
//!     attempt-N/exit          how it ended
//!     attempt-N/stdout, stderr
//!                             a handler's attempt has stdout and exit only, once there is output
//!   out/UUID/                 a unit that this node has submitted
//!     log, payload
//! ```
//!
//! Each file has one writer at a time. A directory that cannot be read is left as it is and
//! reported; it does not keep the others from loading. Nothing is written through a symbolic link:
//! directories are made by this node, mode 0700.
//!
//! All calls block on the disk. They belong on a blocking thread.

mod dead_keys;
pub(super) mod faults;
mod files;
mod log;
mod paths;
mod unit_dir;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::dead_keys::DeadKeys;
pub(crate) use self::files::{make_dir, make_dir_unsynced, sync_parent};
pub(crate) use self::paths::UnitPaths;
pub(crate) use self::unit_dir::{ReservedDir, UnitDir};
use super::key::UnitKey;
use crate::id::NodeId;
use crate::work::unit::machine::entry::{ExecutorEntry, StoreId, SubmitterEntry};
use crate::work::unit::machine::time::UnitTime;
use crate::work::unit::machine::tombstones::Death;

/// What a submitter's directory is called: this, and the id. An id alone could be `..`.
const NODE_PREFIX: &str = "node-";

/// The log of keys that must no longer be accepted.
const TOMBSTONES: &str = "tombstones";

/// An open store.
#[derive(Debug)]
pub(crate) struct UnitStore {
    root: PathBuf,
    id: StoreId,
    dead: DeadKeys,
}

/// A unit that a store held when it was opened, with its journal.
#[derive(Debug)]
pub(crate) enum LoadedUnit {
    /// This node executes it.
    Incoming(UnitKey, UnitDir, Vec<ExecutorEntry>),
    /// This node has submitted it.
    Outgoing(Uuid, UnitDir, Vec<SubmitterEntry>),
}

/// A directory or file of the store that cannot be used. It is left as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

impl UnitStore {
    /// Opens a store, and makes it if it does not exist. `new_id` is the id of a store that is
    /// made, `max_dead` the number of tombstones that are kept, and `found` is called for each
    /// unit. Returns the store, and what could not be read.
    ///
    /// # Errors
    /// The directory cannot be made, belongs to somebody else, or its id or tombstones cannot be
    /// read. Without these a unit might run twice.
    pub(crate) fn open(
        root: &Path,
        new_id: Uuid,
        now: UnitTime,
        max_dead: usize,
        mut found: impl FnMut(LoadedUnit),
    ) -> io::Result<(Self, Vec<Quarantined>)> {
        make_dir(root)?;
        let owner = fs::symlink_metadata(root)?.uid();
        for dir in ["in", "out"] {
            make_dir(&root.join(dir))?;
        }
        let id = open_id(&root.join("store-id"), new_id)?;
        let dead = DeadKeys::open(root.join(TOMBSTONES), now, max_dead)?;
        let mut quarantine = Quarantine::default();
        for (path, name) in entries(&root.join("in"))? {
            let submitter =
                name.strip_prefix(NODE_PREFIX).and_then(|id| NodeId::try_from(id.to_owned()).ok());
            let Some(submitter) = submitter else {
                quarantine.add(path, "its name is not that of a submitter");
                continue;
            };
            for (path, name) in entries(&path)? {
                if let Some((id, dir, journal)) = quarantine.load(path, &name, owner) {
                    found(LoadedUnit::Incoming(
                        UnitKey { submitter: submitter.clone(), id },
                        dir,
                        journal,
                    ));
                }
            }
        }
        for (path, name) in entries(&dir_out(root))? {
            if let Some((id, dir, journal)) = quarantine.load(path, &name, owner) {
                found(LoadedUnit::Outgoing(id, dir, journal));
            }
        }
        Ok((Self { root: root.to_owned(), id, dead }, quarantine.0))
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn id(&self) -> StoreId {
        self.id
    }

    /// Makes the directory of a unit that was offered, with the first entries of its journal.
    ///
    /// # Errors
    /// The write failed. Nothing is left behind.
    pub(crate) fn create_incoming(
        &self,
        key: &UnitKey,
        entries: &[ExecutorEntry],
    ) -> io::Result<UnitDir> {
        let parent = dir_in(&self.root, &key.submitter);
        make_dir(&parent)?;
        UnitDir::create(&parent, key.id, entries)
    }

    /// Makes the directory of a unit that is submitted here. The payload is written and synced
    /// before its journal is begun.
    ///
    /// # Errors
    /// The write failed, or the directory exists.
    pub(crate) fn reserve_outgoing(&self, id: Uuid) -> io::Result<ReservedDir> {
        UnitDir::reserve(&dir_out(&self.root), id)
    }

    /// Records that a key must no longer be accepted, and syncs that to disk. Works again after a
    /// failure once the disk does.
    ///
    /// # Errors
    /// The write failed.
    pub(crate) fn add_tombstone(
        &self,
        key: &UnitKey,
        until: UnitTime,
        death: Death,
        now: UnitTime,
    ) -> io::Result<()> {
        self.dead.add(key, until, death, now)
    }

    /// Why a key must no longer be accepted. `None` if it may be. Does not block on the disk.
    pub(crate) fn tombstone(&self, key: &UnitKey) -> Option<Death> {
        self.dead.get(key)
    }

    /// The number of tombstones of one submitter, and of all. Does not block on the disk.
    pub(crate) fn tombstones(&self, submitter: &NodeId) -> (usize, usize) {
        self.dead.counts(submitter)
    }

    /// Forgets tombstones whose time has passed, and shortens their log if it is long.
    ///
    /// # Errors
    /// The shorter log could not be written.
    pub(crate) fn expire_tombstones(&self, now: UnitTime) -> io::Result<()> {
        self.dead.expire(now)
    }
}

/// What is found in a store and cannot be used.
#[derive(Default)]
struct Quarantine(Vec<Quarantined>);

impl Quarantine {
    /// Loads the unit in a directory, or says why it cannot be used.
    fn load<E: DeserializeOwned>(
        &mut self,
        path: PathBuf,
        name: &str,
        owner: u32,
    ) -> Option<(Uuid, UnitDir, Vec<E>)> {
        let Ok(id) = Uuid::parse_str(name) else {
            self.add(path, "its name is not a UUID");
            return None;
        };
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => {
                self.add(path, "it is not a directory");
                return None;
            }
            Ok(metadata) if metadata.uid() != owner => {
                self.add(path, &format!("it belongs to user {}", metadata.uid()));
                return None;
            }
            Ok(_) => {}
            Err(error) => {
                self.add(path, &error.to_string());
                return None;
            }
        }
        match UnitDir::open(&path) {
            Ok(Some((dir, entries))) => Some((id, dir, entries)),
            // It was being made or removed when the node ended.
            Ok(None) => {
                if let Err(error) = fs::remove_dir_all(&path) {
                    self.add(path, &format!("it cannot be removed: {error}"));
                }
                None
            }
            Err(error) => {
                self.add(path, &format!("log: {error}"));
                None
            }
        }
    }

    fn add(&mut self, path: PathBuf, reason: &str) {
        self.0.push(Quarantined { path, reason: reason.to_owned() });
    }
}

/// Where the units are that this node executes for a submitter.
fn dir_in(root: &Path, submitter: &NodeId) -> PathBuf {
    root.join("in").join(format!("{NODE_PREFIX}{submitter}"))
}

/// Where the units are that this node has submitted.
pub(crate) fn dir_out(root: &Path) -> PathBuf {
    root.join("out")
}

/// The directory of a unit that this node executes.
pub(crate) fn path_in(root: &Path, key: &UnitKey) -> PathBuf {
    dir_in(root, &key.submitter).join(key.id.to_string())
}

/// The entries of a directory with their names, sorted. A name that is not UTF-8 is shown with
/// replacement characters.
fn entries(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    if !fs::symlink_metadata(dir)?.is_dir() {
        return Ok(Vec::new());
    }
    let entry = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    let mut found = fs::read_dir(dir)?.map(entry).collect::<io::Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

fn open_id(path: &Path, new_id: Uuid) -> io::Result<StoreId> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let id = Uuid::parse_str(text.trim());
            let unreadable = |_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: not a UUID", path.display()),
                )
            };
            id.map(StoreId).map_err(unreadable)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            files::create_exclusively(path, format!("{new_id}\n").as_bytes())?;
            Ok(StoreId(new_id))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
